"""Compiled functions work where nothing can be cached, from several threads, and say so after a fork."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import warnings

import numba as nb
import numpy as np
import pytest
from numba.core import config
from numba.core.caching import CacheImpl, UserProvidedCacheLocator

from spacetravlr._core import kernels
from spacetravlr._core.kernels import kernel, parallel_kernel


def double(values):
    total = 0.0
    for i in range(values.shape[0]):
        total += 2 * values[i]
    return total


def fill(values):
    for i in nb.prange(values.shape[0]):
        values[i] = i


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """Neither the folder of the source nor the home can be written to."""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [UserProvidedCacheLocator])
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kernels._temporary_cache.cache_clear()
    yield tmp_path
    kernels._temporary_cache.cache_clear()


def test_the_temporary_folder_holds_the_cache_where_nothing_else_can(no_cache):
    with pytest.raises(RuntimeError, match="cannot cache"):
        nb.njit(cache=True)(double)
    assert kernel(double)(np.ones(3)) == 6
    (folder,) = no_cache.iterdir()
    assert list(folder.rglob("*double*.nbi"))
    assert config.CACHE_DIR == ""
    if hasattr(os, "getuid"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners of files")
def test_a_folder_that_others_can_write_to_is_not_used(no_cache):
    folder = no_cache / f"spacetravlr-numba-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert kernel(double)(np.ones(3)) == 6
    assert not list(folder.iterdir())


def test_no_folder_at_all(no_cache, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(no_cache / "missing"))
    assert kernel(double)(np.ones(3)) == 6


def _in_a_child(function):
    """What ``function`` gives or raises in a forked child, as text."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        pid = os.fork()
    if pid == 0:
        try:
            text = str(function())
        except BaseException as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as file:
        return file.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_told_what_to_do():
    run = parallel_kernel(fill)
    run(np.zeros(8))
    said = _in_a_child(lambda: run(np.zeros(8)))
    if nb.threading_layer() == "omp":
        assert said.startswith("RuntimeError: Expected")
        assert "spawn" in said
    else:
        assert said == "None"


def test_threads_take_turns_where_the_pool_is_not_safe():
    code = """\
import threading, numba
import numpy as np
from spacetravlr._core.kernels import parallel_kernel
@parallel_kernel
def fill(values):
    for i in numba.prange(values.shape[0]):
        values[i] = i
def run():
    for _ in range(300):
        values = np.zeros(20_000)
        fill(values)
        assert values[-1] == 19_999
fill(np.zeros(2))
threads = [threading.Thread(target=run) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(numba.threading_layer())
"""
    variables = os.environ | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "workqueue", done.stderr
