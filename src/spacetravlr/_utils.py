"""Small helpers without a topic of their own."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spacetravlr._resources import available_cores
from spacetravlr._settings import settings
from spacetravlr._types import Floats, Ints, Rng

logger = logging.getLogger("spacetravlr")

_ROWS = 256  # of a large array that are moved at once


def as_generator(rng: Rng) -> np.random.Generator:
    """Turn ``rng`` into a Generator; ``None`` is fresh entropy, an int a reproducible seed."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def resolve_n_jobs(n_jobs: int | None) -> int:
    """Threads to use: ``None`` is the setting, negative counts back from all available cores as in scikit-learn."""
    wanted = settings.n_jobs if n_jobs is None else n_jobs
    if wanted == 0:
        msg = f"Expected `{'settings.' if n_jobs is None else ''}n_jobs` to be a non-zero integer, found `0`."
        raise ValueError(msg)
    return wanted if wanted > 0 else max(1, available_cores() + 1 + wanted)


class InterruptiblePool(ThreadPoolExecutor):
    """A pool of threads whose tasks end soon when the block that uses it is left by an exception, such as Ctrl-C."""

    def __init__(self, n_threads: int) -> None:
        super().__init__(n_threads)
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """Ask tasks to end."""
        self._interrupted.set()

    def interrupted(self) -> bool:
        """Whether tasks shall end."""
        return self._interrupted.is_set()

    def check(self) -> None:
        """Leave a task that shall end; for its code to call now and then."""
        if self.interrupted():
            raise CancelledError

    def __exit__(self, kind: Any, *args: object) -> None:
        """Wait for tasks, after an exception only for those that run."""
        if kind is not None:
            self.interrupt()
        self.shutdown(cancel_futures=kind is not None)


def take_rows(values: Floats, rows: Ints, out: Floats, n_jobs: int) -> Floats:
    """Fill ``out`` with ``values[rows]`` and return it, some rows at a time: all at once would take another copy.

    Most of the time of a large array goes to the system, which hands out its memory as it is written; threads share it.
    """

    def fill(start: int) -> None:
        out[start : start + _ROWS] = values[rows[start : start + _ROWS]]

    with InterruptiblePool(n_jobs) as pool:
        list(pool.map(fill, range(0, len(rows), _ROWS)))
    return out


@contextmanager
def numba_threads(n_jobs: int | None) -> Iterator[int]:
    """Run compiled parallel code on ``n_jobs`` threads, then restore what was set."""
    import numba

    before = numba.get_num_threads()
    wanted = min(resolve_n_jobs(n_jobs), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        numba.set_num_threads(before)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first caller outside the package."""
    package = str(Path(__file__).parent)
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def absolute_path(path: str | os.PathLike[str]) -> Path:
    """Path that means the same after a change of the working folder; ``~`` is the user's home."""
    return Path(path).expanduser().absolute()
