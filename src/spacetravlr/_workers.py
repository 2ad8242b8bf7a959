"""Work sent to the workers of a Dask cluster, in tasks that share one large object."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from spacetravlr._settings import settings
from spacetravlr._utils import numba_threads, resolve_n_jobs

logger = logging.getLogger(__name__)

Name = TypeVar("Name")

#: Tasks a worker holds: one that computes and one that is there when it ends. More would only pile up results.
_HELD = 2
#: Times that the whole cluster may lose the shared object without any task ending in between.
_LOSSES = 3

# A worker with several threads is given several tasks; each may use all of them, so they take turns. Compiled parallel
# code cannot run inside itself, and limits on threads hold for a whole process.
_one_at_a_time = threading.Lock()


def run_on_workers(
    client: Any,
    function: Callable[..., Any],
    shared: Any,
    tasks: Iterable[tuple[Name, tuple[Any, ...]]],
    *,
    n_jobs: int | None = None,
) -> Iterator[tuple[Name, Any]]:
    """Call ``function(shared, *arguments)`` for each task and yield its name and result as it ends.

    ``shared`` is sent once and copied to every worker. Dask computes the tasks of a dead worker again, but it cannot
    make the shared object again once all workers that held it are gone; then it is sent anew, with the tasks that were
    lost.

    Parameters
    ----------
    client
        ``distributed.Client``. Workers may come later: the first one is waited for.
    function, shared, tasks
        What to call; each task is a name and further arguments, taken when there is a worker for it.
    n_jobs
        Threads of a task, which :func:`~spacetravlr._utils.resolve_n_jobs` returns inside of it; those of the worker by
        default. A worker process computes one task at a time.

    Raises
    ------
    RuntimeError
        If the workers that a task is sent to die one after another.
    """
    from distributed import CancelledError, as_completed
    from distributed.scheduler import KilledWorker

    data, sent, losses = _send(client, shared), 0, 0
    waiting, lost = iter(tasks), deque[tuple[Name, tuple[Any, ...]]]()
    running: dict[Any, tuple[int, tuple[Name, tuple[Any, ...]]]] = {}
    ended = as_completed()
    try:
        while True:
            room = _HELD * max(1, len(client.nthreads())) - len(running)
            for _ in range(max(0, room)):
                task = lost.popleft() if lost else next(waiting, None)
                if task is None:
                    break
                future = client.submit(_call, function, data, task[1], n_jobs, pure=False)
                running[future] = (sent, task)
                ended.add(future)
            if not running:
                return
            future = next(ended)
            sending, task = running.pop(future)
            try:
                result = future.result()
            except KilledWorker as error:
                raise RuntimeError(_dying(task[0])) from error
            except CancelledError as error:
                lost.append(task)
                if sending < sent:  # with an object that was sent anew already
                    continue
                losses += 1
                if losses > _LOSSES:
                    raise RuntimeError(_dying(task[0])) from error
                logger.warning("all workers that held the data died; sending the data again")
                data, sent = _send(client, shared), sent + 1
                continue
            losses = 0
            future.release()
            yield task[0], result
    finally:
        client.cancel(list(running))


def _send(client: Any, shared: Any) -> Any:
    """Copy an object to every worker; sent anew when a worker dies meanwhile, for which distributed has no answer."""
    for losses in range(_LOSSES + 1):
        client.wait_for_workers(1)
        try:
            return client.scatter([shared], broadcast=True, hash=False)[0]
        except (KeyError, OSError, TimeoutError) as error:
            if losses == _LOSSES:
                raise RuntimeError(_dying("sending the data")) from error
            logger.warning("a worker died while the data was being sent; sending the data again")
    raise AssertionError


def _dying(name: Any) -> str:
    return (
        f"Expected workers to outlive their tasks, found that they died one after another at task {name}. Workers that "
        "run out of memory are killed: give them more memory, or use smaller blocks of targets or perturbations."
    )


def _call(function: Callable[..., Any], shared: Any, arguments: tuple[Any, ...], n_jobs: int | None) -> Any:
    """Run a task on a worker, on no more threads than it was given."""
    import dask
    from distributed import get_worker
    from threadpoolctl import threadpool_limits

    threads = get_worker().state.nthreads if n_jobs is None else resolve_n_jobs(n_jobs)
    with _one_at_a_time:
        before, settings.n_jobs = settings.n_jobs, threads
        try:
            # what is read lazily is read here: as further tasks of the cluster it would wait for the lock
            reading = dask.config.set(scheduler="threads", num_workers=threads)
            with reading, numba_threads(threads), threadpool_limits(threads):
                return function(shared, *arguments)
        finally:
            settings.n_jobs = before
