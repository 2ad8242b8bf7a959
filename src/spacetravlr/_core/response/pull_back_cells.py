"""One round backwards without pinned genes, for eight cells at a time.

The edges of a target are the same in every cell, so one look-up per edge serves eight cells, whose numbers are
contiguous and processed together in vector registers.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from spacetravlr._core.kernels import kernel, parallel_kernel

_LANES = 8
_BLOCKS_PER_TASK = 8


@kernel(inline="always")
def _levels_of(first, width, roles, received, levels):
    """Write what coefficients are multiplied with, eight cells side by side; the last one fills up the lanes."""
    n_signals = received.shape[1]
    for c in range(_LANES):
        j = first + min(c, width - 1)
        levels[c] = 1
        for s in range(n_signals):
            levels[(1 + s) * _LANES + c] = received[j, s]
        for r in range(roles.shape[1]):
            levels[(1 + n_signals + r) * _LANES + c] = roles[j, r]


@kernel(inline="always")
def _products_of(flat, rows, edges, first, stop, levels, n_signals, closed, products):
    """Multiply the coefficients of the edges of a target; ``closed`` receptors that are not there pass nothing on."""
    lanes = np.uint64(_LANES)
    start, end = np.uint64(edges.entry_indptr[first]), np.uint64(edges.entry_indptr[stop])
    for e in range(start, end):
        column, level, to = np.uint64(edges.column[e]), np.uint64(edges.level[e]) * lanes, (e - start) * lanes
        for c in range(lanes):
            products[to + c] = flat[rows[c] + column] * levels[level + c]
    if closed:
        for k in range(first, stop):
            gene = (1 + n_signals + edges.key[k]) * _LANES
            for e in range(edges.entry_indptr[k], edges.entry_indptr[k + 1]):
                if edges.receptor[e]:
                    for c in range(_LANES):
                        if levels[gene + c] <= 0:
                            products[(np.uint64(e) - start) * lanes + np.uint64(c)] = 0


@kernel(inline="always")
def _pass_on(products, at, key, passed, bound, at_bound, means, apart):
    """Add what one edge passes on in eight cells: mean of both directions, and what a rise has more of it."""
    lanes = np.uint64(_LANES)
    at, to = at * lanes, np.uint64(key) * lanes
    for c in range(lanes):
        means[to + c] += products[at + c] * passed[c]
    if at_bound:
        for c in range(lanes):
            apart[to + c] += abs(products[at + c]) * bound[c]


@parallel_kernel
def pull_back_cells(betas, edges, n_most, roles, received, expression, maximum, source, closed, out):
    """Write for every role gene and signal of a cell (``out``) what the targets of the cell gain from it."""
    n, n_signals, n_keys = received.shape[0], received.shape[1], out.shape[1]
    n_blocks = (n + _LANES - 1) // _LANES
    one, lanes = np.uint64(1), np.uint64(_LANES)
    for task in nb.prange((n_blocks + _BLOCKS_PER_TASK - 1) // _BLOCKS_PER_TASK):
        levels = np.empty((1 + n_signals + roles.shape[1]) * _LANES, roles.dtype)
        products = np.empty(n_most * _LANES, betas.dtype)
        means, apart = np.empty(n_keys * _LANES, out.dtype), np.empty(n_keys * _LANES, out.dtype)
        passed, bound, rows = np.empty(_LANES, out.dtype), np.empty(_LANES, out.dtype), np.empty(_LANES, np.uint64)
        flat = betas.reshape(-1)
        for block in range(task * _BLOCKS_PER_TASK, min(n_blocks, (task + 1) * _BLOCKS_PER_TASK)):
            j = block * _LANES
            width = min(_LANES, n - j)
            _levels_of(j, width, roles, received, levels)
            for c in range(_LANES):
                rows[c] = (j + min(c, width - 1)) * betas.shape[1]
            means[:] = 0
            apart[:] = 0
            for t in range(source.gene.shape[0]):
                gene, row = source.gene[t], source.row[t]
                some, at_bound = False, False
                for c in range(_LANES):
                    x = expression[j + min(c, width - 1), gene]
                    can_rise, can_fall = x < maximum[gene], x > 0
                    # half of it passes at a bound, if the sign is not known; a rise and a fall differ by as much
                    value = source.values[j + c, row, 0] if c < width else 0
                    passed[c] = value * out.dtype.type((can_rise + can_fall) / 2)
                    bound[c] = passed[c] * (out.dtype.type(can_rise) - out.dtype.type(can_fall))
                    some |= passed[c] != 0
                    at_bound |= bound[c] != 0
                if not some:
                    continue
                first, several, stop = edges.indptr[t], np.uint64(edges.several[t]), np.uint64(edges.indptr[t + 1])
                _products_of(flat, rows, edges, first, edges.indptr[t + 1], levels, n_signals, closed, products)
                e = np.uint64(0)
                for k in range(np.uint64(first), several):
                    _pass_on(products, e, edges.key[k], passed, bound, at_bound, means, apart)
                    e += one
                for k in range(several, stop):
                    at = e
                    e += one
                    for _ in range(edges.entry_indptr[k + one] - edges.entry_indptr[k] - 1):
                        for c in range(lanes):
                            products[at * lanes + c] += products[e * lanes + c]
                        e += one
                    _pass_on(products, at, edges.key[k], passed, bound, at_bound, means, apart)
            for c in range(width):
                for key in range(n_keys):
                    out[j + c, key, 0] = means[key * _LANES + c]
                    out[j + c, key, 1] = apart[key * _LANES + c]
