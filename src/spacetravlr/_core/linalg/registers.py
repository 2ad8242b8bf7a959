"""Small steps of loops that are written in the compiler's own language, to keep sums in vector registers.

A compiled loop keeps sums of many columns in memory, since it cannot know that they and what is added up lie apart.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types


def unpack(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Arguments of an intrinsic, arrays as structures with ``data`` and ``shape``."""
    return [
        context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def vector_of(scalar: Any, lanes: int) -> Any:
    """Type of ``lanes`` numbers side by side; the number itself where there is one."""
    return ir.VectorType(scalar, lanes) if lanes > 1 else scalar


def in_all_lanes(builder: Any, factor: Any, lanes: int) -> Any:
    """Put a number into every lane."""
    if lanes == 1:
        return factor
    nothing = ir.Constant(ir.VectorType(factor.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, factor, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute ``a * b + c``, rounded once where the processor can."""
    kind = c.type
    scalar, lanes = (kind.element, f"v{kind.count}") if isinstance(kind, ir.VectorType) else (kind, "")
    name = f"llvm.fmuladd.{lanes}f{64 if isinstance(scalar, ir.DoubleType) else 32}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


def zeros(builder: Any, vector: Any, n: int) -> list[Any]:
    """Make ``n`` variables of a type, zero to begin with; the compiler keeps them in registers."""
    variables = [cgutils.alloca_once(builder, vector) for _ in range(n)]
    for variable in variables:
        builder.store(ir.Constant(vector, None), variable)
    return variables
