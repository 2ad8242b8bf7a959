"""One transposed round of a propagation: from derivatives of a read-out after the round to derivatives before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.response.edges import EdgeMaker, fill_levels, fill_products, longest
from spacetravlr._core.response.pull_back_cells import pull_back_cells

if TYPE_CHECKING:
    from spacetravlr._core.design import Signals, Targets, Terms
    from spacetravlr._core.response.round import Baseline, CoefficientReader, Derivative, Field
    from spacetravlr._types import Bools, Floats, Ints

#: Genes that are pinned in one pass: a number that compiled code knows.
PINNED = 8
_CELLS_PER_TASK = 64
# Columns (signals x lanes) that are sent back together: few enough to stay near the processor.
_COLUMNS_AT_ONCE = 512


class Linearised(NamedTuple):
    """The rounds to pass back through."""

    tissue: Baseline
    terms: Terms
    targets: Targets
    coefficients: CoefficientReader
    transposed: Field
    """The field of the tissue, from what is received to what is sent."""
    n_propagation: int
    derivative: Derivative


class _Source(NamedTuple):
    """Derivatives at the end of a round, one lane for each gene that is pinned."""

    values: Floats
    """Cells x rows x lanes; one lane serves any number."""
    row: Ints
    """Row of each target."""
    gene: Ints
    """Gene of each target."""


class Pins(NamedTuple):
    gene: Ints
    """Pinned gene of each lane, -1 for none."""
    cells: Bools


def round_back(
    rounds: Linearised,
    role: Ints,
    made: EdgeMaker,
    source: Floats,
    wanted: Ints,
    row: Ints,
    pins: Pins,
    closed: bool,
) -> Floats:
    tissue, targets = rounds.tissue, rounds.targets
    n, n_signals, lanes = len(source), len(tissue.signals), 2 * len(pins.gene)
    out = np.zeros((n, len(role) + n_signals, lanes), dtype=source.dtype)
    # a target without any weight need not be read
    some = np.asarray(_any_nonzero(source).any(axis=0))[row]
    wanted, row = wanted[some], row[some]
    edges, group = made(wanted), None
    row_of = dict(zip(wanted.tolist(), row.tolist(), strict=True))
    for chunk in rounds.coefficients(wanted, np.unique(edges.column)) if len(wanted) else ():
        if chunk.targets is not group:  # chunks of other cells follow
            group, edges = chunk.targets, made(chunk.targets)
            rows = np.array([row_of[t] for t in group.tolist()], dtype=np.int64)
        cells = chunk.cells
        given = (
            np.ascontiguousarray(chunk.values),
            edges.of_chunk(chunk.first_column),
            longest(edges),
            np.ascontiguousarray(tissue.expression[cells][:, role]),
            tissue.received[cells],
            tissue.expression[cells],
            tissue.maximum,
            _Source(source[cells], rows, targets.gene[group].astype(np.int64)),
            closed,
        )
        # groups of targets may follow each other at the same cells
        part = out[cells] if chunk.targets is wanted else np.zeros_like(out[cells])
        if len(pins.gene) == 1:
            pull_back_cells(*given, part)
        else:
            _pull_back(*given, Pins(pins.gene, pins.cells[cells]), part)
        if chunk.targets is not wanted:
            out[cells] += part
    _send_back(out, role, tissue.signals, rounds.transposed)
    return out[:, : len(role)]


def _send_back(out: Floats, role: Ints, signals: Signals, transposed: Field) -> None:
    """Add to each ligand what its received signals gain, in the cells that send them."""
    n, _, lanes = out.shape
    some = np.asarray(_any_nonzero(out[:, len(role) :]).any(axis=0))
    row = np.searchsorted(role, signals.ligand)
    at_once = max(1, _COLUMNS_AT_ONCE // lanes)
    for contact in (False, True):  # one range at a time: the field then has nothing to sort
        of_range = np.flatnonzero(some & (signals.contact == contact))
        for start in range(0, len(of_range), at_once):
            signal = of_range[start : start + at_once]
            received = np.ascontiguousarray(out[:, len(role) + signal]).reshape(n, -1)
            sent = transposed.apply(received, np.full(received.shape[1], contact))
            _add_rows(sent.reshape(n, len(signal), lanes), row[signal], out)


@parallel_kernel
def _add_rows(values, rows, out):
    """Add rows of every cell to ``rows`` of it, which may repeat."""
    for j in nb.prange(values.shape[0]):
        for r in range(rows.shape[0]):
            for p in range(values.shape[2]):
                out[j, rows[r], p] += values[j, r, p]


@parallel_kernel
def _any_nonzero(values):
    n_tasks = (values.shape[0] + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    found = np.zeros((n_tasks, values.shape[1]), dtype=np.bool_)
    for task in nb.prange(n_tasks):
        for j in range(task * _CELLS_PER_TASK, min(values.shape[0], (task + 1) * _CELLS_PER_TASK)):
            for r in range(values.shape[1]):
                if not found[task, r]:
                    for p in range(values.shape[2]):
                        found[task, r] |= values[j, r, p] != 0
    return found


@kernel(inline="always")
def _pass_on(c, passed, bound, gained, key):
    """Add what one edge passes on: mean of both directions, and what a rise has more of it."""
    lanes = np.uint64(PINNED)
    to = np.uint64(key) * np.uint64(2) * lanes
    for p in range(lanes):
        gained[to + p] += c * passed[p]
    if bound != 0:
        size = abs(c) * bound
        for p in range(lanes):
            gained[to + lanes + p] += size * passed[p]


@kernel(inline="always")
def _pass_edges_on(products, edges, first, several, stop, passed, bound, gained):
    """Add what all edges of a target pass on; those of one coefficient first."""
    one, first, several = np.uint64(1), np.uint64(first), np.uint64(several)
    for k in range(first, several):
        _pass_on(products[k - first], passed, bound, gained, edges.key[k])
    e = several - first
    for k in range(several, np.uint64(stop)):
        c = products[e]
        e += one
        for _ in range(edges.entry_indptr[k + one] - edges.entry_indptr[k] - 1):
            c += products[e]
            e += one
        _pass_on(c, passed, bound, gained, edges.key[k])


@parallel_kernel
def _pull_back(betas, edges, n_most, roles, received, expression, maximum, source, closed, pins, out):
    """Add to every role gene and signal of a cell (``out``) what the targets of the cell gain from it."""
    n, n_signals = received.shape
    n_lanes, n_given = pins.gene.shape[0], source.values.shape[2]
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    for task in nb.prange(n_tasks):
        levels, products = np.empty(1 + n_signals + roles.shape[1], roles.dtype), np.empty(n_most, betas.dtype)
        passed = np.empty(n_lanes, out.dtype)
        for j in range(task * _CELLS_PER_TASK, min(n, (task + 1) * _CELLS_PER_TASK)):
            fill_levels(j, roles, received, levels)
            gained = out[j].reshape(-1)
            for t in range(source.gene.shape[0]):
                gene, row = source.gene[t], source.row[t]
                can_rise, can_fall = expression[j, gene] < maximum[gene], expression[j, gene] > 0
                # half of it passes at a bound, if the sign is not known; a rise and a fall differ by as much
                share = out.dtype.type((can_rise + can_fall) / 2)
                bound = out.dtype.type(can_rise) - out.dtype.type(can_fall)
                some = False
                for p in range(n_lanes):
                    free = pins.gene[p] != gene or not pins.cells[j]
                    passed[p] = share * source.values[j, row, min(p, n_given - 1)] if free else 0
                    some |= passed[p] != 0
                if some:
                    first, several, stop = edges.indptr[t], edges.several[t], edges.indptr[t + 1]
                    fill_products(betas[j], edges, first, stop, levels, n_signals, closed, products)
                    _pass_edges_on(products, edges, first, several, stop, passed, bound, gained)
