r"""Linear heads: from a cell's embedding to the coefficients of every target of a block.

Cells are the last axis throughout, so that picking a target's terms copies whole rows. With :math:`h_j` the embedding
of cell j and :math:`w_m` the head of term m (zero at the start):

.. math::

    b_{jm} = a_{m,c(j)} + w_m \cdot h_j \quad \text{(additive)}, \qquad
    b_{jm} = a_{m,c(j)} \, g(w_m \cdot h_j), \; g(x) = 1 + \mathrm{elu}(x) \quad \text{(multiplicative)}

The gate is 1 at the start, never negative, and linear above 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spacetravlr.nn._config import Mode


class CoefficientHeads(nn.Module):
    """Heads of a block of targets.

    Parameters
    ----------
    anchors
        Seed coefficients, intercept first, shape (n_targets, n_cell_types, max_terms + 1).
    n_features
        Length of the embedding.
    mode
        How heads act on the anchors.
    """

    anchors: Tensor
    scale: Tensor

    def __init__(self, anchors: Tensor, *, n_features: int, mode: Mode) -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("anchors", anchors)
        # A gate moves a coefficient in proportion to its anchor.
        in_coefficients = anchors.square().mean(1).sqrt() if mode == "multiplicative" else anchors.new_ones(())
        self.register_buffer("scale", in_coefficients)
        self.weight = nn.Parameter(anchors.new_zeros(anchors.shape[0], anchors.shape[2], n_features))

    def keep_targets(self, rows: Tensor) -> None:
        """Drop the anchors of targets that are not at ``rows``; the weights are those of the optimizer."""
        self.anchors = self.anchors[rows]
        self.scale = self.scale[rows] if self.scale.ndim else self.scale

    def anchor_of(self, cell_type: Tensor) -> Tensor:
        """Seed coefficients of cells, shape (n_targets, max_terms + 1, batch)."""
        return self.anchors.transpose(1, 2)[:, :, cell_type]

    def departure(self, embedding: Tensor) -> Tensor:
        """``delta`` (additive) or ``gate - 1`` (multiplicative), shape (n_targets, max_terms + 1, batch)."""
        linear = torch.matmul(self.weight, embedding)
        return linear if self.mode == "additive" else functional.elu(linear)

    def coefficients(self, embedding: Tensor, cell_type: Tensor) -> Tensor:
        """Coefficients of cells, shape (n_targets, max_terms + 1, batch)."""
        anchor, departure = self.anchor_of(cell_type), self.departure(embedding)
        return anchor + (departure if self.mode == "additive" else anchor * departure)

    def predicted_change(self, embedding: Tensor, values: Tensor, cell_type: Tensor) -> Tensor:
        """Prediction minus the seed's prediction, shape (n_targets, batch).

        Parameters
        ----------
        embedding
            Shape (1 or n_targets, n_features, batch).
        values
            Regressors with the intercept's ones first, shape (n_targets, max_terms + 1, batch).
        cell_type
            Shape (batch,).
        """
        if self.mode == "additive":
            # (z . W) . h: the coefficients themselves, terms x cells x targets, are never formed.
            return (torch.matmul(self.weight.transpose(1, 2), values) * embedding).sum(1)
        return (values * self.anchor_of(cell_type) * self.departure(embedding)).sum(1)

    def mean_square_departure(self, embedding: Tensor) -> Tensor:
        """Mean over cells of ``delta^2`` or ``(gate - 1)^2``, shape (n_targets, max_terms + 1)."""
        if self.mode == "multiplicative":
            return self.departure(embedding).square().mean(-1)
        # w' E[h h'] w: features squared instead of cells.
        moment = torch.matmul(embedding, embedding.transpose(1, 2)) / embedding.shape[-1]
        # The gradient in w has two equal halves. One is computed and counts twice; the moment must not notice.
        moment = (moment + moment.detach()) / 2
        square = (torch.matmul(self.weight.detach(), moment) * self.weight).sum(-1)
        return (2 * square - square.detach()).clamp_min(0.0)
