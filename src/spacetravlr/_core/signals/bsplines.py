"""Scattering of values from cells onto a grid with cubic B-splines, and interpolation back with the same ones."""

from __future__ import annotations

import numba as nb
import numpy as np

from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.signals.gather_scatter import add_to_runs, sum_runs

#: Grid rows filled by one thread. At least the support of the B-spline, so that every second strip can run at once.
STRIP = 8
# Cells whose values are fetched together.
_AHEAD = 32


@kernel(inline="always")
def _spline(t, weights):
    """Cubic B-spline at the four grid points around offset ``t``; returns how many there are."""
    if t < 0:
        weights[0] = 1.0
        return 1
    u, sixth = np.float32(1) - t, np.float32(1 / 6)
    weights[0] = u * u * u * sixth
    weights[1] = ((t - np.float32(2)) * t * t * np.float32(0.5)) + np.float32(2 / 3)
    weights[2] = ((u - np.float32(2)) * u * u * np.float32(0.5)) + np.float32(2 / 3)
    weights[3] = t * t * t * sixth
    return 4


@kernel(inline="always")
def _support(c, base, offset, shape, axes, weights, places):
    """Weights of the grid points around cell ``c``, and where runs of four of them begin; returns how many runs."""
    _spline(offset[c, 0], axes[0])
    breadth = _spline(offset[c, 1], axes[1])
    _spline(offset[c, 2], axes[2])
    n = 0
    for a in range(4):
        for b in range(breadth):
            weight, line = axes[0, a] * axes[1, b], (base[c, 0] + a) * shape[1] + base[c, 1] + b
            places[n] = line * shape[2] + base[c, 2]
            for d in range(4):
                weights[4 * n + d] = weight * axes[2, d]
            n += 1
    return n


@parallel_kernel
def scatter(values, first, width, cells, base, offset, strip_start, grid):
    """Add ``width`` columns of ``values`` to ``grid`` (three axes x columns, where there may be space for more).

    Parameters
    ----------
    values
        Cells x columns.
    first, width
        Columns to scatter.
    cells
        Rows of ``values`` in the order of the grid rows.
    base, offset
        Lowest grid point of each cell's support, and where the cell lies in its grid interval; an offset of -1 marks an
        axis that is not there.
    strip_start
        Strip ``s``, :data:`STRIP` grid rows, holds cells ``strip_start[s]:strip_start[s + 1]``.
    grid
        Three axes x columns, float32.
    """
    n_strips = strip_start.shape[0] - 1
    u = np.uint64  # numba does not look for negative indices then, and copies become vector ones
    flat, stride, flat_values = grid.reshape(-1), grid.shape[3], values.reshape(-1)
    for parity in range(2):
        # A strip writes a few rows into the next one but never into the one after: strips of one parity are
        # independent, and sums are made in the same order whatever the number of threads.
        for half in nb.prange((n_strips - parity + 1) // 2):
            strip = 2 * half + parity
            axes, weights, places = np.empty((3, 4), np.float32), np.empty(64, np.float32), np.empty(16, np.int64)
            packed = np.zeros(_AHEAD * stride, np.float32)
            for low in range(strip_start[strip], strip_start[strip + 1], _AHEAD):
                stop = min(low + _AHEAD, strip_start[strip + 1])
                for c in range(low, stop):  # fetched ahead: cells lie anywhere in memory
                    own, from_ = u(c - low) * u(stride), u(cells[c]) * u(values.shape[1]) + u(first)
                    for k in range(u(width)):
                        packed[own + k] = flat_values[from_ + k]
                for c in range(low, stop):
                    n = _support(c, base, offset, grid.shape, axes, weights, places)
                    add_to_runs(weights, places, n, flat, stride, stride, packed, (c - low) * stride)


@parallel_kernel
def gather(grid, width, cells, base, offset, out, first):
    """Interpolate ``width`` columns of ``grid`` at the cells; parameters as in :func:`scatter`."""
    n_blocks = (cells.shape[0] + 1023) // 1024
    u = np.uint64
    flat, stride, flat_out = grid.reshape(-1), grid.shape[3], out.reshape(-1)
    for block in nb.prange(n_blocks):
        axes, weights, places = np.empty((3, 4), np.float32), np.empty(64, np.float32), np.empty(16, np.int64)
        gathered = np.empty(stride, np.float32)
        for c in range(block * 1024, min(cells.shape[0], (block + 1) * 1024)):
            n = _support(c, base, offset, grid.shape, axes, weights, places)
            sum_runs(weights, places, n, flat, stride, stride, gathered, 0)
            to = u(cells[c]) * u(out.shape[1]) + u(first)
            for k in range(u(width)):
                flat_out[to + k] = gathered[k]
