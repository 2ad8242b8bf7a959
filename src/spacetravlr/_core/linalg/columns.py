"""Columns of a wide matrix that are scattered in it, a row at a time: rows lie together in memory, columns do not."""

from __future__ import annotations

import numba as nb

from spacetravlr._core.kernels import parallel_kernel

_ROWS_PER_TASK = 64


@parallel_kernel
def copy_columns(values, columns, out, at):
    """Write ``columns`` of ``values`` (rows x columns) to columns ``at`` of ``out``."""
    n = values.shape[0]
    for task in nb.prange((n + _ROWS_PER_TASK - 1) // _ROWS_PER_TASK):
        for j in range(task * _ROWS_PER_TASK, min(n, (task + 1) * _ROWS_PER_TASK)):
            for k in range(columns.shape[0]):
                out[j, at[k]] = values[j, columns[k]]


@parallel_kernel
def add_columns(values, at, out):
    """Add ``values`` (rows x columns) to columns ``at`` of ``out``, each of which is there once."""
    n = values.shape[0]
    for task in nb.prange((n + _ROWS_PER_TASK - 1) // _ROWS_PER_TASK):
        for j in range(task * _ROWS_PER_TASK, min(n, (task + 1) * _ROWS_PER_TASK)):
            for k in range(at.shape[0]):
                out[j, at[k]] += values[j, k]
