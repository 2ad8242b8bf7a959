"""Weighted sums of rows of numbers that lie anywhere, in vector registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from spacetravlr._core.kernels import kernel
from spacetravlr._core.linalg.registers import in_all_lanes, multiply_add, unpack, vector_of, zeros

#: A width that is a multiple of this takes least time a number.
LANES = 8
#: Rows one after another that are found once.
RUN = 4
_WIDE = 32


def _weighted(lanes: int, *, spreads: bool, run: int, double: bool = False) -> Any:
    """Some columns of a weighted sum of rows; or of what is added to the rows, each with its weight.

    A place stands for ``run`` rows from there on, each of which has a weight.
    """

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
        weights, places, start, stop, rows, step, lane, own, at = unpack(context, builder, signature, args)
        single = ir.FloatType()
        kind = ir.DoubleType() if double else single
        stored, vector = vector_of(single, lanes), vector_of(kind, lanes)

        def lanes_at(array: Any, place: Any) -> Any:
            return builder.bitcast(builder.gep(array.data, [place]), stored.as_pointer())

        def load(pointer: Any) -> Any:
            found = builder.load(pointer, align=4)
            return builder.fpext(found, vector) if double else found

        def save(value: Any, pointer: Any) -> None:
            builder.store(builder.fptrunc(value, stored) if double else value, pointer, align=4)

        (total,) = zeros(builder, vector, 1)
        if spreads:
            builder.store(load(lanes_at(own, at)), total)
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1), intp=start.type) as (k, _):
            place = builder.load(builder.gep(places.data, [k]))
            place = place if place.type == step.type else builder.sext(place, step.type)
            first = builder.add(builder.mul(place, step), lane)
            weight_of = builder.mul(k, ir.Constant(k.type, run))
            for r in range(run):
                factor = builder.load(builder.gep(weights.data, [builder.add(weight_of, ir.Constant(k.type, r))]))
                weight = in_all_lanes(builder, builder.fpext(factor, kind) if double else factor, lanes)
                there = lanes_at(rows, builder.add(first, builder.mul(step, ir.Constant(step.type, r))))
                if spreads:
                    save(multiply_add(builder, weight, builder.load(total), load(there)), there)
                else:
                    builder.store(multiply_add(builder, weight, load(there), builder.load(total)), total)
        if not spreads:
            save(builder.load(total), lanes_at(own, at))
        return context.get_dummy_value()

    return weighted


_exact_wide, _exact_narrow, _exact_one = (
    _weighted(lanes, spreads=False, run=1, double=True) for lanes in (_WIDE, LANES, 1)
)
_sum_wide, _sum_narrow, _sum_one = (_weighted(lanes, spreads=False, run=RUN) for lanes in (_WIDE, LANES, 1))
_add_wide, _add_narrow, _add_one = (_weighted(lanes, spreads=True, run=RUN) for lanes in (_WIDE, LANES, 1))


@kernel(inline="always")
def sum_rows_exactly(weights, places, start, stop, rows, step, first, width, out, to):  # type: ignore[no-untyped-def]
    r"""Fill ``out[to + p]`` with :math:`\sum_k weights_k\, rows_{places_k step + first + p}`, from start to stop.

    ``rows`` and ``out`` are flat, float32; every column is summed in double precision, in the order of its rows.
    """
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


@kernel(inline="always")
def sum_runs(weights, places, n_runs, rows, step, width, out, to):  # type: ignore[no-untyped-def]
    r"""Fill ``out[to + p]`` with :math:`\sum_{kr} weights_{kr}\, rows_{(places_k + r) step + p}`, runs of 4 rows.

    ``weights``, ``rows`` and ``out`` are flat, float32; every column is summed in the order of its rows.
    """
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _sum_wide(weights, places, 0, n_runs, rows, step, p, out, to + p)
            p += _WIDE
        elif p + LANES <= width:
            _sum_narrow(weights, places, 0, n_runs, rows, step, p, out, to + p)
            p += LANES
        else:
            _sum_one(weights, places, 0, n_runs, rows, step, p, out, to + p)
            p += 1


@kernel(inline="always")
def add_to_runs(weights, places, n_runs, rows, step, width, values, at):  # type: ignore[no-untyped-def]
    """Add ``values[at + p]``, times their weight, to every row of the runs; see :func:`sum_runs`."""
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _add_wide(weights, places, 0, n_runs, rows, step, p, values, at + p)
            p += _WIDE
        elif p + LANES <= width:
            _add_narrow(weights, places, 0, n_runs, rows, step, p, values, at + p)
            p += LANES
        else:
            _add_one(weights, places, 0, n_runs, rows, step, p, values, at + p)
            p += 1
