"""How every compiled function of the package is compiled, cached and called.

:func:`kernel` compiles a function of one thread, :func:`parallel_kernel` one that runs on numba's threads. Both work
where nothing can be written, and where numba's own would end the interpreter the second takes turns or raises.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import config

logger = logging.getLogger(__name__)

Function = Callable[..., Any]

# The pool "workqueue", which numba takes where there is neither TBB nor OpenMP, aborts when two threads enter it.
_turn = threading.Lock()
_threads_lost = False


def kernel(function: Function | None = None, **options: Any) -> Any:
    """Compile a function that runs without the interpreter lock; ``options`` are those of ``numba.njit``."""
    if function is None:
        return lambda wrapped: _compile(wrapped, **options)
    return _compile(function, **options)


def parallel_kernel(function: Function | None = None, **options: Any) -> Any:
    """Compile a function whose ``prange`` loops run on numba's threads; for calls from Python only."""
    if function is None:
        return lambda wrapped: ParallelKernel(wrapped, **options)
    return ParallelKernel(function, **options)


class ParallelKernel:
    """A compiled function with parallel loops that may be called from any thread.

    GNU's OpenMP does not survive ``fork``: a child of a process that has used it would be killed, or wait for ever.
    """

    def __init__(self, function: Function, **options: Any) -> None:
        update_wrapper(self, function)
        self._compiled = _compile(function, parallel=True, **options)

    def __call__(self, *arguments: Any) -> Any:
        """Run the function.

        Raises
        ------
        RuntimeError
            In a forked child of a process that has run compiled parallel code.
        """
        if _threads_lost:
            msg = (
                "Expected a spawned process, found a fork of a process that has used the package: the threads of "
                "compiled code do not survive a fork; start processes with multiprocessing.get_context('spawn') or "
                "joblib."
            )
            raise RuntimeError(msg)
        if _takes_turns():
            with _turn:
                return self._compiled(*arguments)
        return self._compiled(*arguments)


@cache
def _takes_turns() -> bool:
    nb.get_num_threads()  # starts the pool, which is chosen for the life of the process
    return bool(nb.threading_layer() == "workqueue")


def _compile(function: Function, **options: Any) -> Any:
    """Compile with a cache next to the source or in the user's home, else in a folder of our own, else without."""
    try:
        return nb.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    folder = _temporary_cache()
    if folder is not None:
        before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
        try:
            return nb.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:
            logger.debug("numba cannot cache in %s", folder)
        finally:
            config.CACHE_DIR = before
    return nb.njit(nogil=True, **options)(function)


@cache
def _temporary_cache() -> Path | None:
    """Folder below the temporary one that nobody else can write to, since numba runs what it finds there."""
    try:
        if not hasattr(os, "getuid"):
            folder = Path(tempfile.gettempdir()) / "spacetravlr-numba"
            folder.mkdir(exist_ok=True)
            return folder
        folder = Path(tempfile.gettempdir()) / f"spacetravlr-numba-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if private else None


def _after_fork() -> None:
    """Note in a child whether the threads of its parent are gone for good."""
    global _turn, _threads_lost
    _turn = threading.Lock()
    try:
        _threads_lost = _threads_lost or nb.threading_layer() == "omp"
    except ValueError:  # not started yet
        return


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
