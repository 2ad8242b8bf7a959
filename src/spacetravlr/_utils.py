"""Small helpers without a topic of their own."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from spacetravlr._settings import settings
from spacetravlr._types import Rng

logger = logging.getLogger("spacetravlr")


def as_generator(rng: Rng) -> np.random.Generator:
    """Turn ``rng`` into a Generator; ``None`` is fresh entropy, an int a reproducible seed."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def resolve_n_jobs(n_jobs: int | None) -> int:
    """Threads to use: ``None`` is the setting, negative counts back from all cores as in scikit-learn."""
    if n_jobs is None:
        return max(1, settings.n_jobs)
    if n_jobs == 0:
        msg = "Expected `n_jobs` to be a non-zero integer or None, found `0`."
        raise ValueError(msg)
    return n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)


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
