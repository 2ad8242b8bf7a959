"""Compiled kernels of a test run are those of these sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba

ROOT = Path(__file__).resolve().parents[2]


def test_the_cache_is_named_by_the_sources(tmp_path) -> None:
    """A change in any file of the kernels leads to another folder: those in it were never compiled from older ones."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    core = tmp_path / "src" / "spacetravlr" / "_core"
    core.mkdir(parents=True)
    code = "import runpy, os; runpy.run_path('tests/conftest.py'); print(os.environ['NUMBA_CACHE_DIR'])"
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}

    def folder() -> Path:
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return Path(result.stdout.strip())

    (core / "a.py").write_text("x = 1\n")
    first = folder()
    assert folder() == first
    (core / "a.py").write_text("x = 2\n")
    second = folder()
    assert second != first
    assert second.is_dir()
    assert not first.exists()


def test_numba_uses_that_cache() -> None:
    assert os.environ["NUMBA_CACHE_DIR"] == numba.config.CACHE_DIR
