"""Early stopping per target, keeping the best weights of each."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from spacetravlr._types import Bools, Floats, Ints
from spacetravlr.nn._heads import CoefficientHeads
from spacetravlr.nn._module import RefinementModule

_ROUNDING = 1e-9  # of the variance of a target: less is no gain


class PerTargetStopping(pl.Callback):
    """Track the validation error of each target, keep its best weights, and stop it when it no longer improves.

    Epoch 0 is the seed itself: a target that never improves keeps its anchors.

    Parameters
    ----------
    baseline
        Validation error of the seed, shape (n_targets,).
    patience
        Number of epochs to wait for an improvement.
    """

    def __init__(self, baseline: Floats, *, patience: int) -> None:
        self.best_loss = np.asarray(baseline, dtype=np.float64).copy()
        self.patience = patience
        self.best_epoch: Ints = np.zeros(len(baseline), dtype=np.int64)
        self.curves: dict[str, list[Floats]] = {"train": [], "validation": []}
        self._waited = np.zeros(len(baseline), dtype=np.int64)
        self._training: Ints = np.arange(len(baseline))
        self._heads: CoefficientHeads | None = None
        self._own: dict[str, Tensor] = {}
        self._shared: dict[int, dict[str, Tensor]] = {}

    @property
    def stopped(self) -> Bools:
        """Targets that no longer train."""
        return self._waited >= self.patience

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the weights of the seed as the best so far."""
        self._heads = copy.deepcopy(pl_module.heads)
        if pl_module.per_target:
            self._own = pl_module.bodies.snapshot()
        else:
            self._shared = {0: pl_module.bodies.snapshot()}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Compare with the best epoch of each target."""
        validation = self._of_all(pl_module.mean_loss("validation"))
        if trainer.sanity_checking:
            return
        self.curves["validation"].append(validation)
        self.update(pl_module, validation, epoch=len(self.curves["validation"]))
        trainer.should_stop = trainer.should_stop or bool(self.stopped.all())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the training error and drop the targets that have stopped."""
        self.curves["train"].append(self._of_all(pl_module.mean_loss("train")))
        going = ~self.stopped[self._training]
        if going.any() and not going.all():
            pl_module.keep_targets(torch.from_numpy(going).to(pl_module.device), trainer.optimizers[0])
            self._training = self._training[going]

    def update(self, module: RefinementModule, validation: Floats, *, epoch: int) -> None:
        """Save the weights of targets whose ``validation`` error is the best so far."""
        better = (validation < self.best_loss - _ROUNDING) & ~self.stopped
        self.best_loss[better] = validation[better]
        self.best_epoch[better] = epoch
        self._waited = np.where(better, 0, self._waited + 1) if not self.stopped.all() else self._waited
        if self._heads is None or not better.any():
            return
        rows = torch.from_numpy(np.flatnonzero(better)).to(module.device)
        current = torch.from_numpy(np.flatnonzero(better[self._training])).to(module.device)
        self._heads.weight.data[rows] = module.heads.weight.detach()[current]
        if module.per_target:
            for name, value in module.bodies.weights.items():
                self._own[name][rows] = value.detach()[current]
        else:
            self._shared[epoch] = module.bodies.snapshot()
            self._shared = {e: w for e, w in self._shared.items() if e in self.best_epoch}

    def restore(self, module: RefinementModule) -> Ints:
        """Put the best weights of every target into ``module`` and return the body of the stack that each uses."""
        if self._heads is None:
            msg = "training never started"
            raise RuntimeError(msg)
        module.heads = self._heads
        if module.per_target:
            module.bodies.load_weights(self._own)
            return np.arange(len(self.best_epoch))
        # A shared body goes on changing after a target's best epoch, so each distinct best epoch has its own copy.
        epochs, body_of = np.unique(self.best_epoch, return_inverse=True)
        kept = [self._shared[int(e)] for e in epochs]
        module.bodies.load_weights({name: torch.cat([k[name] for k in kept]) for name in kept[0]})
        return body_of.astype(np.int64)

    def _of_all(self, values: Tensor) -> Floats:
        """Values of the targets in training among those of all, NaN for the others."""
        out = np.full(len(self.best_epoch), np.nan)
        out[self._training] = values.numpy()
        return out
