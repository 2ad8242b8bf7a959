"""Columns of a wide matrix that are scattered in it, a row at a time: rows lie together in memory, columns do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_ROWS_PER_TASK = 64


def copy_columns(values: Floats, columns: Ints, out: Floats, at: Ints) -> None:
    """Write ``columns`` of ``values`` (rows x columns) to columns ``at`` of ``out``."""
    _copy(values, columns.astype(np.uint32), out, at.astype(np.uint32))


def add_columns(values: Floats, at: Ints, out: Floats) -> None:
    """Add ``values`` (rows x columns) to columns ``at`` of ``out``, each of which is there once."""
    _add(values, at.astype(np.uint32), out)


# numbers without a sign: compiled code then does not look for negative ones
@parallel_kernel
def _copy(values, columns, out, at):
    n = values.shape[0]
    for task in nb.prange((n + _ROWS_PER_TASK - 1) // _ROWS_PER_TASK):
        for j in range(task * _ROWS_PER_TASK, min(n, (task + 1) * _ROWS_PER_TASK)):
            source, to = values[j], out[j]
            for k in range(columns.shape[0]):
                to[at[k]] = source[columns[k]]


@parallel_kernel
def _add(values, at, out):
    n = values.shape[0]
    for task in nb.prange((n + _ROWS_PER_TASK - 1) // _ROWS_PER_TASK):
        for j in range(task * _ROWS_PER_TASK, min(n, (task + 1) * _ROWS_PER_TASK)):
            source, to = values[j], out[j]
            for k in range(at.shape[0]):
                to[at[k]] += source[k]
