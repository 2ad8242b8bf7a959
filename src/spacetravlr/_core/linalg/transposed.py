"""Columns that lie one after another, put side by side."""

from __future__ import annotations

import numpy as np

from spacetravlr._core.kernels import kernel

#: Columns that are put together: as many as fill a line of the cache in single precision.
TOGETHER = 16


@kernel
def put_transposed(values, groups, first, out, offset):
    """Set ``out[j, offset + c] = values[c, first + j]`` for all rows ``j`` of ``out`` and the columns ``c`` of groups.

    Runs on one thread, beside others.

    Parameters
    ----------
    values
        Columns x rows.
    groups
        Which groups of ``TOGETHER`` columns, counted from the first column.
    first
        Row of ``values`` that the first row of ``out`` takes.
    out, offset
        Rows x columns, and where the first column of ``values`` goes to (may be negative: columns outside are left
        out).
    """
    u = np.uint64  # unsigned places in flat arrays: numba does not look for negative ones, and loads become vector ones
    flat, source = out.reshape(-1), values.reshape(-1)
    n_rows, width, length = u(out.shape[0]), u(out.shape[1]), u(values.shape[1])
    for group in groups:
        c = group * TOGETHER
        if c + TOGETHER <= values.shape[0] and c + offset >= 0 and c + offset + TOGETHER <= out.shape[1]:
            begin, to = u(c) * length + u(first), u(c + offset)
            for j in range(n_rows):
                for k in range(u(TOGETHER)):
                    flat[j * width + to + k] = source[begin + k * length + j]
        else:
            for k in range(max(c, -offset), min(c + TOGETHER, values.shape[0], out.shape[1] - offset)):
                for j in range(out.shape[0]):
                    out[j, offset + k] = values[k, first + j]
