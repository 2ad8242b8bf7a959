r"""The terms of targets as edges: how much a target changes per unit of a gene of its own cell, and per unit received.

To first order in the dose a target's change is

.. math::

    \Delta h_j = \sum_r c_{jhr}\, \Delta x_{jr} + \sum_s e_{jhs}\, \Delta L_{js}, \qquad
    c_{jhr} = \sum_{m:\, g(m) = r} b_{jm} L_{j,s(m)}, \quad e_{jhs} = \sum_{m:\, s(m) = s} b_{jm} x_{j,g(m)}

with :math:`L = 1` for terms without a signal, all at the baseline. All terms of a target that share a gene (or a
signal) make one edge, so that its sign is known: at a bound of the expression only changes of one sign pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.design import Kind
from spacetravlr._core.kernels import kernel, parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._core.design import Targets, Terms
    from spacetravlr._core.response.round import Baseline, CoefficientReader
    from spacetravlr._types import Bools, Floats, Ints

_CELLS_PER_TASK = 64
# Parts that the cells are summed in; sums do not depend on the number of threads.
_MOST_PARTS = 16


class Edges(NamedTuple):
    """Edges of a group of targets, in compressed rows; an edge ends at a role gene or a signal."""

    indptr: Ints
    """Edges of each target, shape (n_targets + 1,)."""
    several: Ints
    """First edge of each target that has more than one coefficient; they come last."""
    key: Ints
    """Row of the role gene, or the number of role genes plus the signal; shape (n_edges,)."""
    entry_indptr: Ints
    """Coefficients of each edge, shape (n_edges + 1,)."""
    column: Ints
    """Column of each coefficient in the whole coefficient matrix."""
    level: Ints
    """What multiplies it: 0 for one, then the signals, then the role genes."""
    receptor: Bools
    """Whether it leads from a receptor through its pair."""

    def of_chunk(self, first_column: int) -> Edges:
        """The same for coefficients that start with a later column; in the types that compiled code reads fast."""
        small = [a.astype(np.uint32) for a in (self.key, self.column - first_column, self.level)]
        return Edges(self.indptr, self.several, small[0], self.entry_indptr, small[1], small[2], self.receptor)


class EdgeMaker:
    """Makes edges, and keeps those of the last group of targets: one round after the other asks for the same.

    Parameters
    ----------
    terms
        Distinct regressors.
    targets
        Which terms each modelled gene uses.
    role
        Genes with a role, ascending.
    n_signals
        Number of received signals.
    """

    def __init__(self, terms: Terms, targets: Targets, role: Ints, n_signals: int) -> None:
        self._of = (terms, targets, role, n_signals)
        self._last: tuple[Ints, Edges] | None = None

    def __call__(self, wanted: Ints) -> Edges:
        """Edges of the ``wanted`` targets."""
        if self._last is None or not np.array_equal(self._last[0], wanted):
            terms, targets, role, n_signals = self._of
            self._last = (np.array(wanted), make_edges(terms, targets, wanted, role, n_signals))
        return self._last[1]


def make_edges(terms: Terms, targets: Targets, wanted: Ints, role: Ints, n_signals: int) -> Edges:
    """Edges of the ``wanted`` targets; terms of adjustment have none.

    Parameters
    ----------
    terms
        Distinct regressors.
    targets
        Which terms each modelled gene uses.
    wanted
        Indices into the targets.
    role
        Genes with a role, ascending.
    n_signals
        Number of received signals.
    """
    length = targets.indptr[wanted + 1] - targets.indptr[wanted]
    target = np.repeat(np.arange(len(wanted)), length)
    first = np.repeat(targets.indptr[wanted] - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
    entry = first + np.arange(len(target))
    keep = terms.causal[targets.term[entry]]
    target, entry = target[keep], entry[keep]
    term = targets.term[entry]
    column = entry + wanted[target] + 1  # a target's intercept stands before its terms
    signal, row = terms.signal[term].astype(np.int64), np.searchsorted(role, terms.gene[term])
    paired = signal >= 0
    is_lr = np.asarray(terms.kind)[term] == Kind.LR
    local = (target, row, column, signal + 1, is_lr)
    received = (
        target[paired],
        len(role) + signal[paired],
        column[paired],
        1 + n_signals + row[paired],
        np.zeros(int(paired.sum()), dtype=bool),
    )
    target, key, column, level, receptor = (np.concatenate(parts) for parts in zip(local, received, strict=True))
    ends = target * (len(role) + n_signals) + key
    edge, size = np.unique(ends, return_inverse=True, return_counts=True)[1:]
    order = np.lexsort((column, key, size[edge], target))
    target, key, edge = target[order], key[order], edge[order]
    starts = np.flatnonzero(np.diff(edge, prepend=-1))
    indptr = np.searchsorted(target[starts], np.arange(len(wanted) + 1)).astype(np.int64)
    single = np.bincount(target[starts][np.diff(starts, append=len(key)) == 1], minlength=len(wanted))
    return Edges(
        indptr,
        indptr[:-1] + single,
        key[starts].astype(np.int64),
        np.append(starts, len(key)).astype(np.int64),
        column[order].astype(np.int64),
        level[order].astype(np.int64),
        receptor[order],
    )


@kernel(inline="always")
def fill_levels(j, roles, received, levels):
    """Write what the coefficients of cell ``j`` are multiplied with: one, its signals, its role genes."""
    n_signals = received.shape[1]
    levels[0] = 1
    for s in range(n_signals):
        levels[1 + s] = received[j, s]
    for r in range(roles.shape[1]):
        levels[1 + n_signals + r] = roles[j, r]


@kernel(inline="always")
def fill_products(betas, edges, first, stop, levels, n_signals, closed, products):
    """Multiply the coefficients of the edges of a target; ``closed`` receptors that are not there pass nothing on."""
    start, end = edges.entry_indptr[first], edges.entry_indptr[stop]
    for e in range(start, end):
        products[np.uint64(e - start)] = betas[edges.column[e]] * levels[edges.level[e]]
    if closed:
        for k in range(first, stop):
            for e in range(edges.entry_indptr[k], edges.entry_indptr[k + 1]):
                if edges.receptor[e] and levels[1 + n_signals + edges.key[k]] <= 0:
                    products[e - start] = 0


def mean_gains(tissue: Baseline, terms: Terms, targets: Targets, coefficients: CoefficientReader, role: Ints) -> Floats:
    """Mean size of the change of each relaying target per unit of each role gene in all cells.

    An upper estimate: sizes are added up over the roles of a gene.

    Returns
    -------
    Role genes (as targets) x role genes (as regulators).
    """
    n, n_signals = len(tissue.expression), len(tissue.signals)
    relaying = np.flatnonzero(np.isin(targets.gene, role))
    gains = np.zeros((len(role), len(role)))
    if not len(relaying):
        return gains
    weight = np.zeros((n, n_signals), dtype=np.float32)
    if n_signals:
        weight = np.asarray(tissue.field.apply(np.ones((n, n_signals), np.float32), tissue.signals.contact))
    ligand = np.searchsorted(role, tissue.signals.ligand)
    ends = np.concatenate([np.arange(len(role)), ligand])
    made, group = EdgeMaker(terms, targets, role, n_signals), None
    for chunk in coefficients(relaying, np.unique(made(relaying).column)):
        if chunk.targets is not group:
            group, edges = chunk.targets, made(chunk.targets)
        cells = chunk.cells
        sums = _sum_slopes(
            np.ascontiguousarray(chunk.values), edges.of_chunk(chunk.first_column), longest(edges), len(role),
            np.ascontiguousarray(tissue.expression[cells][:, role]), tissue.received[cells], weight[cells],
        )  # fmt: skip
        row = np.repeat(np.searchsorted(role, targets.gene[group]), np.diff(edges.indptr))
        np.add.at(gains, (row, ends[edges.key]), sums)
    return gains / n


def longest(edges: Edges) -> int:
    """Largest number of coefficients of a target."""
    return int(np.diff(edges.entry_indptr[edges.indptr]).max(initial=0))


@parallel_kernel
def _sum_slopes(betas, edges, n_most, n_roles, roles, received, weight):
    """Sum over cells of the size of every edge; signals count by the weights a cell receives in total."""
    n, n_signals = received.shape
    n_edges = edges.key.shape[0]
    n_tasks = min(_MOST_PARTS, (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK)
    partial = np.zeros((n_tasks, n_edges))
    for task in nb.prange(n_tasks):
        levels, products = np.empty(1 + n_signals + n_roles, roles.dtype), np.empty(n_most, betas.dtype)
        for j in range(task, n, n_tasks):
            fill_levels(j, roles, received, levels)
            for t in range(edges.indptr.shape[0] - 1):
                first, stop = edges.indptr[t], edges.indptr[t + 1]
                fill_products(betas[j], edges, first, stop, levels, n_signals, False, products)
                start = edges.entry_indptr[first]
                for k in range(first, stop):
                    total = 0.0
                    for e in range(edges.entry_indptr[k] - start, edges.entry_indptr[k + 1] - start):
                        total += products[e]
                    key = edges.key[k]
                    partial[task, k] += abs(total) if key < n_roles else abs(total) * weight[j, key - n_roles]
    return partial.sum(axis=0)
