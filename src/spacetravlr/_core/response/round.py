"""One round of a propagation: the change of every target from the change of what its cell expresses and receives.

The change of every distinct term is written once a cell; every target is then a short dot product of its coefficients
with them (SPEC section 5). Coefficients are read a block at a time, once for a whole batch of perturbations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """Indices into the targets, those asked for that this block holds."""
    first_column: int
    """Column of the whole coefficient matrix that ``values`` starts with."""
    values: Floats
    """Cells x columns."""


#: Yields blocks that cover every cell of the asked-for targets once.
CoefficientReader = Callable[["Ints"], Iterable[CoefficientChunk]]


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


def update_targets(
    tissue: Baseline,
    terms: Terms,
    targets: Targets,
    role: Ints,
    wanted: Ints,
    rows: Ints,
    coefficients: CoefficientReader,
    before: State,
    now: State,
    derivative: Derivative,
    out: Floats,
) -> None:
    """Fill ``out`` (cells x ``rows`` x perturbations) with the clipped change of the ``wanted`` targets."""
    gene_changed = changed(now.own)
    signal_changed = np.append(changed(now.received), False)  # the last one answers for signal -1
    gene_row = np.searchsorted(role, terms.gene)
    active = gene_changed[gene_row] | signal_changed[terms.signal] if len(terms) else np.zeros(0, dtype=bool)
    set_zero(out, np.setdiff1d(np.arange(len(rows)), np.searchsorted(rows, targets.gene[wanted])))
    for block in coefficients(wanted):
        entries = _entries(targets, block.targets, active)
        silent = np.delete(block.targets, entries.targets)
        set_zero(out[block.cells], np.searchsorted(rows, targets.gene[silent]))
        if not len(entries.entry):
            continue
        used, slot = np.unique(targets.term[entries.entry], return_inverse=True)
        gene = targets.gene[block.targets[entries.targets]]
        cells = block.cells
        _accumulate(
            np.ascontiguousarray(block.values),
            (entries.column - block.first_column).astype(np.uint32),
            slot.astype(np.uint32),
            entries.indptr,
            terms.gene[used].astype(np.int64),
            gene_row[used].astype(np.int64),
            terms.signal[used].astype(np.int64),
            np.asarray(terms.kind)[used] == Kind.LR,
            tissue.expression[cells],
            tissue.received[cells],
            before.own[cells],
            before.received[cells],
            now.own[cells],
            now.received[cells],
            derivative == "exact",
            gene.astype(np.int64),
            tissue.maximum,
            np.searchsorted(rows, gene).astype(np.int64),
            out[cells],
        )


def changed(values: Floats) -> Bools:
    """Which rows of ``values`` (cells x rows x perturbations) are not zero throughout."""
    return np.asarray(_nonzero(values).any(axis=0))


def set_zero(values: Floats, rows: Ints) -> None:
    """Set ``rows`` of ``values`` (cells x rows x perturbations) to zero."""
    if len(rows):
        _set_zero(values, rows)


@parallel_kernel
def _set_zero(values, rows):  # type: ignore[no-untyped-def]
    for j in nb.prange(values.shape[0]):
        for r in rows:
            for p in range(values.shape[2]):
                values[j, r, p] = 0


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
def _nonzero(values):  # type: ignore[no-untyped-def]
    n, n_rows, n_batch = values.shape
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    found = np.zeros((n_tasks, n_rows), dtype=np.bool_)
    for task in nb.prange(n_tasks):
        left, n_left = np.arange(n_rows), n_rows
        for j in range(task * _CELLS_PER_TASK, min(n, (task + 1) * _CELLS_PER_TASK)):
            kept = 0
            for r in left[:n_left]:
                for p in range(n_batch):
                    found[task, r] |= values[j, r, p] != 0
                left[kept] = r
                kept += not found[task, r]
            n_left = kept
            if not n_left:
                break
    return found


@kernel(inline="always")
def _term_changes(j, gene, row, signal, is_lr, x0, l0, x_before, l_before, dx, dl, exact, dz):  # type: ignore[no-untyped-def]
    """Change of every term at cell ``j``; returns whether there is any."""
    # unsigned places in flat arrays: numba does not look for negative ones then, and the loops become vector ones
    u = np.uint64
    batch, lanes = u(dx.shape[2]), u(dz.shape[1])
    own, own_before = dx[j].reshape(-1), x_before[j].reshape(-1)
    heard_change, heard_before = dl[j].reshape(-1), l_before[j].reshape(-1)
    change = dz.reshape(-1)
    for m in range(gene.shape[0]):
        to, r, s = u(m) * lanes, u(row[m]) * batch, u(max(signal[m], 0)) * batch
        if signal[m] < 0:
            for p in range(batch):
                change[to + p] = own[r + p]
            continue
        x, heard = x0[j, gene[m]], l0[j, signal[m]]
        if exact:
            for p in range(batch):
                change[to + p] = x * heard_change[s + p] + own[r + p] * (heard + heard_change[s + p])
        elif not is_lr[m] or x > 0:
            for p in range(batch):
                x_then, heard_then = x + own_before[r + p], heard + heard_before[s + p]
                change[to + p] = x_then * heard_change[s + p] + heard_then * own[r + p]
        else:  # a receptor knocked out in an earlier round (x > 0) still has its loss to pass on, others have not
            for p in range(batch):
                x_then, heard_then = x + own_before[r + p], heard + heard_before[s + p]
                present = own[r + p] if x_then > 0 else own[r + p] * 0
                change[to + p] = x_then * heard_change[s + p] + heard_then * present
    n_changed = 0
    for place in range(u(dz.size)):
        n_changed += change[place] != 0
    return n_changed > 0


@parallel_kernel
def _accumulate(  # type: ignore[no-untyped-def]
    betas,
    column,
    slot,
    indptr,
    gene,
    row,
    signal,
    is_lr,
    x0,
    l0,
    x_before,
    l_before,
    dx,
    dl,
    exact,
    target,
    top,
    to,
    out,
):
    n, n_batch = x0.shape[0], dx.shape[2]
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    n_lanes = 1 if n_batch == 1 else (n_batch + LANES - 1) // LANES * LANES
    for task in nb.prange(n_tasks):
        dz = aligned_zeros((CELLS, gene.shape[0], n_lanes), x0.dtype)
        rest = aligned_zeros((CELLS, 1, LANES), x0.dtype)
        stop = min(n, (task + 1) * _CELLS_PER_TASK)
        j = task * _CELLS_PER_TASK
        while j < stop:
            together = CELLS if n_lanes <= LANES and j + CELLS <= stop else 1
            found = False
            for c in range(together):
                found |= _term_changes(
                    j + c, gene, row, signal, is_lr, x0, l0, x_before, l_before, dx, dl, exact, dz[c]
                )
            if found:
                for t in range(target.shape[0]):
                    first, last = indptr[t], indptr[t + 1]
                    bounded_dots(
                        betas, j, together, column, slot, first, last, dz, x0, top, target[t], out, to[t], rest
                    )
            else:
                for c in range(together):
                    for t in range(target.shape[0]):
                        out[j + c, to[t]] = 0
            j += together
