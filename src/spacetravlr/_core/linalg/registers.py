"""The innermost loops, written as LLVM intrinsics to keep sums in vector registers.

A loop compiled by numba keeps sums of many columns in memory, because the compiler cannot know that inputs and outputs
do not overlap. All code of this kind is in this file. :mod:`spacetravlr._core.linalg.sparse_dot` and
:mod:`spacetravlr._core.signals.gather_scatter` have an equivalent plain loop for each use, for versions of llvmlite
that are not :func:`usable`.
"""

from __future__ import annotations

import logging
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

logger = logging.getLogger(__name__)


def usable() -> bool:
    """Whether this version of llvmlite still writes and reads what the loops are made of."""
    try:
        module = ir.Module()
        number = ir.FloatType()
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [number.as_pointer(), number]), "probe")
        builder = ir.IRBuilder(function.append_basic_block())
        rows, factor = function.args
        vector = _vector_of(number, 8)
        place = builder.bitcast(builder.gep(rows, [ir.Constant(ir.IntType(64), 4)]), vector.as_pointer())
        values = builder.load(place, align=4)
        (total,) = _zeros(builder, vector, 1)
        builder.store(_multiply_add(builder, _in_all_lanes(builder, factor, 8), values, builder.load(total)), total)
        builder.store(builder.load(total), place, align=4)
        builder.ret_void()
        binding.parse_assembly(str(module)).verify()
    except Exception as error:  # noqa: BLE001 - whatever it raises, plain loops do
        logger.debug("loops in vector registers cannot be made: %s", error)
        return False
    return True


def _unpack(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Arguments of an intrinsic, arrays as structures with ``data`` and ``shape``."""
    return [
        context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def _vector_of(scalar: Any, lanes: int) -> Any:
    """Type of ``lanes`` numbers side by side; the number itself where there is one."""
    return ir.VectorType(scalar, lanes) if lanes > 1 else scalar


def _in_all_lanes(builder: Any, factor: Any, lanes: int) -> Any:
    """Put a number into every lane."""
    if lanes == 1:
        return factor
    nothing = ir.Constant(ir.VectorType(factor.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, factor, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute ``a * b + c``, rounded once where the processor can."""
    kind = c.type
    scalar, lanes = (kind.element, f"v{kind.count}") if isinstance(kind, ir.VectorType) else (kind, "")
    name = f"llvm.fmuladd.{lanes}f{64 if isinstance(scalar, ir.DoubleType) else 32}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


def _zeros(builder: Any, vector: Any, n: int) -> list[Any]:
    """Make ``n`` variables of a type, zero to begin with; the compiler keeps them in registers."""
    variables = [cgutils.alloca_once(builder, vector) for _ in range(n)]
    for variable in variables:
        builder.store(ir.Constant(vector, None), variable)
    return variables


def weighted_rows(lanes: int, *, scatters: bool, run: int, double: bool = False) -> Any:
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
        weights, places, start, stop, rows, step, lane, own, at = _unpack(context, builder, signature, args)
        single = ir.FloatType()
        kind = ir.DoubleType() if double else single
        stored, vector = _vector_of(single, lanes), _vector_of(kind, lanes)

        def lanes_at(array: Any, place: Any) -> Any:
            return builder.bitcast(builder.gep(array.data, [place]), stored.as_pointer())

        def load(pointer: Any) -> Any:
            found = builder.load(pointer, align=4)
            return builder.fpext(found, vector) if double else found

        def save(value: Any, pointer: Any) -> None:
            builder.store(builder.fptrunc(value, stored) if double else value, pointer, align=4)

        (total,) = _zeros(builder, vector, 1)
        if scatters:
            builder.store(load(lanes_at(own, at)), total)
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1), intp=start.type) as (k, _):
            place = builder.load(builder.gep(places.data, [k]))
            place = place if place.type == step.type else builder.sext(place, step.type)
            first = builder.add(builder.mul(place, step), lane)
            weight_of = builder.mul(k, ir.Constant(k.type, run))
            for r in range(run):
                factor = builder.load(builder.gep(weights.data, [builder.add(weight_of, ir.Constant(k.type, r))]))
                weight = _in_all_lanes(builder, builder.fpext(factor, kind) if double else factor, lanes)
                place_of_row = lanes_at(rows, builder.add(first, builder.mul(step, ir.Constant(step.type, r))))
                if scatters:
                    save(_multiply_add(builder, weight, builder.load(total), load(place_of_row)), place_of_row)
                else:
                    builder.store(_multiply_add(builder, weight, load(place_of_row), builder.load(total)), total)
        if not scatters:
            save(builder.load(total), lanes_at(own, at))
        return context.get_dummy_value()

    return weighted


def clipped_dots(lanes: int, n_cells: int) -> Any:
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
        rows, j, column, slot, start, stop, values, first, base, top, gene, out, at, to, lane = _unpack(
            context, builder, signature, args
        )
        kind = signature.args[6].dtype
        scalar = context.get_value_type(kind)
        vector, size = _vector_of(scalar, lanes), context.get_abi_sizeof(scalar)

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
                limits = _in_all_lanes(builder, limit, lanes)
                total = builder.select(builder.fcmp_ordered(beyond, limits, total), limits, total)
            return total

        totals = _zeros(builder, vector, n_cells)
        with cgutils.for_range_slice(builder, start, stop, number(1), intp=start.type) as (k, _):
            here, term = index_at(column, k), index_at(slot, k)
            for c, total in enumerate(totals):
                factor = builder.load(flat(rows, builder.add(j, number(c)), here))
                if factor.type != scalar:
                    factor = context.cast(builder, factor, signature.args[0].dtype, kind)
                change = builder.load(lanes_at(values, number(c), term, first), align=size)
                added = _multiply_add(builder, _in_all_lanes(builder, factor, lanes), change, builder.load(total))
                builder.store(added, total)
        for c, total in enumerate(totals):
            clipped = within(builder.load(total), builder.add(j, number(c)))
            builder.store(clipped, lanes_at(out, builder.add(at, number(c)), to, lane), align=size)
        return context.get_dummy_value()

    return dots
