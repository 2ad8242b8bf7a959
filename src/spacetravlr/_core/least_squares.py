r"""Pooled least squares: one coefficient for each regressor, one intercept for each cell type.

.. math::

    y_j = a_{c(j)} + \sum_k b_k x_{jk} + \epsilon_j

The simplest baseline for a model with varying coefficients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_SINGULAR = 1e-9  # eigenvalues of the correlation matrix below this are directions without data


def pooled_least_squares(x: Floats, y: Floats, cell_type: Ints) -> Floats:
    """Slopes of pooled least squares, (regressors,).

    Parameters
    ----------
    x
        Cells x regressors.
    y
        Target, (cells,).
    cell_type
        Type of each cell, numbered from zero; each has its own intercept.

    Returns
    -------
    Slopes of least size, in standardised units, where regressors are linear combinations of others; zero for
    regressors that do not vary within types.
    """
    x, y = (within_types(values.astype(np.float64), cell_type) for values in (x, y))
    spread = np.sqrt(np.mean(x**2, axis=0))
    used = spread > 1e-6 * max(spread.max(initial=0.0), 1e-12)
    slopes = np.zeros(x.shape[1])
    if used.any():
        z = x[:, used] / spread[used]
        values, vectors = np.linalg.eigh(z.T @ z / len(z))
        good = values > _SINGULAR * values[-1]
        along = vectors[:, good].T @ (z.T @ y / len(z))
        slopes[used] = vectors[:, good] @ (along / values[good]) / spread[used]
    return slopes


def within_types(values: Floats, cell_type: Ints) -> Floats:
    """Values less their mean in the type of the cell."""
    size = np.maximum(np.bincount(cell_type), 1)
    columns = values.reshape(len(values), -1)
    means = np.stack([np.bincount(cell_type, weights=column) for column in columns.T], axis=1) / size[:, None]
    return (columns - means[cell_type]).reshape(values.shape)
