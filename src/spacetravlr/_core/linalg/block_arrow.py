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
from spacetravlr._core.linalg.cholesky import inverse_factor_and_logdet, invert_rows, multiply_below, small_cholesky

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
    of_corner, logdet_of_corner = inverse_factor_and_logdet(corner)
    first = n_groups * m
    factor = np.zeros((first + d, first + d), corner.dtype)
    for g in range(n_groups):
        factor[g * m : (g + 1) * m, g * m : (g + 1) * m] = inverse[g]
        np.matmul(whitened[g], inverse[g], out=factor[first:, g * m : (g + 1) * m])
    factor[first:, first:] = of_corner
    multiply_below(factor, first, -1.0)
    return factor, logdet + logdet_of_corner


@kernel
def _invert_groups(groups):
    """Turn matrices into their inverse lower Cholesky factors; the sum of log determinants, NaN if one has none."""
    logdet = 0.0
    for g in range(groups.shape[0]):
        of_group = small_cholesky(groups[g], groups.shape[1])
        if np.isnan(of_group):
            return np.nan
        logdet += of_group
        invert_rows(groups[g], 0, groups.shape[1])
    return logdet
