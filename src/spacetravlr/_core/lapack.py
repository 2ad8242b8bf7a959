"""Cholesky factor and inverse of a symmetric positive definite matrix, with the interpreter lock released.

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


def _routine(name: str):  # type: ignore[no-untyped-def]
    capsule = cython_lapack.__pyx_capi__[name]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)(_pointer(capsule, _name(capsule)))


_dpotrf, _dpotri = _routine("dpotrf"), _routine("dpotri")


def inverse_and_logdet(matrix: Floats) -> tuple[Floats, float]:
    """Inverse and log determinant of a symmetric positive definite matrix (n x n, float64), which is overwritten.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite.
    """
    inverse = np.ascontiguousarray(matrix, dtype=np.float64)
    if not len(inverse):
        return inverse, 0.0
    n, info = ctypes.c_int(len(inverse)), ctypes.c_int(0)
    upper = ctypes.c_char(b"U")  # the lower triangle of a C-ordered array
    arguments = [ctypes.byref(upper), ctypes.byref(n), inverse.ctypes.data_as(ctypes.c_void_p), ctypes.byref(n)]
    _dpotrf(*arguments, ctypes.byref(info))
    if info.value != 0:
        msg = f"Expected a positive definite matrix; pivot {info.value} of {len(inverse)} is not positive."
        raise np.linalg.LinAlgError(msg)
    logdet = 2.0 * float(np.log(np.diagonal(inverse)).sum())
    _dpotri(*arguments, ctypes.byref(info))
    lower = np.tril(inverse)
    lower += np.tril(inverse, -1).T
    return lower, logdet
