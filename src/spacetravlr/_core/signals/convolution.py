r"""Convolutions of a small grid with an even kernel, by matrix products instead of FFTs.

A kernel that is even along every axis has products of cosines and sines as eigenvectors, so a convolution is: project
on the waves of each axis, scale, and project back. A smooth kernel has hardly any waves near the finest, so that the
bases are narrower than the grid; and a matrix product keeps its numbers in registers, where an FFT over many columns
goes through memory at every step. Up to some hundred points an axis that is several times as fast.

Every column is computed on its own, in the same order whatever stands beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.linalg.registers import in_all_lanes, multiply_add, unpack, vector_of, zeros

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Columns of a grid have to be a multiple of this.
LANES = 8
_WIDE = 16
_ROWS = 6  # rows x 16 lanes of sums fill the registers
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
    """Convolve every column of ``grid`` (three axes x columns, a multiple of 8) in place, on numba's threads."""
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


def _products(n_rows: int, lanes: int) -> Any:
    """Some rows of a product of matrices, in some columns."""

    @intrinsic(prefer_literal=False)
    def products(
        typing: Any, left: Any, row: Any, right: Any, first: Any, step: Any, out: Any, to: Any, by: Any
    ) -> Any:
        n = types.intp
        return types.void(left, n, right, n, n, out, n, n), codegen

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, row, right, first, step, out, to, by = unpack(context, builder, signature, args)
        vector = vector_of(ir.FloatType(), lanes)
        n_terms, n_columns = cgutils.unpack_tuple(builder, left.shape)

        def lanes_at(array: Any, start: Any, k: Any, stride: Any) -> Any:
            place = builder.add(start, builder.mul(k, stride))
            return builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer())

        totals = zeros(builder, vector, n_rows)
        with cgutils.for_range(builder, n_terms, intp=row.type) as loop:
            values = builder.load(lanes_at(right, first, loop.index, step), align=4)
            place = builder.add(builder.mul(loop.index, n_columns), row)
            for r, total in enumerate(totals):
                factor = builder.load(builder.gep(left.data, [builder.add(place, ir.Constant(row.type, r))]))
                added = multiply_add(builder, in_all_lanes(builder, factor, lanes), values, builder.load(total))
                builder.store(added, total)
        for r, total in enumerate(totals):
            here = builder.add(row, ir.Constant(row.type, r))
            builder.store(builder.load(total), lanes_at(out, to, here, by), align=4)
        return context.get_dummy_value()

    return products


_many_wide, _one_wide = _products(_ROWS, _WIDE), _products(1, _WIDE)
_many_narrow, _one_narrow = _products(_ROWS, LANES), _products(1, LANES)


@kernel
def _project(basis, right, first, step, width, out, to, by):  # type: ignore[no-untyped-def]
    """Columns of ``basis`` times rows of ``width`` numbers, one every ``step``; written to rows every ``by``."""
    p, n_rows = 0, basis.shape[1]
    while p < width:
        q, wide = 0, p + _WIDE <= width
        while q < n_rows:
            many = q + _ROWS <= n_rows
            if wide and many:
                _many_wide(basis, q, right, first + p, step, out, to + p, by)
            elif wide:
                _one_wide(basis, q, right, first + p, step, out, to + p, by)
            elif many:
                _many_narrow(basis, q, right, first + p, step, out, to + p, by)
            else:
                _one_narrow(basis, q, right, first + p, step, out, to + p, by)
            q += _ROWS if many else 1
        p += _WIDE if wide else LANES


@parallel_kernel
def _convolve(grid, x, y, z, x_back, y_back, z_back, eigenvalues):  # type: ignore[no-untyped-def]
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
