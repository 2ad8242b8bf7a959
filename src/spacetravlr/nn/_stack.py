"""Several bodies of one architecture, evaluated as one batched tensor program."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from spacetravlr.nn._features import NicheBody


class BodyStack(nn.Module):
    """Bodies whose weights are stacked along a leading axis; inputs and their scaling are shared.

    Parameters
    ----------
    bodies
        Bodies of the same shape.
    """

    def __init__(self, bodies: Sequence[NicheBody]) -> None:
        super().__init__()
        stacked, _ = stack_module_state(list(bodies))
        own = {_escape(name): nn.Parameter(value.detach()) for name, value in stacked.items()}
        self.weights = nn.ParameterDict(own)
        # Gives the program and the scaling; its own weights are never used nor trained.
        self.template = copy.deepcopy(bodies[0]).requires_grad_(requires_grad=False)

    @property
    def n_bodies(self) -> int:
        """Number of bodies."""
        return next(iter(self.weights.values())).shape[0]

    def forward(
        self,
        image: Tensor,
        composition: Tensor,
        position: Tensor,
        cell_type: Tensor,
        place: Tensor | None = None,
        *,
        prepared: bool = False,
    ) -> Tensor:
        """Embed cells with every body; shape (n_bodies, n_features, batch)."""
        image = image if prepared else self.template.prepare(image)
        inputs = (image, composition, position, cell_type, place)
        weights = {_unescape(name): value for name, value in self.weights.items()}

        def embed(own: dict[str, Tensor]) -> Tensor:
            return cast("Tensor", functional_call(self.template, own, inputs, {"prepared": True}, tie_weights=False).T)

        # Without gradients on the CPU, convolutions one by one are faster than the grouped ones of a batch of bodies.
        if self.n_bodies == 1 or (image.device.type == "cpu" and not torch.is_grad_enabled()):
            return torch.stack([embed({name: w[i] for name, w in weights.items()}) for i in range(self.n_bodies)])
        return vmap(embed)(weights)

    def snapshot(self) -> dict[str, Tensor]:
        """Copy the stacked weights."""
        return {name: value.detach().clone() for name, value in self.weights.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the stacked weights; the number of bodies may change."""
        for name, value in weights.items():
            self.weights[name] = nn.Parameter(value.clone(), requires_grad=self.weights[name].requires_grad)


def _escape(name: str) -> str:
    return name.replace(".", "__")  # a ParameterDict takes no dots


def _unescape(name: str) -> str:
    return name.replace("__", ".")
