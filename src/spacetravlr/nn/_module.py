"""The Lightning module: a stack of bodies, heads for every target, the loss, clipping for each target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from spacetravlr.nn import _losses
from spacetravlr.nn._config import NetworkConfig
from spacetravlr.nn._data import Batch, gather_terms
from spacetravlr.nn._heads import CoefficientHeads
from spacetravlr.nn._stack import BodyStack


class RefinementModule(pl.LightningModule):
    """Refine the seed coefficients of a block of targets.

    Parameters
    ----------
    bodies
        One body (shared) or one per target.
    heads
        Heads of the targets, with their anchors.
    rows
        Rows of the batch's design for each target, intercept first, shape (n_targets, max_terms + 1).
    membership
        Share of the cells in which the seed removed each term, by group; see
        :func:`~spacetravlr.nn._losses.removed_membership`.
    steps
        Step size of each target's heads, as a share of the learning rate, shape (n_targets,).
    config
        Settings of the refinement.
    n_steps
        Steps of the whole training, for the cosine schedule.
    n_train
        Number of training cells; the noise of a fitted field, and so the shrinkage, decreases with its square root.
    """

    rows: Tensor
    membership: Tensor
    steps: Tensor
    targets: Tensor

    def __init__(
        self,
        *,
        bodies: BodyStack,
        heads: CoefficientHeads,
        rows: Tensor,
        membership: Tensor,
        steps: Tensor,
        config: NetworkConfig,
        n_steps: int,
        n_train: int,
    ) -> None:
        super().__init__()
        self.bodies, self.heads, self.config, self.n_steps = bodies, heads, config, n_steps
        self.shrinkage_weight = config.shrinkage / n_train**0.5
        self.register_buffer("rows", rows)
        self.register_buffer("membership", membership)
        self.register_buffer("steps", steps)
        self.register_buffer("targets", torch.arange(len(rows)))  # rows of the batch: targets still in training
        self.epoch_loss: dict[str, list[tuple[Tensor, int]]] = {"train": [], "validation": []}

    @property
    def per_target(self) -> bool:
        """Whether every target has its own body."""
        return self.config.encoder == "per_target"

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embedding of the cells and what the refinement adds to the seed's prediction, (n_targets, batch)."""
        embedding = self.bodies(batch.image, batch.composition, batch.position, batch.cell_type, prepared=True)
        values = gather_terms(batch.design, self.rows)
        return embedding, self.heads.predicted_change(embedding, values, batch.cell_type)

    def squared_error(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embedding of the cells and the squared error of each target."""
        embedding, change = self(batch)
        return embedding, _losses.squared_error(batch.residual[self.targets], change.to(batch.residual.dtype))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Every term of the loss, each of shape (n_targets,)."""
        embedding, error = self.squared_error(batch)
        terms = {"squared_error": error}
        terms["shrinkage"] = self.shrinkage_weight * _losses.shrinkage(self.heads.weight, self.heads.scale)
        if self.config.mode == "additive":
            mean_square = self.heads.mean_square_departure(embedding).to(batch.residual.dtype)
            terms["group_penalty"] = self.config.group_penalty * _losses.group_penalty(mean_square, self.membership)
        return terms

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of the losses of the targets."""
        terms = self.losses(batch)
        self.epoch_loss["train"].append((terms["squared_error"].detach(), len(batch.cell_type)))
        # A sum, not a mean: a target's gradient must not depend on how many others there are.
        return torch.stack(list(terms.values())).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Squared error of every target on validation cells."""
        _, error = self.squared_error(batch)
        self.epoch_loss["validation"].append((error, len(batch.cell_type)))

    def keep_targets(self, rows: Tensor, optimizer: Any) -> None:
        """Continue only with the targets at ``rows``, so that the others cost nothing."""
        for weight in self._weights_of_targets():
            state = optimizer.state[weight]
            state |= {name: value[rows] for name, value in state.items() if value.shape == weight.shape}
            weight.data, weight.grad = weight.data[rows], None
        self.heads.keep_targets(rows)
        self.rows, self.membership, self.targets = self.rows[rows], self.membership[:, rows], self.targets[rows]
        self.steps = self.steps[rows]

    def mean_loss(self, part: str) -> Tensor:
        """Mean squared error of each target over the cells seen since the last call, shape (n_targets,)."""
        errors, counts = zip(*self.epoch_loss[part], strict=True)
        self.epoch_loss[part] = []
        weight = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        return (torch.stack(errors).cpu().double() * weight[:, None]).sum(0)

    def configure_optimizers(self) -> Any:
        """AdamW with a short warm-up and cosine decay to zero."""
        groups = [
            {"params": list(self.bodies.weights.values()), "weight_decay": self.config.weight_decay},
            {"params": [self.heads.weight], "weight_decay": 0.0},  # the heads have the penalties
        ]
        # A larger eps than usual: directions with a gradient of pure rounding error must not take full steps.
        fused = self.device.type in ("cpu", "cuda")  # one pass over the weights where there is a kernel for it
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, eps=1e-6, fused=fused)
        warm = max(1, self.n_steps // 20)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            progress = min(1.0, (step - warm) / max(1, self.n_steps - warm))
            return 0.5 * (1.0 + math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step with a separate learning rate per target (Adam has one for all targets)."""
        heads = self.heads.weight
        before = heads.detach().clone()
        optimizer.step(closure=optimizer_closure)
        # at a share of one it is the step of the optimizer to the last digit
        heads.data = torch.lerp(before, heads.detach(), self.steps[:, None, None])

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip every target's gradient by its own norm; a shared body by its norm for an average target."""
        clip_by_target(self._weights_of_targets(), limit=self.config.clip)
        if not self.per_target:
            torch.nn.utils.clip_grad_norm_(self.bodies.weights.values(), self.config.clip * len(self.targets))

    def _weights_of_targets(self) -> list[torch.nn.Parameter]:
        """Weights with one slice a target."""
        return [self.heads.weight, *(self.bodies.weights.values() if self.per_target else ())]


def clip_by_target(weights: list[torch.nn.Parameter], *, limit: float) -> None:
    """Scale gradients so that each slice of the leading axis has at most the norm ``limit`` over all ``weights``."""
    gradients = [w.grad for w in weights if w.grad is not None]
    if not gradients:
        return
    norm = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]), dim=0
    )
    scale = (limit / (norm + 1e-12)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(scale.reshape(-1, *[1] * (gradient.ndim - 1)))
