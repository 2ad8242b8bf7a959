r"""Derivative of a read-out with respect to every gene in every cell, by one backward pass through the rounds.

Let :math:`F` be one round of :mod:`spacetravlr._core.response.propagation`, linearised at the baseline, and
:math:`w_{jg}` the weight of gene :math:`g` of cell :math:`j` in the read-out. A perturbed gene holds its change at the
start, after every round, and at the end, so with :math:`\lambda_T = w` and :math:`\lambda_{t-1} = F^\top \lambda_t`

.. math::

    \frac{dR}{dD^{in}_{jg}} = \sum_{t=0}^{T} \lambda_{t,jg} .

*Bounds.* A gene at zero can only rise and a gene at its largest value can only fall, so the derivative of a clipped
change depends on its direction. For the first step of a dose the direction is known: the sign of the edge from the
perturbed gene determines which way a target goes, and at a bound the whole change passes or none of it. Changes that
reach a bound by longer paths join other changes there, usually larger ones, whose sign is not known. They count half,
the mean of both directions. The pass therefore carries :math:`\lambda`, halved at bounds, to the previous round, and
in addition, for doses, the direction-dependent first step. The derivative is exact where no gene is at a bound, and at
bounds that only a single first step reaches.

*Pinned genes.* While :math:`g` is perturbed, it does not respond to its own downstream effects. The pass above includes
paths that return to :math:`g`. :func:`pinned_gradient` leaves them out, with a separate pass for each gene (several
genes share one reading of the coefficients). :func:`self_return` estimates for which genes this matters.

*Receptors.* With the product rule, a receptor that a cell does not express passes nothing on in the first round, and
later only what it gained in the previous round. Here it is closed in the first round only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel
from spacetravlr._core.response.edges import EdgeMaker, mean_gains
from spacetravlr._core.response.pull_back import PINNED, Linearised, Pins, round_back
from spacetravlr._core.response.start import roles

if TYPE_CHECKING:
    from spacetravlr._core.response.round import Baseline
    from spacetravlr._types import Bools, Floats, Ints


class Weights(NamedTuple):
    """A read-out that is linear, or the linear part of one."""

    genes: Ints
    """Gene of each column, ascending."""
    values: Floats
    """Cells x genes: what the read-out gains per unit of the gene in the cell."""


class Gradient(NamedTuple):
    """Derivative of a read-out with respect to a gene in a cell."""

    genes: Ints
    """Gene of each column, ascending."""
    increase: Floats
    """Per unit up, cells x genes."""
    decrease: Floats
    """Per unit up as well, while the gene goes down; cells x genes."""


def gradient(rounds: Linearised, weights: Weights) -> Gradient:
    """Derivatives for all role genes and cells by one pass; paths that come back to a perturbed gene are included."""
    tissue, role = rounds.tissue, roles(rounds.terms, rounds.tissue.signals)
    n = len(tissue.expression)
    total = np.zeros((n, len(role), 2), dtype=tissue.expression.dtype)
    shared, at, there = np.intersect1d(role, weights.genes, return_indices=True)
    total[:, at] = weights.values[:, there, None] if len(shared) else 0
    pins = Pins(np.array([-1]), np.zeros(n, dtype=bool))
    for start, own in _backward(rounds, weights, role, pins):
        _add(own, _bounds(tissue, role) if not start else np.ones((n, len(role), 2), dtype=bool), total)
    return Gradient(role, total[..., 0].copy(), total[..., 1].copy())


def pinned_gradient(rounds: Linearised, weights: Weights, genes: Ints, cells: Bools) -> Gradient:
    """Derivatives for ``genes``, each perturbed alone in ``cells`` and held fixed there.

    Parameters
    ----------
    rounds
        What to pass back through.
    weights
        The read-out.
    genes
        Role genes, at most :data:`~spacetravlr._core.response.pull_back.PINNED`; a pass costs the same for fewer.
    cells
        Where they are perturbed, shape (n_cells,).
    """
    tissue, role = rounds.tissue, roles(rounds.terms, rounds.tissue.signals)
    n, lane = len(tissue.expression), np.arange(len(genes))
    row, pinned = np.searchsorted(role, genes), np.full(PINNED, -1)
    pinned[lane] = genes
    total = np.zeros((n, len(genes), 2), dtype=tissue.expression.dtype)
    place = np.searchsorted(weights.genes, genes)
    for p, (k, gene) in enumerate(zip(place, genes, strict=True)):
        if k < len(weights.genes) and weights.genes[k] == gene:
            total[:, p] = weights.values[:, [k]]
    bounds = _bounds(tissue, np.asarray(genes))
    for start, own in _backward(rounds, weights, role, Pins(pinned, cells)):
        mean, apart = own[:, row, lane], own[:, row, PINNED + lane]
        found = np.stack([mean + apart, mean - apart], axis=2)
        total += found if start else found * bounds
    return Gradient(np.asarray(genes), total[..., 0].copy(), total[..., 1].copy())


def self_return(rounds: Linearised) -> Floats:
    """Upper estimate of the feedback to each role gene within the rounds, per unit of it; zero without feedback loops.

    From the mean sizes of the coefficients over cells. Shape (n_roles,), in the order of the role genes.
    """
    role = roles(rounds.terms, rounds.tissue.signals)
    gains = mean_gains(rounds.tissue, rounds.terms, rounds.targets, rounds.coefficients, role)
    total, power = np.zeros(len(role)), np.eye(len(role))
    for _ in range(rounds.n_propagation):
        power = gains @ power
        total += np.diag(power)
        np.fill_diagonal(power, 0)  # what has come back is counted once
    return total


def _backward(rounds: Linearised, weights: Weights, role: Ints, pins: Pins) -> Iterator[tuple[bool, Floats]]:
    """Whether a round is the first, and the derivatives at its start, from the last to the first.

    Cells x role genes x lanes: means of both directions, then what a rise has more of it (and a fall less).
    """
    targets = rounds.targets
    place = np.searchsorted(weights.genes, targets.gene)
    place[place == len(weights.genes)] = 0
    read = np.flatnonzero(weights.genes[place] == targets.gene) if len(weights.genes) else np.empty(0, dtype=np.int64)
    relaying = np.flatnonzero(np.isin(targets.gene, role))
    values = np.ascontiguousarray(weights.values, dtype=rounds.tissue.expression.dtype)
    own, wanted, row = values[:, :, None], read, place[read]
    made = EdgeMaker(rounds.terms, targets, role, len(rounds.tissue.signals))
    for t in range(rounds.n_propagation - 1, -1, -1):
        closed = t == 0 and rounds.derivative == "product_rule"
        own = round_back(rounds, role, made, own, wanted, row, pins, closed)
        yield t == 0, own
        own = np.ascontiguousarray(own[:, :, : len(pins.gene)])
        wanted, row = relaying, np.searchsorted(role, targets.gene[relaying])


def _bounds(tissue: Baseline, genes: Ints) -> Bools:
    """Whether each gene can go up, and whether it can go down; cells x genes x 2."""
    values = tissue.expression[:, genes]
    return np.stack([values < tissue.maximum[genes], values > 0], axis=2)


@parallel_kernel
def _add(own, passes, total):
    for j in nb.prange(own.shape[0]):
        for r in range(own.shape[1]):
            if passes[j, r, 0]:
                total[j, r, 0] += own[j, r, 0] + own[j, r, 1]
            if passes[j, r, 1]:
                total[j, r, 1] += own[j, r, 0] - own[j, r, 1]
