"""Inverse Cholesky factor of a symmetric positive definite matrix, with the interpreter lock released.

SciPy's own wrappers of these routines hold the lock, so that threads that each fit a target would wait for one another;
the routines themselves, exported by SciPy for compiled callers, are called here through ctypes, which releases it.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cython_lapack

if TYPE_CHECKING:
    from spacetravlr._types import Floats

_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _routine(name: str, n_arguments: int):  # type: ignore[no-untyped-def]
    capsule = cython_lapack.__pyx_capi__[name]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(_pointer(capsule, _name(capsule)))


_potrf = {np.dtype(np.float64): _routine("dpotrf", 5), np.dtype(np.float32): _routine("spotrf", 5)}
_trtri = {np.dtype(np.float64): _routine("dtrtri", 6), np.dtype(np.float32): _routine("strtri", 6)}
_UPPER, _NOT_UNIT = ctypes.c_char(b"U"), ctypes.c_char(b"N")  # the lower triangle of a C-ordered array is their upper


def inverse_factor_and_logdet(matrix: Floats) -> tuple[Floats, float]:
    r"""Inverse of the lower Cholesky factor, and the log determinant: :math:`A^{-1} = L^{-\top} L^{-1}`.

    Parameters
    ----------
    matrix
        Symmetric and positive definite (n x n), C-ordered, float64 or float32; overwritten. Only the lower triangle is
        read.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite.
    """
    pivot = _call(_potrf[matrix.dtype], matrix, _UPPER)
    if pivot != 0:
        msg = f"Expected a positive definite matrix; pivot {pivot} of {len(matrix)} is not positive."
        raise np.linalg.LinAlgError(msg)
    logdet = 2.0 * float(np.log(np.diagonal(matrix), dtype=np.float64).sum())
    _call(_trtri[matrix.dtype], matrix, _UPPER, _NOT_UNIT)
    return np.tril(matrix), logdet


def _call(routine, matrix: Floats, *flags: ctypes.c_char) -> int:  # type: ignore[no-untyped-def]
    if not len(matrix):
        return 0
    n, info = ctypes.c_int(len(matrix)), ctypes.c_int(0)
    routine(
        *[ctypes.byref(flag) for flag in flags],
        ctypes.byref(n),
        matrix.ctypes.data_as(ctypes.c_void_p),
        ctypes.byref(n),
        ctypes.byref(info),
    )
    return info.value
