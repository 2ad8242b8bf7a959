"""Inverse Cholesky factor of a symmetric positive definite matrix, with the interpreter lock released.

SciPy's wrappers of these routines hold the lock, so threads that each fit a target would wait for each other. Here the
routines, which SciPy exports for compiled callers, are called through ctypes, which releases the lock. The factor is
inverted by recursive halving, so most of the work is in products of triangles. The library's own inverse works column
by column and takes two to three times as long at some hundred rows.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from numba.extending import get_cython_function_address

from spacetravlr._core.kernels import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacetravlr._types import Floats


def _routine(library: str, name: str, n_arguments: int) -> Any:
    address = get_cython_function_address(f"scipy.linalg.cython_{library}", name)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address)


_DOUBLE, _SINGLE = np.dtype(np.float64), np.dtype(np.float32)
_potrf = {_DOUBLE: _routine("lapack", "dpotrf", 5), _SINGLE: _routine("lapack", "spotrf", 5)}
_trmm = {_DOUBLE: _routine("blas", "dtrmm", 11), _SINGLE: _routine("blas", "strmm", 11)}
_number = {_DOUBLE: ctypes.c_double, _SINGLE: ctypes.c_float}
_UPPER, _NOT = ctypes.c_char(b"U"), ctypes.c_char(b"N")  # the lower triangle of a C-ordered array is their upper
_LEFT, _RIGHT = ctypes.c_char(b"L"), ctypes.c_char(b"R")
_SMALL = 64  # rows that are inverted one by one
_JITTER = (0.0, 1e-7, 1e-6, 1e-5, 1e-4)  # single precision rounds products at about the second


def inverse_factor_and_logdet(matrix: Floats) -> tuple[Floats, float]:
    r"""Inverse of the lower Cholesky factor, and the log determinant: :math:`A^{-1} = L^{-\top} L^{-1}`.

    Parameters
    ----------
    matrix
        Symmetric and positive definite (n x n), C-ordered, float64 or float32; overwritten by the factor. Only the
        lower triangle is read.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite.
    """
    if not len(matrix):
        return matrix, 0.0
    n, info = ctypes.c_int(len(matrix)), ctypes.c_int(0)
    _call(_potrf[matrix.dtype], _UPPER, n, ctypes.c_void_p(matrix.ctypes.data), n, info)
    if info.value != 0:
        msg = f"Expected a positive definite matrix; pivot {info.value} of {len(matrix)} is not positive."
        raise np.linalg.LinAlgError(msg)
    logdet = 2.0 * float(np.log(np.diagonal(matrix), dtype=np.float64).sum())
    _invert(matrix, 0, len(matrix))
    return matrix, logdet


def _invert(matrix: Floats, start: int, stop: int) -> None:
    r"""Invert the lower triangle of rows and columns ``start:stop`` in place, and clear what lies above.

    .. math:: \begin{pmatrix} A & \\ B & C \end{pmatrix}^{-1} =
        \begin{pmatrix} A^{-1} & \\ -C^{-1} B A^{-1} & C^{-1} \end{pmatrix}
    """
    if stop - start <= _SMALL:
        invert_rows(matrix, start, stop)
        return
    middle = start + ((stop - start) // 2 + 15) // 16 * 16
    _invert(matrix, start, middle)
    _invert(matrix, middle, stop)
    matrix[start:middle, middle:stop] = 0
    _multiply_below(matrix, start, middle, stop, _LEFT, -1.0)
    _multiply_below(matrix, start, middle, stop, _RIGHT, 1.0)


def multiply_below(matrix: Floats, middle: int, factor: float) -> None:
    r"""Replace the block below the diagonal of a square matrix by ``factor`` :math:`\times C B`, in place.

    .. math:: \begin{pmatrix} A & \\ B & C \end{pmatrix}

    Parameters
    ----------
    matrix
        C-ordered, float64 or float32; C is lower triangular.
    middle
        First row of B and C, and first column of C.
    factor
        A number.
    """
    _multiply_below(matrix, 0, middle, len(matrix), _RIGHT, factor)


def _multiply_below(matrix: Floats, start: int, middle: int, stop: int, side: ctypes.c_char, factor: float) -> None:
    """Multiply B by A (which stands left of it where columns come first) or by C."""
    lead, sizes = ctypes.c_int(len(matrix)), (ctypes.c_int(middle - start), ctypes.c_int(stop - middle))
    triangle = _at(matrix, start, start) if side is _LEFT else _at(matrix, middle, middle)
    scale = _number[matrix.dtype](factor)
    _call(
        _trmm[matrix.dtype], side, _UPPER, _NOT, _NOT, *sizes, scale, triangle, lead, _at(matrix, middle, start), lead
    )


def until_definite(attempt: Callable[[float], tuple[Floats, float]]) -> tuple[Floats, float]:
    """Factorise with the least part added to the diagonal, see :func:`with_jitter`, that makes it possible."""
    for part in _JITTER[:-1]:
        try:
            return attempt(part)
        except np.linalg.LinAlgError:
            continue
    return attempt(_JITTER[-1])


def with_jitter(matrix: Floats, part: float) -> Floats:
    """Multiply the diagonal by ``1 + part`` in place."""
    diagonal = np.arange(matrix.shape[-1])
    matrix[..., diagonal, diagonal] *= 1.0 + part
    return matrix


def _at(matrix: Floats, row: int, column: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(matrix.ctypes.data + (row * len(matrix) + column) * matrix.itemsize)


def _call(routine: Any, *arguments: Any) -> None:
    """Call a Fortran routine: pointers as they are, numbers and flags by reference."""
    routine(*(a if isinstance(a, ctypes.c_void_p) else ctypes.byref(a) for a in arguments))


@kernel
def small_cholesky(a, m):
    """Factorise the lower triangle of the first ``m`` rows in place; returns its log determinant, NaN without one."""
    logdet = 0.0
    for i in range(m):
        for j in range(i + 1):
            value = a[i, j]
            for k in range(j):
                value -= a[i, k] * a[j, k]
            if i != j:
                a[i, j] = value / a[j, j]
            elif value > 0:
                a[i, i] = np.sqrt(value)
                logdet += np.log(value)
            else:
                return np.nan
    return logdet


@kernel
def invert_rows(matrix, start, stop):
    """Invert a lower triangle in place, row by row from those of the inverse above: so all loops run along rows."""
    row = np.empty(stop - start, matrix.dtype)
    for i in range(start, stop):
        row[: i - start] = 0
        for k in range(start, i):
            factor = matrix[i, k]
            for j in range(k + 1 - start):
                row[j] += factor * matrix[k, start + j]
        matrix[i, i] = 1 / matrix[i, i]
        for j in range(i - start):
            matrix[i, start + j] = -matrix[i, i] * row[j]
        matrix[i, i + 1 : stop] = 0
