"""The terms of the loss. Each has one value per target, so targets never share a scale."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-4  # rounds the kink at zero: around a sharp one Adam would jump to and fro


def squared_error(residual: Tensor, change: Tensor) -> Tensor:
    r"""Mean squared error of each target, :math:`\frac{1}{|B|} \sum_j (y_j - \hat y_j)^2`.

    Parameters
    ----------
    residual
        Response minus the seed's prediction, shape (n_targets, batch).
    change
        Prediction minus the seed's prediction, shape (n_targets, batch).
    """
    return (residual - change).square().mean(-1)


def shrinkage(weight: Tensor, scale: Tensor) -> Tensor:
    r"""Shrinkage towards the anchor, :math:`\sum_m s_m \|w_m\|` for each target.

    The norm of a head is a norm of the departure as a function. Rough fields cost more than smooth ones because their
    features are smaller. The penalty is the norm, not its square: departures of terms without signal shrink to zero
    while strong ones are hardly affected, so each term finds its own amount of variation.

    Parameters
    ----------
    weight
        Heads, shape (n_targets, max_terms + 1, n_features).
    scale
        Change of a coefficient per unit of its head, shape (n_targets, max_terms + 1) or ().
    """
    return (scale * _norm(weight.square().sum(-1))).sum(-1)


def group_penalty(mean_square: Tensor, membership: Tensor) -> Tensor:
    r"""Group penalty :math:`\sum_g \sqrt{|g|}\, \|\delta_g\|` on coefficients that the seed removed, for each target.

    Parameters
    ----------
    mean_square
        Mean squared departure of each coefficient, shape (n_targets, max_terms + 1).
    membership
        Share of the cells in which the seed removed the term, by group, shape (n_groups, n_targets, max_terms + 1);
        zero outside the group. A group's size is the sum of its shares.
    """
    size = membership.sum(-1)
    return (size.sqrt() * _norm((membership * mean_square).sum(-1))).sum(0)


def removed_membership(anchors: Tensor, group: Tensor, share_of_type: Tensor) -> Tensor:
    """Share of the cells in which each term was removed by the seed, split by group.

    Parameters
    ----------
    anchors
        Seed coefficients, shape (n_targets, n_cell_types, max_terms + 1).
    group
        Group code of each term, -1 for padding, shape (n_targets, max_terms).
    share_of_type
        Share of each type among the training cells, shape (n_cell_types,).

    Returns
    -------
    Shape (n_groups, n_targets, max_terms + 1); the intercept belongs to no group.
    """
    removed = torch.einsum("tcm,c->tm", (anchors == 0).to(anchors.dtype), share_of_type)
    codes = torch.nn.functional.pad(group, (1, 0), value=-1)
    n_groups = int(codes.max()) + 1 if codes.numel() else 0
    return torch.stack([removed * (codes == g) for g in range(max(n_groups, 1))])


def _norm(square: Tensor) -> Tensor:
    return (square + _TINY).sqrt() - _TINY**0.5
