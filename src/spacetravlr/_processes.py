"""Independent tasks in processes of this machine, which share one large object without copies of its arrays.

Threads share one interpreter. Where a task is many short calls of compiled code, as the search for the parts of a
surface is, threads wait for each other: sixteen of them do the work of two.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import is_dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spacetravlr._settings import settings

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

#: Function of the shared object, a task, and what to call now and then: it raises when the work shall end.
Work = Callable[[Shared, Task, Callable[[], None]], Result]

#: Memory of a process with the package and its compiled code.
BYTES = 0.4e9
#: Part of the work on a target for which a thread holds the interpreter (of samples of two threads: 0.42 in fits to
#: counts, 0.47 in exact surfaces).
INTERPRETED = 0.4
_WORTH_SECONDS = 15.0  # to be saved: processes take some seconds to start, more where nothing is compiled yet
_SHARED_FROM = "1M"  # arrays of this size are shared, smaller ones are sent with each task
_MARGIN = 1.5  # room that there must be for them


def processes_pay(seconds: float, n_jobs: int) -> bool:
    """Whether work of about so many seconds on one core is done in processes, by the setting or for what they save."""
    if current_process().daemon or n_jobs == 1:  # such a process may not start any
        return False
    if settings.processes is not None:
        return settings.processes
    return seconds * INTERPRETED * (1 - 1 / n_jobs) >= _WORTH_SECONDS


def in_processes(
    work: Work[Shared, Task, Result], shared: Shared, tasks: Iterable[Task], n_jobs: int
) -> Iterator[Result]:
    """Call ``work(shared, task, check)`` for every task and yield the results in the order of the tasks.

    Raises
    ------
    RuntimeError
        If a process was killed.
    """
    from joblib import Parallel, delayed, parallel_config

    # copy on write: compiled code takes arrays that are read only for others, and would be compiled again
    sharing = {"mmap_mode": "c", "max_nbytes": _SHARED_FROM, "temp_folder": _folder(shared)}
    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=n_jobs, return_as="generator", batch_size=1, **sharing)
    results = parallel(delayed(_call)(work, shared, task) for task in tasks)
    try:
        for result in results:  # noqa: UP028 - closing this generator shall not close the other outside of `finally`
            yield result
    except BrokenProcessPool as error:
        msg = (
            "Expected processes to outlive their tasks, found that one was killed. The system does so when memory runs "
            "out: use a smaller `n_jobs`, or threads (`st.settings.processes = False`)."
        )
        raise RuntimeError(msg) from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it says that tasks were cancelled, as they shall be
            results.close()


def _folder(shared: Any) -> str | None:
    """Where to share arrays: in memory (joblib's choice), unless containers or others have left too little of it.

    Processes that run already keep their place.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free < _MARGIN * n_bytes(shared):
        return tempfile.gettempdir()
    return None


def _call(work: Work[Shared, Task, Result], shared: Shared, task: Task) -> Result:
    return work(plain(shared), task, _carry_on)


def _carry_on() -> None:
    """Nothing ends a task early in a process: the process is ended."""


def n_bytes(value: Any) -> int:
    """Bytes of all arrays of an object made of tuples, lists, dicts and data classes."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return sum(n_bytes(part) for part in parts)


def plain(value: Any) -> Any:
    """Turn arrays that were mapped from a file into ordinary ones, in place where that is possible: they are faster."""
    if isinstance(value, np.memmap):
        return value.view(np.ndarray)
    if isinstance(value, tuple):
        parts = [plain(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        for name, part in vars(value).items():
            vars(value)[name] = plain(part)
    return value
