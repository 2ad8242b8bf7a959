"""Sparse dot products of rows of coefficients with many columns at once, in vector registers.

A target's response is a sum over its terms, for every perturbation of a batch. The sums of 32 perturbations fit in a
few registers (see :mod:`spacetravlr._core.linalg.registers`). Where there is one perturbation, every
addition waits for the one before; so few perturbations go through four cells side by side, which read the indices once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from spacetravlr._core.kernels import kernel
from spacetravlr._core.linalg.registers import in_all_lanes, multiply_add, unpack, vector_of, zeros

#: Columns are padded to a multiple of this.
LANES = 8
#: Cells side by side.
CELLS = 4
_WIDE = 32
_LINE = 64  # bytes


def _dots(lanes: int, n_cells: int) -> Any:
    """Sums of ``n_cells`` cells from ``j`` on, in ``lanes`` columns from ``first`` on, clipped and written."""

    @intrinsic(prefer_literal=False)
    def dots(
        typing: Any,
        rows: Any,
        j: Any,
        column: Any,
        slot: Any,
        start: Any,
        stop: Any,
        values: Any,
        first: Any,
        base: Any,
        top: Any,
        gene: Any,
        out: Any,
        at: Any,
        to: Any,
        lane: Any,
    ) -> Any:
        arrays = (rows, column, slot, values, base, top, out)
        if not all(isinstance(a, types.Array) and a.layout == "C" for a in arrays):
            return None
        if not values.dtype == base.dtype == top.dtype == out.dtype:
            return None
        n = types.intp
        return types.void(rows, n, column, slot, n, n, values, n, base, top, n, out, n, n, n), codegen

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, j, column, slot, start, stop, values, first, base, top, gene, out, at, to, lane = unpack(
            context, builder, signature, args
        )
        kind = signature.args[6].dtype
        scalar = context.get_value_type(kind)
        vector, size = vector_of(scalar, lanes), context.get_abi_sizeof(scalar)

        def number(value: int) -> Any:
            return ir.Constant(start.type, value)

        def flat(array: Any, *indices: Any) -> Any:
            """Pointer to an element."""
            sizes = cgutils.unpack_tuple(builder, array.shape)
            position = indices[0]
            for index, length in zip(indices[1:], sizes[1:], strict=True):
                position = builder.add(builder.mul(position, length), index)
            return builder.gep(array.data, [position])

        def index_at(array: Any, k: Any) -> Any:
            return builder.zext(builder.load(flat(array, k)), start.type)

        def lanes_at(array: Any, *indices: Any) -> Any:
            return builder.bitcast(flat(array, *indices), vector.as_pointer())

        def within(total: Any, cell: Any) -> Any:
            """Clip ``total`` so that the base with it lies between zero and the top."""
            lower = builder.fsub(ir.Constant(scalar, 0.0), builder.load(flat(base, cell, gene)))
            upper = builder.fadd(builder.load(flat(top, gene)), lower)
            for limit, beyond in ((lower, ">"), (upper, "<")):
                limits = in_all_lanes(builder, limit, lanes)
                total = builder.select(builder.fcmp_ordered(beyond, limits, total), limits, total)
            return total

        totals = zeros(builder, vector, n_cells)
        with cgutils.for_range_slice(builder, start, stop, number(1), intp=start.type) as (k, _):
            here, term = index_at(column, k), index_at(slot, k)
            for c, total in enumerate(totals):
                factor = builder.load(flat(rows, builder.add(j, number(c)), here))
                if factor.type != scalar:
                    factor = context.cast(builder, factor, signature.args[0].dtype, kind)
                change = builder.load(lanes_at(values, number(c), term, first), align=size)
                added = multiply_add(builder, in_all_lanes(builder, factor, lanes), change, builder.load(total))
                builder.store(added, total)
        for c, total in enumerate(totals):
            clipped = within(builder.load(total), builder.add(j, number(c)))
            builder.store(clipped, lanes_at(out, builder.add(at, number(c)), to, lane), align=size)
        return context.get_dummy_value()

    return dots


@kernel(inline="always")
def aligned_zeros(shape, dtype):  # type: ignore[no-untyped-def]
    """Zeros that start where a line of the cache does: registers that straddle two lines take twice as long to load."""
    size = shape[0] * shape[1] * shape[2]
    room = np.zeros(size + _LINE, dtype=dtype)
    first = (-room.ctypes.data % _LINE) // room.itemsize
    return room[first : first + size].reshape(shape)


_wide_1, _narrow_4, _single_4 = _dots(_WIDE, 1), _dots(LANES, CELLS), _dots(1, CELLS)
_narrow_1, _single_1 = _dots(LANES, 1), _dots(1, 1)


@kernel(inline="always")
def bounded_dots(rows, j, n_cells, column, slot, start, stop, values, base, top, gene, out, to, rest):  # type: ignore[no-untyped-def]
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
    rest
        Room for the last sums where they do not fill the lanes; 4 x 1 x 8.
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
                _narrow_1(rows, j, column, slot, start, stop, values, p, base, top, gene, rest, 0, 0, 0)
            else:
                _narrow_4(rows, j, column, slot, start, stop, values, p, base, top, gene, rest, 0, 0, 0)
            for c in range(n_cells):
                out[j + c, to, p:] = rest[c, 0, : n_wanted - p]
            p = n_wanted
