"""A training gives the same whatever the session has set, leaves that as it is, and ends at Ctrl-C."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from spacetravlr.nn import BlockFit, NetworkConfig, fit_block

CELLS = slice(0, 20)


@pytest.fixture(scope="module")
def small(tissue, take):
    return take(tissue.data, np.arange(2))


def results(data, **options):
    """What a fit, what is read back of it and what is predicted with it give."""
    fit = fit_block(data, NetworkConfig(n_epochs=2, device="cpu", **options), n_jobs=1)
    again = BlockFit.from_state_dict(fit.state_dict(), data)
    some = np.arange(20)
    return (
        again.coefficients(CELLS),
        again.take(np.array([1])).coefficients(CELLS),
        again.predictions(some, data.design[some], data.term_index),
        again.mean_place(),
    )


@pytest.fixture(scope="module", params=["cnn", "vit"])
def plain(request, small):
    return request.param, results(small, body=request.param)


class SetInSession:
    """A choice for the whole session, made and taken back by calls."""

    def __init__(self, choose, value, default):
        self.choose, self.value, self.default = choose, value, default

    def __enter__(self):
        self.choose(self.value)

    def __exit__(self, *_):
        self.choose(self.default)


@pytest.mark.parametrize(
    "session",
    [
        partial(SetInSession, torch.set_default_dtype, torch.float64, torch.float32),
        partial(SetInSession, torch.set_default_device, "meta", None),
        partial(SetInSession, torch.use_deterministic_algorithms, True, False),
        torch.no_grad,
        torch.inference_mode,
        partial(torch.autocast, "cpu", dtype=torch.bfloat16),
        partial(np.errstate, all="raise"),
    ],
    ids=["double", "device", "deterministic", "no gradients", "inference", "autocast", "errors of numpy"],
)
def test_choices_of_the_session_change_nothing(small, plain, session):
    def state():
        return (
            torch.get_default_dtype(), torch.get_default_device(), torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
        )  # fmt: skip

    body, expected = plain
    with session():
        before = state()
        found = results(small, body=body)
        assert state() == before
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "4"},
        {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"},
        {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2",
         "MASTER_ADDR": "localhost", "MASTER_PORT": "29400", "TORCHELASTIC_RUN_ID": "x"},
        {"PL_TRAINER_STRATEGY": "ddp", "PL_TRAINER_NUM_NODES": "2", "PL_TRAINER_DEVICES": "2"},
    ],
    ids=["tasks", "third task", "torchrun", "lightning"],
)  # fmt: skip
def test_variables_of_a_job_are_not_for_us(small, plain, monkeypatch, variables):
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "fit", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "node1"}
    for name, value in (job | variables).items():
        monkeypatch.setenv(name, value)
    body, expected = plain
    for a, b in zip(expected, results(small, body=body), strict=True):
        np.testing.assert_array_equal(a, b)


class Press(pl.Callback):
    """Sends Ctrl-C to this process, or raises what it raises, in the second epoch."""

    def __init__(self, *, raising: bool) -> None:
        self.raising, self.at = raising, 0.0

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 1 and not self.at:
            self.at = time.monotonic()
            if self.raising:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("raising", [False, True], ids=["signal", "exception"])
def test_ctrl_c_ends_a_training_and_nothing_else(small, tmp_path, monkeypatch, raising):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    press = Press(raising=raising)
    # a process that was started in the background ignores Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    config = NetworkConfig(n_epochs=500, patience=500, device="cpu", trainer_kwargs={"callbacks": [press]})
    try:
        with pytest.raises(KeyboardInterrupt):
            fit_block(small, config, n_jobs=1)
        assert time.monotonic() - press.at < 10
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert torch.get_num_threads() == threads
    assert not list(tmp_path.iterdir())


def test_a_handler_of_the_session_has_the_word(small):
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        config = NetworkConfig(n_epochs=500, device="cpu", trainer_kwargs={"callbacks": [Press(raising=False)]})
        with pytest.raises(KeyboardInterrupt):
            fit_block(small, config, n_jobs=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_a_training_on_another_thread_ends_when_asked(small):
    asked, ended = threading.Event(), []

    def train():
        try:
            fit_block(small, NetworkConfig(n_epochs=10_000, patience=10_000, device="cpu"), interrupted=asked.is_set)
        except BaseException as error:  # noqa: BLE001
            ended.append(type(error))

    thread = threading.Thread(target=train)
    thread.start()
    time.sleep(0.5)
    asked.set()
    thread.join(30)
    assert ended == [KeyboardInterrupt]


def test_trainings_that_shall_be_distributed_are_left_alone(small):
    with pytest.raises(Exception, match="(?i)strategy"):
        fit_block(small, replace(NetworkConfig(device="cpu"), trainer_kwargs={"strategy": "no such strategy"}))
