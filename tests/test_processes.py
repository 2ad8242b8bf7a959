"""Tasks in processes: the same results, shared arrays, and an end when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor

import spacetravlr as st
from spacetravlr._processes import in_processes, n_bytes, plain, processes_pay


class Pair(NamedTuple):
    large: np.ndarray
    name: str


@dataclass(frozen=True)
class Inputs:
    pair: Pair
    arrays: list[np.ndarray]
    table: dict[int, np.ndarray]

    @cached_property
    def total(self) -> float:
        return float(self.pair.large.sum())


@pytest.fixture
def inputs():
    large = np.arange(300_000.0).reshape(600, 500)
    return Inputs(Pair(large, "x"), [large[0].copy(), large + 1], {3: large - 1})


def look(inputs, task, check):
    import numba
    from threadpoolctl import threadpool_info

    check()
    arrays = [inputs.pair.large, *inputs.arrays, *inputs.table.values()]
    threads = [numba.get_num_threads(), *(int(i["num_threads"]) for i in threadpool_info())]
    return {
        "task": task,
        "pid": os.getpid(),
        "types": {type(a) for a in arrays},
        "writable": all(a.flags.writeable for a in arrays),
        "mapped": type(inputs.pair.large.base),
        "row": inputs.pair.large[task],
        "total": inputs.total,
        "threads": max(threads),
    }


def test_results_come_in_order_from_processes_that_share_arrays(inputs):
    found = list(in_processes(look, inputs, range(5), 2))
    assert [result["task"] for result in found] == list(range(5))
    assert os.getpid() not in {result["pid"] for result in found}
    for task, result in enumerate(found):
        assert result["types"] == {np.ndarray}  # compiled code knows these best
        assert result["writable"]
        assert result["mapped"] is np.memmap  # not a copy
        np.testing.assert_array_equal(result["row"], inputs.pair.large[task])
        assert result["total"] == inputs.pair.large.sum()
        assert result["threads"] == 1


def where_from(inputs, task, check):
    return str(inputs.pair.large.base.filename)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shares arrays on disk")
@pytest.mark.parametrize("free", [0, 2**40])
def test_arrays_go_to_disk_where_memory_is_short(inputs, monkeypatch, free):
    assert n_bytes(inputs) == 3 * inputs.pair.large.nbytes + inputs.arrays[0].nbytes
    monkeypatch.setattr("spacetravlr._processes.shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    get_reusable_executor().shutdown(wait=True)  # who runs already keeps the place
    (name,) = in_processes(where_from, inputs, [0], 2)
    get_reusable_executor().shutdown(wait=True)
    assert name.startswith("/dev/shm") == (free > 0)


def overwrite(inputs, task, check):
    inputs.pair.large[:] = -1.0
    return float(inputs.pair.large.sum())


def test_what_a_process_writes_stays_its_own(inputs):
    before = inputs.pair.large.copy()
    assert list(in_processes(overwrite, inputs, [0], 2)) == [-before.size]
    np.testing.assert_array_equal(inputs.pair.large, before)


def fail(inputs, task, check):
    if task == 1:
        raise KeyError("odd")
    return task


def test_errors_arrive(inputs):
    with pytest.raises(KeyError, match="odd"):
        list(in_processes(fail, inputs, range(3), 2))


def die(inputs, task, check):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
def test_a_killed_process_is_named(inputs):
    with pytest.raises(RuntimeError, match="found that one was killed.*smaller `n_jobs`"):
        list(in_processes(die, inputs, range(3), 2))


def wait(inputs, task, check):
    time.sleep(0.2)
    return task


def test_results_that_nobody_wants_are_not_waited_for(inputs):
    start = time.perf_counter()
    with closing(in_processes(wait, inputs, range(1000), 2)) as results:
        assert next(results) == 0
    assert time.perf_counter() - start < 60  # all of them take 100 s


@pytest.mark.parametrize(
    ("seconds", "n_jobs", "setting", "expected"),
    [
        (1e5, 1, None, False), (1e5, 1, True, False), (10, 16, None, False), (60, 2, None, False),
        (60, 16, None, True), (200, 2, None, True), (1e5, 16, False, False), (0.1, 2, True, True),
    ],
)  # fmt: skip
def test_processes_are_for_what_they_save(monkeypatch, seconds, n_jobs, setting, expected):
    monkeypatch.setattr(st.settings, "processes", setting)
    assert processes_pay(seconds, n_jobs) is expected


def test_daemons_start_no_processes(monkeypatch):
    class Daemon:
        daemon = True

    monkeypatch.setattr("spacetravlr._processes.current_process", Daemon)
    assert not processes_pay(1e5, 16)


def test_plain_keeps_everything_else(inputs):
    assert plain(inputs) is inputs
    assert plain((1, "a", None)) == (1, "a", None)
    assert plain(inputs.pair).name == "x"


@pytest.fixture
def tissue():
    adata = st.datasets.simulated_tissue(
        n_cells=400, n_targets=3, n_tfs=5, n_active_tfs=3, n_pairs=4, depth=2.0, rng=1
    )  # fmt: skip
    st.pp.spatial_weights(adata)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


@pytest.mark.parametrize("how", [{"counts_layer": "counts", "uncertainty": True}, {"body": "surface"}])
def test_fits_are_the_same_in_processes(tissue, monkeypatch, how):
    found = []
    for processes in (False, True):
        monkeypatch.setattr(st.settings, "processes", processes)
        found.append(st.tl.fit_betas(tissue, rng=0, n_jobs=2, copy=True, **how))
    one, other = found
    np.testing.assert_array_equal(np.asarray(one.obsm["betas"]), np.asarray(other.obsm["betas"]))
    if "betas_sd" in one.obsm:
        np.testing.assert_array_equal(np.asarray(one.obsm["betas_sd"]), np.asarray(other.obsm["betas_sd"]))
    for table in ("scores", "terms"):
        pd.testing.assert_frame_equal(one.uns["betas"][table], other.uns["betas"][table])


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from spacetravlr._processes import in_processes
        def add(shared, task, check):
            return shared + task
        print("started", sum(in_processes(add, 1, [3, 4], 2)))
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["started", "9"]
