"""Weighted sums of rows of numbers that lie anywhere, in vector registers.

A compiled loop keeps such sums in memory, since it cannot know that they and the rows lie apart. So the loops are
written in the compiler's own language here.
"""

from __future__ import annotations

from typing import Any

import numba as nb
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

#: A width that is a multiple of this takes least time a number.
LANES = 8
_WIDE = 32


def _weighted(lanes: int, *, spreads: bool, double: bool = False) -> Any:
    """Some columns of a weighted sum of rows; or of what is added to the rows, each with its weight."""

    @intrinsic(prefer_literal=False)
    def weighted(
        typing: Any,
        weights: Any,
        places: Any,
        start: Any,
        stop: Any,
        rows: Any,
        step: Any,
        lane: Any,
        own: Any,
        at: Any,
    ) -> Any:
        n = types.intp
        return types.void(weights, places, n, n, rows, n, n, own, n), codegen

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        weights, places, start, stop, rows, step, lane, own, at = (
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, args, strict=True)
        )
        single = ir.FloatType()
        kind = ir.DoubleType() if double else single
        stored, vector = ((ir.VectorType(k, lanes) if lanes > 1 else k) for k in (single, kind))
        name = f"llvm.fmuladd.{f'v{lanes}' if lanes > 1 else ''}f{64 if double else 32}"
        multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

        def lanes_at(array: Any, place: Any) -> Any:
            return builder.bitcast(builder.gep(array.data, [place]), stored.as_pointer())

        def load(pointer: Any) -> Any:
            found = builder.load(pointer, align=4)
            return builder.fpext(found, vector) if double else found

        def save(value: Any, pointer: Any) -> None:
            builder.store(builder.fptrunc(value, stored) if double else value, pointer, align=4)

        def in_all_lanes(factor: Any) -> Any:
            factor = builder.fpext(factor, kind) if double else factor
            if lanes == 1:
                return factor
            nothing = ir.Constant(vector, ir.Undefined)
            first_lane = builder.insert_element(nothing, factor, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first_lane, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))

        total = cgutils.alloca_once(builder, vector)
        builder.store(load(lanes_at(own, at)) if spreads else ir.Constant(vector, None), total)
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1), intp=start.type) as (k, _):
            weight = in_all_lanes(builder.load(builder.gep(weights.data, [k])))
            place = builder.load(builder.gep(places.data, [k]))
            place = place if place.type == step.type else builder.sext(place, step.type)
            there = lanes_at(rows, builder.add(builder.mul(place, step), lane))
            if spreads:
                save(builder.call(multiply_add, [weight, builder.load(total), load(there)]), there)
            else:
                builder.store(builder.call(multiply_add, [weight, load(there), builder.load(total)]), total)
        if not spreads:
            save(builder.load(total), lanes_at(own, at))
        return context.get_dummy_value()

    return weighted


_sum_wide, _sum_narrow, _sum_one = (_weighted(lanes, spreads=False) for lanes in (_WIDE, LANES, 1))
_exact_wide, _exact_narrow, _exact_one = (_weighted(lanes, spreads=False, double=True) for lanes in (_WIDE, LANES, 1))
_add_wide, _add_narrow, _add_one = (_weighted(lanes, spreads=True) for lanes in (_WIDE, LANES, 1))


@nb.njit(cache=True, nogil=True, inline="always")
def sum_rows(weights, places, start, stop, rows, step, first, width, out, to):  # type: ignore[no-untyped-def]
    r"""Fill ``out[to + p]`` with :math:`\sum_k weights_k\, rows_{places_k step + first + p}`, from start to stop.

    ``rows`` and ``out`` are flat, float32; every column is summed in the order of its rows.
    """
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _sum_wide(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += _WIDE
        elif p + LANES <= width:
            _sum_narrow(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += LANES
        else:
            _sum_one(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += 1


@nb.njit(cache=True, nogil=True, inline="always")
def sum_rows_exactly(weights, places, start, stop, rows, step, first, width, out, to):  # type: ignore[no-untyped-def]
    """Do the same with sums in double precision."""
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _exact_wide(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += _WIDE
        elif p + LANES <= width:
            _exact_narrow(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += LANES
        else:
            _exact_one(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += 1


@nb.njit(cache=True, nogil=True, inline="always")
def add_to_rows(weights, places, start, stop, rows, step, width, values, at):  # type: ignore[no-untyped-def]
    """Add ``values[at + p]``, times their weight, to ``rows[places * step + p]`` for all places from start to stop."""
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _add_wide(weights, places, start, stop, rows, step, p, values, at + p)
            p += _WIDE
        elif p + LANES <= width:
            _add_narrow(weights, places, start, stop, rows, step, p, values, at + p)
            p += LANES
        else:
            _add_one(weights, places, start, stop, rows, step, p, values, at + p)
            p += 1
