"""One round of a propagation: the change of every target from the change of what its cell expresses and receives.

The change of every distinct term is written once a cell; every target is then a short dot product of its coefficients
with them. Coefficients are read a chunk at a time, once for a whole batch of perturbations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numba as nb
import numpy as np

from spacetravlr._core.design import Kind
from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.linalg.sparse_dot import CELLS, LANES, aligned_zeros, bounded_dots

if TYPE_CHECKING:
    from spacetravlr._core.design import Signals, Targets, Terms
    from spacetravlr._types import Bools, Floats, Ints

Derivative = Literal["product_rule", "exact"]

_CELLS_PER_TASK = 64


class Field(Protocol):
    """What turns expression into received signals; linear in its values."""

    def apply(self, values: Any, contact_mask: Any, /) -> Any:
        """Cells x columns of ligand expression to cells x columns of received signal."""


class CoefficientChunk(NamedTuple):
    """Coefficients of some targets at some cells."""

    cells: slice
    targets: Ints
    """Indices into the targets, those asked for that this chunk holds."""
    first_column: int
    """Column of the whole coefficient matrix that ``values`` starts with."""
    values: Floats
    """Cells x columns."""


class CoefficientReader(Protocol):
    """Yields chunks that cover every cell of the asked-for targets once; each holds until the next is asked for."""

    def __call__(self, targets: Ints, needed: Ints | None = None, /) -> Iterable[CoefficientChunk]:
        """Read ``targets``; only the columns ``needed`` (all by default) have to hold their values."""


@dataclass(frozen=True)
class Baseline:
    """The baseline that perturbations start from."""

    expression: Floats
    """Cells x genes."""
    received: Floats
    """Cells x signals."""
    maximum: Floats
    """Largest expression of each gene over cells, shape (n_genes,)."""
    field: Field
    signals: Signals


class State(NamedTuple):
    """Changes against the baseline."""

    own: Floats
    """Cells x role genes x perturbations."""
    received: Floats
    """Cells x signals x perturbations."""
    moved: Bools
    """Role genes that changed in any cell and perturbation; the changes of all others are zero."""


class Rows(NamedTuple):
    """Which genes the rows of the arrays of a propagation stand for; all ascending gene indices."""

    roles: Ints
    """Genes of :attr:`State.own`."""
    out: Ints
    """Genes of what is written."""


def update_targets(
    tissue: Baseline,
    terms: Terms,
    targets: Targets,
    wanted: Ints,
    rows: Rows,
    coefficients: CoefficientReader,
    before: State,
    now: State,
    derivative: Derivative,
    out: Floats,
) -> None:
    """Fill ``out`` (cells x ``rows.out`` x perturbations) with the clipped change of the ``wanted`` targets."""
    gene_row = np.searchsorted(rows.roles, terms.gene)
    active = active_terms(terms, tissue.signals, rows.roles, now.moved)
    entries = _entries(targets, wanted, active)
    reached, group = wanted[entries.targets], None
    set_zero(out, np.searchsorted(rows.out, np.setdiff1d(targets.gene[wanted], targets.gene[reached])))
    if not len(reached):
        return
    for chunk in coefficients(reached, entries.column):
        if chunk.targets is not group:  # chunks of other cells follow
            group, entries = chunk.targets, _entries(targets, chunk.targets, active)
            used, slot = np.unique(targets.term[entries.entry], return_inverse=True)
            gene = targets.gene[group]
        cells = chunk.cells
        _accumulate(
            np.ascontiguousarray(chunk.values),
            _Products((entries.column - chunk.first_column).astype(np.uint32), slot.astype(np.uint32), entries.indptr),
            _UsedTerms(
                terms.gene[used].astype(np.int64),
                gene_row[used].astype(np.int64),
                terms.signal[used].astype(np.int64),
                np.asarray(terms.kind)[used] == Kind.LR,
            ),
            _Levels(tissue.expression[cells], tissue.received[cells]),
            _Changes(before.own[cells], before.received[cells]),
            _Changes(now.own[cells], now.received[cells]),
            derivative == "exact",
            _Written(gene.astype(np.int64), tissue.maximum, np.searchsorted(rows.out, gene).astype(np.int64)),
            out[cells],
        )


def active_terms(terms: Terms, signals: Signals, role: Ints, moved: Bools) -> Bools:
    """Which terms can change when these of the ``role`` genes do: through their gene, or through their signal."""
    active = terms.causal  # the others have no row where their gene plays no other role
    emitted = np.append(np.isin(signals.ligand, role[moved]), False)  # the last one answers for signal -1
    active[active] = moved[np.searchsorted(role, terms.gene[active])] | emitted[terms.signal[active]]
    return active


def changed(values: Floats, rows: Ints) -> Bools:
    """Which of some ``rows`` of ``values`` (cells x rows x perturbations) are not zero throughout."""
    return np.asarray(_nonzero(values, rows).any(axis=0))


def set_zero(values: Floats, rows: Ints) -> None:
    """Set ``rows`` of ``values`` (cells x rows x perturbations) to zero."""
    if len(rows):
        _set_zero(values, rows)


@parallel_kernel
def _set_zero(values, rows):
    for j in nb.prange(values.shape[0]):
        for r in rows:
            for p in range(values.shape[2]):
                values[j, r, p] = 0


class _Changes(NamedTuple):
    """Changes at some cells, as in :class:`State`."""

    own: Floats
    received: Floats


class _Levels(NamedTuple):
    """Baseline of some cells."""

    expression: Floats
    received: Floats


class _Products(NamedTuple):
    """Coefficients and terms to multiply, in compressed rows of targets."""

    column: Ints
    """Column of each coefficient in the chunk."""
    slot: Ints
    """Which of the used terms it belongs to."""
    indptr: Ints


class _UsedTerms(NamedTuple):
    """Terms that a round evaluates."""

    gene: Ints
    """Column of the baseline expression."""
    row: Ints
    """Row of the changes of genes."""
    signal: Ints
    """Received signal, -1 for none."""
    is_lr: Bools


class _Written(NamedTuple):
    """Targets that a round writes."""

    gene: Ints
    maximum: Floats
    """Of every gene."""
    row: Ints
    """Row of the output of each target."""


class _Entries(NamedTuple):
    """The coefficients to multiply, in compressed rows of targets."""

    targets: Ints
    """Positions in the asked-for targets that have any."""
    indptr: Ints
    entry: Ints
    column: Ints


def _entries(targets: Targets, wanted: Ints, active: Bools) -> _Entries:
    length = targets.indptr[wanted + 1] - targets.indptr[wanted]
    position = np.repeat(np.arange(len(wanted)), length)
    start = np.repeat(targets.indptr[wanted] - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
    entry = start + np.arange(len(position))
    keep = active[targets.term[entry]]
    position, entry = position[keep], entry[keep]
    some, count = np.unique(position, return_counts=True)
    indptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    # a target's intercept stands before its terms, hence one column more for every target up to and with this one
    return _Entries(some, indptr, entry, (entry + wanted[position] + 1).astype(np.int64))


@parallel_kernel
def _nonzero(values, rows):
    n, n_rows, n_batch = values.shape[0], rows.shape[0], values.shape[2]
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    found = np.zeros((n_tasks, n_rows), dtype=np.bool_)
    for task in nb.prange(n_tasks):
        remaining, n_remaining = np.arange(n_rows), n_rows
        for j in range(task * _CELLS_PER_TASK, min(n, (task + 1) * _CELLS_PER_TASK)):
            kept = 0
            for r in remaining[:n_remaining]:
                for p in range(n_batch):
                    found[task, r] |= values[j, rows[r], p] != 0
                remaining[kept] = r
                kept += not found[task, r]
            n_remaining = kept
            if not n_remaining:
                break
    return found


@kernel(inline="always")
def _term_changes(j, terms, baseline, before, now, exact, term_change):
    """Change of every term at cell ``j``; returns whether there is any."""
    # unsigned places in flat arrays: numba does not look for negative ones then, and the loops become vector ones
    u = np.uint64
    batch, lanes = u(now.own.shape[2]), u(term_change.shape[1])
    own, own_before = now.own[j].reshape(-1), before.own[j].reshape(-1)
    signal, signal_before = now.received[j].reshape(-1), before.received[j].reshape(-1)
    change = term_change.reshape(-1)
    for m in range(terms.gene.shape[0]):
        to, r, s = u(m) * lanes, u(terms.row[m]) * batch, u(max(terms.signal[m], 0)) * batch
        if terms.signal[m] < 0:
            for p in range(batch):
                change[to + p] = own[r + p]
            continue
        x0, received0 = baseline.expression[j, terms.gene[m]], baseline.received[j, terms.signal[m]]
        if exact:
            for p in range(batch):
                change[to + p] = x0 * signal[s + p] + own[r + p] * (received0 + signal[s + p])
        elif not terms.is_lr[m] or x0 > 0:
            for p in range(batch):
                x, received = x0 + own_before[r + p], received0 + signal_before[s + p]
                change[to + p] = x * signal[s + p] + received * own[r + p]
        else:  # a receptor knocked out in an earlier round (x > 0) still has its loss to pass on, others have not
            for p in range(batch):
                x, received = x0 + own_before[r + p], received0 + signal_before[s + p]
                present = own[r + p] if x > 0 else own[r + p] * 0
                change[to + p] = x * signal[s + p] + received * present
    n_changed = 0
    for position in range(u(term_change.size)):
        n_changed += change[position] != 0
    return n_changed > 0


@parallel_kernel
def _accumulate(betas, products, terms, baseline, before, now, exact, written, out):
    """Write the bounded change of every target.

    What is written is an argument of its own: in a named tuple numba takes plain assignments to it for dead.
    """
    n, n_batch = baseline.expression.shape[0], now.own.shape[2]
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    n_lanes = 1 if n_batch == 1 else (n_batch + LANES - 1) // LANES * LANES
    n_targets = written.gene.shape[0]
    for task in nb.prange(n_tasks):
        term_change = aligned_zeros((CELLS, terms.gene.shape[0], n_lanes), baseline.expression.dtype)
        remainder = aligned_zeros((CELLS, 1, LANES), baseline.expression.dtype)
        stop = min(n, (task + 1) * _CELLS_PER_TASK)
        j = task * _CELLS_PER_TASK
        while j < stop:
            n_cells = CELLS if n_lanes <= LANES and j + CELLS <= stop else 1
            any_change = False
            for c in range(n_cells):
                any_change |= _term_changes(j + c, terms, baseline, before, now, exact, term_change[c])
            if any_change:
                for t in range(n_targets):
                    bounded_dots(
                        betas, j, n_cells, products.column, products.slot, products.indptr[t], products.indptr[t + 1],
                        term_change, baseline.expression, written.maximum, written.gene[t], out, written.row[t],
                        remainder,
                    )  # fmt: skip
            else:
                for c in range(n_cells):
                    for t in range(n_targets):
                        out[j + c, written.row[t]] = 0
            j += n_cells
