"""Sparse dot products of rows of coefficients with many columns at once, in vector registers.

A target's response is a sum over its terms, for every perturbation of a batch. The sums of 32 perturbations fit in a
few registers, but a compiled loop keeps them in memory, since it cannot know that they and the changes of the terms lie
apart; and where there is one perturbation, every addition waits for the one before. So the loop is written in the
compiler's own language here, and few perturbations go through four cells side by side, which read the indices once.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

#: Columns are padded to a multiple of this.
LANES = 8
#: Cells side by side.
CELLS = 4
_WIDE = 32
_LINE = 64  # bytes


def _dots(lanes: int, n_cells: int) -> Any:
    """Sums of ``n_cells`` cells from ``j`` on, in ``lanes`` columns from ``first`` on."""

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
        sums: Any,
        row: Any,
    ) -> Any:
        arrays = (rows, column, slot, values, sums)
        if not all(isinstance(a, types.Array) and a.layout == "C" for a in arrays) or values.dtype != sums.dtype:
            return None
        index = types.intp
        return types.void(rows, index, column, slot, index, index, values, index, sums, index), codegen

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, j, column, slot, start, stop, values, first, sums, row = (
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, args, strict=True)
        )
        scalar = context.get_value_type(signature.args[6].dtype)
        vector = ir.VectorType(scalar, lanes) if lanes > 1 else scalar
        size = context.get_abi_sizeof(scalar)
        name = f"llvm.fmuladd.{f'v{lanes}' if lanes > 1 else ''}f{8 * size}"
        multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

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

        def in_all_lanes(factor: Any) -> Any:
            if lanes == 1:
                return factor
            nothing = ir.Constant(vector, ir.Undefined)
            first_lane = builder.insert_element(nothing, factor, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first_lane, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))

        def lanes_at(array: Any, *indices: Any) -> Any:
            return builder.bitcast(flat(array, *indices), vector.as_pointer())

        totals = [cgutils.alloca_once(builder, vector) for _ in range(n_cells)]
        for total in totals:
            builder.store(ir.Constant(vector, None), total)
        with cgutils.for_range_slice(builder, start, stop, number(1), intp=start.type) as (k, _):
            here, term = index_at(column, k), index_at(slot, k)
            for c, total in enumerate(totals):
                factor = builder.load(flat(rows, builder.add(j, number(c)), here))
                if factor.type != scalar:
                    factor = context.cast(builder, factor, signature.args[0].dtype, signature.args[6].dtype)
                change = builder.load(lanes_at(values, number(c), term, first), align=size)
                added = builder.call(multiply_add, [in_all_lanes(factor), change, builder.load(total)])
                builder.store(added, total)
        for c, total in enumerate(totals):
            builder.store(builder.load(total), lanes_at(sums, row, number(c), first), align=size)
        return context.get_dummy_value()

    return dots


@nb.njit(cache=True, nogil=True, inline="always")
def aligned_zeros(shape, dtype):  # type: ignore[no-untyped-def]
    """Zeros that start where a line of the cache does: registers that straddle two lines take twice as long to load."""
    size = shape[0] * shape[1] * shape[2]
    room = np.zeros(size + _LINE, dtype=dtype)
    first = (-room.ctypes.data % _LINE) // room.itemsize
    return room[first : first + size].reshape(shape)


_wide_1, _narrow_4, _single_4 = _dots(_WIDE, 1), _dots(LANES, CELLS), _dots(1, CELLS)
_narrow_1, _single_1 = _dots(LANES, 1), _dots(1, 1)


@nb.njit(cache=True, nogil=True, inline="always")
def sparse_dots(rows, j, n_cells, column, slot, start, stop, values, n_wanted, sums, row):  # type: ignore[no-untyped-def]
    r"""Fill ``sums[row, c, p]`` with :math:`\sum_k rows_{j + c, column_k} values_{c, slot_k, p}`, from start to stop.

    Every sum adds in the order of its entries and rounds in the same way, whatever stands beside it.

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
    n_wanted
        Lanes from here on need not be computed.
    sums, row
        Targets x 4 x lanes, and which target. The sums of many targets are better read later than each at once: reading
        what was just written from a register waits for it.
    """
    p = 0
    while p < n_wanted:
        if sums.shape[2] == 1:
            if n_cells == 1:
                _single_1(rows, j, column, slot, start, stop, values, p, sums, row)
            else:
                _single_4(rows, j, column, slot, start, stop, values, p, sums, row)
            p += 1
        elif n_cells == 1 and p + _WIDE <= sums.shape[2]:
            _wide_1(rows, j, column, slot, start, stop, values, p, sums, row)
            p += _WIDE
        else:
            if n_cells == 1:
                _narrow_1(rows, j, column, slot, start, stop, values, p, sums, row)
            else:
                _narrow_4(rows, j, column, slot, start, stop, values, p, sums, row)
            p += LANES
