r"""Convolutions of a small grid with an even kernel, by matrix products instead of FFTs.

A kernel that is even along every axis has products of cosines and sines as eigenvectors, so a convolution is: project
on the waves of each axis, scale, and project back. A smooth kernel has hardly any high-frequency waves, so the bases
are narrower than the grid. The rows of a matrix product stay in the cache, whereas an FFT over many columns goes
through memory at every step. Up to some hundred points per axis, this is several times as fast.

Every column is computed independently, in an order that does not depend on the other columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.kernels import kernel, parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

# Angle a grid point from which waves are faded out, and at which none is left. A sudden end would ring: stray signals.
_FADE, _END = 1.2, 2.3
# Time of an FFT at one grid point, in multiplications and additions.
_FFT_POINT = 400.0


class Waves(NamedTuple):
    """A convolution of grids of one shape."""

    bases: tuple[Floats, Floats, Floats]
    """Of every axis, points x waves; their columns are orthonormal over a period."""
    eigenvalues: Floats
    """Of every product of waves."""


def worthwhile(extent: tuple[int, ...], period: tuple[int, ...]) -> bool:
    """Whether matrix products take less time than FFTs."""
    kept = [len(_wave_numbers(n)) for n in period]
    products = 0
    for axis, size in enumerate(extent):
        products += 2 * math.prod(extent[: axis + 1]) * math.prod(kept[axis:]) if size > 1 else 0
    return products < _FFT_POINT * math.prod(period)


def make_waves(extent: tuple[int, ...], period: tuple[int, ...], spectrum: Floats) -> Waves:
    """Waves of a kernel.

    Parameters
    ----------
    extent
        Points of each of three axes that hold values; one for an axis that is not there.
    period
        Points of each axis over which the convolution is periodic.
    spectrum
        Real spectrum of the kernel, which has to be even along every axis; half of the last axis is enough.
    """
    bases, found = [], spectrum
    for axis, (size, length) in enumerate(zip(extent, period, strict=True)):
        number = _wave_numbers(length)
        bases.append(_basis(size, length, number))
        fade = _fade(2 * np.pi * number / length)
        found = np.take(found, number, axis=axis) * fade.reshape([-1 if a == axis else 1 for a in range(3)])
    return Waves((bases[0], bases[1], bases[2]), np.ascontiguousarray(found, dtype=np.float32))


def convolve(grid: Floats, waves: Waves) -> None:
    """Convolve every column of ``grid`` (three axes x columns) in place, on numba's threads."""
    transposed = [np.ascontiguousarray(basis.T) for basis in waves.bases]
    _convolve(grid, *waves.bases, *transposed, waves.eigenvalues)


def _wave_numbers(period: int) -> Ints:
    """Whole waves a period of every kept wave; all but the constant are there twice, as cosine and as sine."""
    number = np.arange(1, math.ceil(period * _END / (2 * np.pi)))
    return np.concatenate([[0], np.repeat(number, 2)]).astype(np.int64)


def _basis(size: int, period: int, number: Ints) -> Floats:
    angle = 2 * np.pi / period * np.outer(np.arange(size), number)
    waves = np.where(np.arange(len(number)) % 2 == 1, np.cos(angle), np.sin(angle)) * np.sqrt(2 / period)
    waves[:, 0] = np.sqrt(1 / period)
    return np.ascontiguousarray(waves, dtype=np.float32)


def _fade(angle: Floats) -> Floats:
    """One at small angles, zero at the end, with two continuous derivatives."""
    u = np.clip((angle - _FADE) / (_END - _FADE), 0, 1)
    return 1 - u**3 * (10 - 15 * u + 6 * u**2)


@kernel
def _project(basis, right, first, step, width, out, to, by):
    """Columns of ``basis`` times rows of ``width`` numbers, one every ``step``; written to rows every ``by``."""
    u = np.uint64  # numba does not look for negative indices then, and the loops become vector ones
    for q in range(basis.shape[1]):
        own = u(to + q * by)
        for p in range(u(width)):
            out[own + p] = 0
        for k in range(basis.shape[0]):
            factor, other = basis[k, q], u(first + k * step)
            for p in range(u(width)):
                out[own + p] += factor * right[other + p]


@parallel_kernel
def _convolve(grid, x, y, z, x_back, y_back, z_back, eigenvalues):
    n_x, n_y, n_z, width = grid.shape
    m_x, m_y, m_z = eigenvalues.shape
    flat = grid.reshape(-1)
    waves = np.empty((n_x, m_y, m_z, width), grid.dtype)
    flat_waves = waves.reshape(-1)
    row, plane = m_z * width, m_y * m_z * width
    for i in nb.prange(n_x):
        lines = np.empty(n_y * row, grid.dtype)
        for j in range(n_y):
            _project(z, flat, (i * n_y + j) * n_z * width, width, width, lines, j * row, width)
        _project(y, lines, 0, row, row, flat_waves, i * plane, row)
    for place in nb.prange(m_y * m_z):
        line = np.empty((m_x, width), grid.dtype)
        flat_line = line.reshape(-1)
        _project(x, flat_waves, place * width, plane, width, flat_line, 0, width)
        for k in range(m_x):
            line[k] *= eigenvalues[k, place // m_z, place % m_z]
        _project(x_back, flat_line, 0, width, width, flat_waves, place * width, plane)
    for i in nb.prange(n_x):
        lines = np.empty(n_y * row, grid.dtype)
        _project(y_back, flat_waves, i * plane, row, row, lines, 0, row)
        for j in range(n_y):
            _project(z_back, lines, j * row, width, width, flat, (i * n_y + j) * n_z * width, width)
