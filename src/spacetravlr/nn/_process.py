"""Isolate training from the settings of its process, and leave no changes behind."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch

from spacetravlr._utils import resolve_n_jobs


@contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[int]:
    """Run torch on ``n_jobs`` threads, then restore what was set."""
    before, wanted = torch.get_num_threads(), resolve_n_jobs(n_jobs)
    torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        torch.set_num_threads(before)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Tensors on the CPU, with gradients and in the precision of their inputs, regardless of the session's settings.

    All of these settings are per thread and are restored. The default dtype is per process, so code in this package
    states its dtypes explicitly.
    """
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":  # such a context makes every call of torch slower
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def training_state(n_jobs: int | None) -> Iterator[None]:
    """Threads of torch, warning filters, logger levels and torch's random state, all restored at the end.

    The first three are per process. Trainings that run in parallel therefore need one of these contexts around all of
    them, on the thread that starts them; nested contexts have no effect.
    """
    with torch_threads(n_jobs), _quiet_lightning(), plain_torch(), torch.random.fork_rng(devices=[]):
        yield


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about hardware and workers, here only."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=pl.utilities.warnings.PossibleUserWarning)
            warnings.simplefilter("ignore", category=FutureWarning)  # Lightning on the newest torch
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _StopTrainingError(Exception):
    """Ends a training; any exception but KeyboardInterrupt, which Lightning turns into the end of the process."""


class InterruptCheck(pl.Callback):
    """End the training before the next minibatch once ``interrupted`` returns True.

    Parameters
    ----------
    interrupted
        Called before every minibatch.
    """

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self.interrupted = interrupted

    def check(self) -> None:
        """Raise if training should end."""
        if self.interrupted():
            raise _StopTrainingError

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Check."""
        self.check()

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Check."""
        self.check()


@contextmanager
def deferred_interrupt(interrupted: Callable[[], bool] | None = None) -> Iterator[InterruptCheck]:
    """Defer Ctrl-C until the training has ended cleanly, then raise KeyboardInterrupt.

    Lightning itself would respond to Ctrl-C by ignoring further signals and exiting Python.

    Parameters
    ----------
    interrupted
        Also called before every minibatch; for trainings on other threads, which signals do not reach.

    Returns
    -------
    A callback for the trainer.
    """
    pressed: list[tuple[int, FrameType | None]] = []
    check = InterruptCheck(lambda: bool(pressed) or (interrupted is not None and interrupted()))
    before = signal.getsignal(signal.SIGINT)
    deferring = threading.current_thread() is threading.main_thread() and callable(before)
    if deferring:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        try:
            yield check
        except _StopTrainingError:
            pass
        except SystemExit as error:  # a callback of the user's raised KeyboardInterrupt
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt from None
    finally:
        if deferring:
            signal.signal(signal.SIGINT, before)
    if check.interrupted():
        if pressed and callable(before):
            before(*pressed[0])
        raise KeyboardInterrupt
