r"""Inverse Cholesky factor of an arrow matrix: groups that only meet in a common border.

.. math::
    A = \begin{pmatrix} C_1 & & B_1^\top \\ & \ddots & \vdots \\ B_1 & \cdots & D \end{pmatrix}, \qquad
    A^{-1} = F^\top F, \qquad
    F = \begin{pmatrix} K_1 & & \\ & \ddots & \\ -K_S B_1 K_1^\top K_1 & \cdots & K_S \end{pmatrix}

with :math:`C_g^{-1} = K_g^\top K_g` and the Schur complement :math:`S = D - \sum_g B_g K_g^\top K_g B_g^\top`,
:math:`S^{-1} = K_S^\top K_S`. Weights that each belong to one cell type make such matrices: no cell has two types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spacetravlr._core.kernels import kernel
from spacetravlr._core.linalg.cholesky import inverse_factor_and_logdet

if TYPE_CHECKING:
    from spacetravlr._types import Floats


def arrow_factor(groups: Floats, border: Floats, corner: Floats) -> tuple[Floats, float]:
    """Inverse of the lower Cholesky factor, and the log determinant.

    Parameters
    ----------
    groups
        The blocks C (groups x m x m), overwritten.
    border
        The blocks B (groups x d x m).
    corner
        The block D (d x d), overwritten; its dtype is that of the result.

    Returns
    -------
    The factor, (groups * m + d) squared, and the log determinant.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite.
    """
    n_groups, d, m = border.shape
    if n_groups * m == 0:
        return inverse_factor_and_logdet(corner)
    logdet = _invert_groups(groups)
    if not np.isfinite(logdet):
        msg = "Expected a positive definite matrix; a group of it is not."
        raise np.linalg.LinAlgError(msg)
    inverse = groups.astype(corner.dtype)
    whitened = border @ inverse.transpose(0, 2, 1)
    flat = whitened.transpose(1, 0, 2).reshape(d, n_groups * m)
    corner -= flat @ flat.T
    rest, logdet_rest = inverse_factor_and_logdet(corner)
    first = n_groups * m
    factor = np.zeros((first + d, first + d), corner.dtype)
    for g in range(n_groups):
        factor[g * m : (g + 1) * m, g * m : (g + 1) * m] = inverse[g]
    np.matmul(-rest, (whitened @ inverse).transpose(1, 0, 2).reshape(d, first), out=factor[first:, :first])
    factor[first:, first:] = rest
    return factor, logdet + logdet_rest


@kernel
def _invert_groups(groups):  # type: ignore[no-untyped-def]
    """Turn matrices into their inverse lower Cholesky factors; the sum of log determinants, NaN if one has none."""
    logdet, m = 0.0, groups.shape[1]
    row = np.empty(m)
    for g in range(groups.shape[0]):
        a = groups[g]
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
        for i in range(m):
            row[:i] = 0.0
            for k in range(i):
                for j in range(k + 1):
                    row[j] += a[i, k] * a[k, j]
            a[i, i] = 1.0 / a[i, i]
            for j in range(i):
                a[i, j] = -a[i, i] * row[j]
            a[i, i + 1 :] = 0.0
    return logdet
