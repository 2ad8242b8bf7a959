"""Sparse dot products of rows of coefficients with many columns at once, in vector registers where possible.

A target's response is a sum over its terms, for every perturbation of a batch. The sums of 32 perturbations fit in a
few registers (see :mod:`spacetravlr._core.linalg.registers`). Where there is one perturbation, every
addition waits for the one before; so few perturbations go through four cells side by side, which read the indices once.
"""

from __future__ import annotations

import numpy as np

from spacetravlr._core.kernels import kernel
from spacetravlr._core.linalg.registers import clipped_dots, usable

#: Columns are padded to a multiple of this.
LANES = 8
#: Cells side by side.
CELLS = 4
_WIDE = 32
_LINE = 64  # bytes


@kernel(inline="always")
def aligned_zeros(shape, dtype):
    """Zeros that start where a line of the cache does: registers that straddle two lines take twice as long to load."""
    size = shape[0] * shape[1] * shape[2]
    memory = np.zeros(size + _LINE, dtype=dtype)
    first = (-memory.ctypes.data % _LINE) // memory.itemsize
    return memory[first : first + size].reshape(shape)


_wide_1, _narrow_4, _single_4 = clipped_dots(_WIDE, 1), clipped_dots(LANES, CELLS), clipped_dots(1, CELLS)
_narrow_1, _single_1 = clipped_dots(LANES, 1), clipped_dots(1, 1)


@kernel(inline="always")
def _bounded_dots_in_registers(rows, j, n_cells, column, slot, start, stop, values, base, top, gene, out, to, buffer):
    r"""Fill ``out[j + c, to, p]`` with :math:`\sum_k rows_{j + c, column_k} values_{c, slot_k, p}`, from start to stop.

    Every sum adds in the order of its entries and rounds in the same way, whatever stands beside it. It is clipped to
    the range in which the base of its cell and ``gene``, with the sum added, lies between zero and the top.

    Parameters
    ----------
    rows
        Coefficients, cells x columns.
    j, n_cells
        First cell, and how many: 1 or 4.
    column, slot
        Entries: unsigned positions in a row of ``rows`` and in the second axis of ``values``.
    start, stop
        Entries to add up.
    values
        4 x slots x lanes; one lane, or a multiple of 8.
    base, top
        Cells x genes, and the largest allowed value of each gene.
    gene
        Column of ``base``.
    out, to
        Cells x targets x sums, as many sums as there are lanes or fewer; and which target.
    buffer
        Memory for the last sums where they do not fill the lanes; 4 x 1 x 8.
    """
    p, n_wanted, n_lanes = 0, out.shape[2], values.shape[2]
    while p < n_wanted:
        if n_lanes == 1:
            if n_cells == 1:
                _single_1(rows, j, column, slot, start, stop, values, p, base, top, gene, out, j, to, p)
            else:
                _single_4(rows, j, column, slot, start, stop, values, p, base, top, gene, out, j, to, p)
            p += 1
        elif n_cells == 1 and p + _WIDE <= n_wanted:
            _wide_1(rows, j, column, slot, start, stop, values, p, base, top, gene, out, j, to, p)
            p += _WIDE
        elif p + LANES <= n_wanted:
            if n_cells == 1:
                _narrow_1(rows, j, column, slot, start, stop, values, p, base, top, gene, out, j, to, p)
            else:
                _narrow_4(rows, j, column, slot, start, stop, values, p, base, top, gene, out, j, to, p)
            p += LANES
        else:
            if n_cells == 1:
                _narrow_1(rows, j, column, slot, start, stop, values, p, base, top, gene, buffer, 0, 0, 0)
            else:
                _narrow_4(rows, j, column, slot, start, stop, values, p, base, top, gene, buffer, 0, 0, 0)
            for c in range(n_cells):
                out[j + c, to, p:] = buffer[c, 0, : n_wanted - p]
            p = n_wanted


@kernel
def _bounded_dots_plainly(rows, j, n_cells, column, slot, start, stop, values, base, top, gene, out, to, buffer):
    number = values.dtype.type
    for c in range(n_cells):
        lower = number(0) - base[j + c, gene]
        upper = top[gene] + lower
        totals = out[j + c, to]
        totals[:] = 0
        for k in range(start, stop):
            factor, changes = number(rows[j + c, column[k]]), values[c, slot[k]]
            for p in range(totals.shape[0]):
                totals[p] += factor * changes[p]
        for p in range(totals.shape[0]):
            if lower > totals[p]:
                totals[p] = lower
            if upper < totals[p]:
                totals[p] = upper


bounded_dots = _bounded_dots_in_registers if usable() else _bounded_dots_plainly
