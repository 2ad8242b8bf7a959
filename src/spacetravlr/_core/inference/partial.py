r"""What some columns of a regression explain beyond all others, and how surely.

With a Gaussian prior on the coefficients of each group of columns, :math:`w_k \sim N(0, v_{g(k)})`, the rest of a
regression is partialled out of a response :math:`y` and of tested columns :math:`x` by the same ridge (Frisch & Waugh
1933),

.. math:: e = y - A_r (A_r^\top A_r + \Lambda_r)^{-1} A_r^\top y, \qquad
    \tilde x = x - A_r (A_r^\top A_r + \Lambda_r)^{-1} A_r^\top x

and the score :math:`\tilde x^\top e` is summed over spatial blocks. Its variance comes from the blocks, so that it
holds whatever the correlation of neighbouring cells. As both sides are residuals, what a penalty leaves of the rest in
one of them does little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg, special

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints

_N_STEPS = 15
_START = 0.01  # variance of each coefficient before anything is known
_LEAST, _MOST = 1e-8, 1e2
_FREE = 1e-6  # penalty per cell of columns that are not shrunk: for numbers only
_LEAST_P = 1e-15


class Ridge(NamedTuple):
    """A regression with one learned variance for each group of columns."""

    inverse: Floats
    """Inverse of the penalised cross products, columns x columns."""
    weights: Floats
    """Coefficients, (columns,)."""
    noise: Floats
    """Variance of what is left, a number."""
    variance: Floats
    """Variance of the coefficients of each group."""

    def without(self, columns: Ints) -> Floats:
        r"""From all columns to what the regression without some leaves of them, columns x ``len(columns)``.

        ``A @ result`` are the residuals :math:`\tilde x` of ``columns`` on all others.
        """
        block = self.inverse[np.ix_(columns, columns)]
        return np.asarray(linalg.solve(block, self.inverse[:, columns].T, assume_a="pos").T)


def learned_ridge(gram: Floats, cross: Floats, square: float, n: int, group: Ints, free: Bools) -> Ridge:
    """Learn the variance of each group from the evidence (MacKay's fixed point).

    Parameters
    ----------
    gram, cross
        Cross products of the columns (of about unit variance), and of the columns with the response.
    square
        Sum of squares of the response.
    n
        Cells.
    group
        Group of each column.
    free
        Columns that are not shrunk.
    """
    n_groups = int(group.max()) + 1
    variance, noise = np.full(n_groups, _START), max(square / n, 1e-12)
    for _ in range(_N_STEPS):
        penalty = np.where(free, _FREE * n, noise / variance[group])
        lower = linalg.cholesky(gram + np.diag(penalty), lower=True, overwrite_a=True, check_finite=False)
        weights = linalg.cho_solve((lower, True), cross, check_finite=False)
        inverse, _ = linalg.lapack.dpotri(lower, lower=1)
        shrunk = penalty * np.diag(inverse)
        determined = np.bincount(group, 1 - shrunk, minlength=n_groups)
        left = square - 2 * weights @ cross + weights @ gram @ weights
        noise = max(left / max(n - determined.sum(), 1.0), 1e-12)
        squares = np.bincount(group, weights**2, minlength=n_groups)
        variance = np.clip(squares / np.maximum(determined, 1e-9), _LEAST, _MOST)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    return Ridge(inverse, weights, np.asarray(noise), variance)


def remaining(ridge: Ridge, out: Floats, columns: Ints, a: Floats, x: Floats) -> Floats:
    r"""Part of the variance of a score that is left once the rest of the regression is taken out of it, (tested,).

    With :math:`M` what takes out the rest, :math:`\tilde x^\top e` has the variance
    :math:`\tilde x^\top M \tilde x` in units of the noise where the rest is as its priors say, and not
    :math:`\tilde x^\top \tilde x`, which the products of single cells have: a penalty takes out less than a projection
    each time.

    Parameters
    ----------
    ridge
        The regression.
    out
        What ``ridge.without(columns)`` returns.
    columns
        Columns that are left out of it.
    a
        All columns, cells x columns.
    x
        Tested columns :math:`\tilde x`, cells x tested.
    """
    cross = (a.T @ x.astype(a.dtype)).astype(np.float64)
    weights = ridge.inverse @ cross
    weights -= out @ weights[columns]
    squares = (x.astype(np.float64) ** 2).sum(axis=0)
    return np.clip(1 - (cross * weights).sum(axis=0) / np.maximum(squares, 1e-12), 0.05, 1.0)


def block_sums(values: Floats, block: Ints) -> Floats:
    """Sum over the cells of each block: (cells x columns) to (blocks x columns)."""
    n_blocks = int(block.max()) + 1
    return np.stack([np.bincount(block, column, minlength=n_blocks) for column in values.T], axis=1)


def block_t(scores: Floats) -> Floats:
    """Score over its standard error from blocks, (columns,); zero where a column has none.

    Parameters
    ----------
    scores
        Sums of the products of two residuals in each block, blocks x columns.
    """
    error = np.sqrt((scores**2).sum(axis=0))
    return np.where(error > 0, scores.sum(axis=0) / np.where(error > 0, error, 1.0), 0.0)


def p_of_t(t: Floats, degrees: float) -> Floats:
    """Two-sided p-values."""
    return np.asarray(2 * special.stdtr(degrees, -np.abs(t)))


def cauchy_combination(p: Floats) -> float:
    """One p-value of several, however they depend on one another (Liu & Xie 2020); NaN of none."""
    p = np.asarray(p, dtype=np.float64)
    p = np.clip(p[np.isfinite(p)], _LEAST_P, 1 - _LEAST_P)
    if not len(p):
        return np.nan
    if len(p) == 1:
        return float(p[0])
    mean = float(np.mean(1 / np.tan(np.pi * p)))
    return float(np.arctan2(1.0, mean) / np.pi)
