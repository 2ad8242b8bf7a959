"""Train a block of targets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment

from spacetravlr.nn import _losses
from spacetravlr.nn._block_fit import BlockFit
from spacetravlr.nn._bodies import BODIES
from spacetravlr.nn._config import BlockData, NetworkConfig, NicheData
from spacetravlr.nn._data import RefinementData, term_rows
from spacetravlr.nn._features import NicheBody
from spacetravlr.nn._heads import CoefficientHeads
from spacetravlr.nn._module import RefinementModule
from spacetravlr.nn._process import deferred_interrupt, plain_torch, training_state
from spacetravlr.nn._progress import EpochBar
from spacetravlr.nn._stack import BodyStack
from spacetravlr.nn._stopping import PerTargetStopping

_SCALE_CELLS = 10_000


def fit_block(
    data: BlockData,
    config: NetworkConfig,
    *,
    n_jobs: int | None = None,
    show_progress_bar: bool = False,
    interrupted: Callable[[], bool] | None = None,
) -> BlockFit:
    r"""Refine the seed coefficients of a block of targets with a network.

    .. math::

        \min \sum_t \Big[ \frac{1}{|B|} \sum_j (y_{jt} - \hat y_{jt})^2 + \lambda \sum_m \|w_m\|
        + \kappa \sum_g \sqrt{|g|} \, \|\delta_{g}\| \Big]

    Each target stops early by its own validation error, and its best weights are restored. A target that never improves
    on its seed keeps the seed. With ``config.encoder="per_target"``, the result for a target does not depend on its
    block.

    Parameters
    ----------
    data
        Inputs, regressors, responses, anchors and the split of the cells.
    config
        Settings of the refinement.
    n_jobs
        Number of CPU threads; None uses the setting. The previous number is restored afterwards.
    show_progress_bar
        Show a progress bar over epochs.
    interrupted
        Called before every minibatch; training ends with KeyboardInterrupt if it returns True.

    Returns
    -------
    The fit, from which coefficients of any cells can be evaluated.

    Raises
    ------
    ValueError
        If the device of ``config`` is not available.
    KeyboardInterrupt
        After Ctrl-C, at the end of a minibatch.
    """
    config.assert_device()
    with training_state(n_jobs), tempfile.TemporaryDirectory() as folder:
        source = RefinementData(data, config)
        module = _build_module(source)
        baseline = (source.residual[:, source.validation_cells].astype(np.float64) ** 2).mean(1)
        stopping = PerTargetStopping(baseline, patience=config.patience)
        callbacks: list[pl.Callback] = [stopping]
        if show_progress_bar:
            callbacks.append(EpochBar(config.n_epochs))
        options: dict[str, Any] = {
            "max_epochs": config.n_epochs,
            "accelerator": config.device,
            "devices": 1,
            "precision": _precision(config),
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": folder,
        }
        options |= dict(config.trainer_kwargs or {})
        if not options.keys() & {"strategy", "num_nodes"}:
            # else Lightning reads the variables of a SLURM job or of torchrun, and waits for the other tasks
            options |= {"strategy": "auto", "num_nodes": 1, "plugins": _alone(options.get("plugins"))}
        with deferred_interrupt(interrupted) as check:
            options["callbacks"] = [check, *callbacks, *np.atleast_1d(options.get("callbacks") or [])]
            trainer = pl.Trainer(**options)
            trainer.fit(module, datamodule=source)
        body_of = stopping.restore(module)
        module.float()
    return BlockFit(
        data=data,
        config=config,
        bodies=module.bodies.requires_grad_(requires_grad=False).eval(),
        heads=module.heads.requires_grad_(requires_grad=False).eval(),
        body_of=body_of,
        best_epoch=stopping.best_epoch,
        curves={name: np.array(values, dtype=np.float32) for name, values in stopping.curves.items()},
        baseline=baseline.astype(np.float32),
        device=trainer.strategy.root_device,
    )


def build_body(config: NetworkConfig, data: NicheData, *, seed: int) -> NicheBody:
    """Make an untrained body for ``data`` with weights drawn from ``seed``."""
    # the constructors of torch draw weights, which are replaced below
    with plain_torch(), torch.random.fork_rng(devices=[]):
        body = BODIES[config.architecture](
            n_cell_types=data.composition.shape[1],
            n_dims=data.position.shape[1],
            n_frequencies=config.n_frequencies,
            width=config.width,
            image_size=config.image_size,
        ).float()
        body.reset_parameters(torch.Generator().manual_seed(seed & (2**63 - 1)))
    return body


def _build_module(source: RefinementData) -> RefinementModule:
    data, config = source.data, source.config
    # Combined without regard to order, so that a shared body does not depend on the order of its targets.
    seeds = data.seeds if config.encoder == "per_target" else [np.bitwise_xor.reduce(data.seeds)]
    bodies = [build_body(config, data, seed=int(seed)) for seed in seeds]
    for body in bodies:
        body.set_scales(*source.sample(_SCALE_CELLS))
    stack = BodyStack(bodies)
    source.prepare_images(bodies[0].prepare)  # the stack has copies, which may move to another device
    anchors = torch.from_numpy(np.ascontiguousarray(data.anchors, dtype=np.float32))
    share = np.bincount(data.cell_type[source.train_cells], minlength=anchors.shape[1]) / len(source.train_cells)
    return RefinementModule(
        bodies=stack,
        heads=CoefficientHeads(anchors, n_features=bodies[0].n_features, mode=config.mode),
        rows=torch.from_numpy(term_rows(data.term_index, data.design.shape[1])),
        membership=_losses.removed_membership(
            anchors, torch.from_numpy(data.group.astype(np.int64)), torch.from_numpy(share.astype(np.float32))
        ),
        steps=torch.from_numpy(source.steps),
        config=config,
        n_steps=source.steps_per_epoch * config.n_epochs,
        n_train=len(source.train_cells),
    )


def _precision(config: NetworkConfig) -> Any:
    if config.precision != "auto":
        return config.precision
    # mps has no double precision
    on_mps = config.device == "mps" or (config.device == "auto" and torch.backends.mps.is_available())
    return "64-true" if config.encoder == "per_target" and not on_mps else "32-true"


def _alone(plugins: Any) -> list[Any]:
    """Plugins of a trainer, with an environment of one process unless the user gives one."""
    given = list(plugins) if isinstance(plugins, list | tuple) else [plugins] if plugins else []
    return given if any(isinstance(p, ClusterEnvironment) for p in given) else [*given, LightningEnvironment()]
