r"""What some columns of a regression explain beyond all others, and with what error.

With a Gaussian prior on the coefficients of each group of columns, :math:`w_k \sim N(0, v_{g(k)})`, the rest of a
regression is partialled out of a response :math:`y` and of tested columns :math:`x` by the same ridge (Frisch & Waugh
1933),

.. math:: e = y - A_r (A_r^\top A_r + \Lambda_r)^{-1} A_r^\top y, \qquad
    \tilde x = x - A_r (A_r^\top A_r + \Lambda_r)^{-1} A_r^\top x

and the score :math:`\tilde x^\top e` is summed over spatial blocks. Its variance is estimated from the blocks and is
therefore valid whatever the correlation of neighbouring cells. Because both factors are residuals, incomplete removal
of the rest in one of them, due to the penalty, does little harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._types import Bools, Floats, Ints

_N_STEPS = 15
_START = 0.01  # variance of each coefficient before anything is known
_LEAST, _MOST = 1e-8, 1e2
_FREE = 1e-6  # penalty per cell of columns that are not shrunk: for numbers only
_LEAST_LEFT = 0.05  # of the variance of a score


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
    penalty: Floats
    """What was added to the squares of each column."""

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
        lower, _ = linalg.lapack.dtrtri(lower, lower=1, overwrite_c=1)
        shrunk = penalty * np.einsum("ij,ij->j", lower, lower)  # times the diagonal of the inverse
        determined = np.bincount(group, 1 - shrunk, minlength=n_groups)
        left = square - 2 * weights @ cross + weights @ gram @ weights
        noise = max(left / max(n - determined.sum(), 1.0), 1e-12)
        squares = np.bincount(group, weights**2, minlength=n_groups)
        variance = np.clip(squares / np.maximum(determined, 1e-9), _LEAST, _MOST)
    return Ridge(lower.T @ lower, weights, np.asarray(noise), variance, penalty)


class LeftOut:
    r"""A regression without one of several sets of its columns at a time, for many tested columns at once.

    With :math:`K` the inverse of all penalised cross products, the coefficients without the columns :math:`m` follow
    from those with them, :math:`P_m = K - K_{:m} K_{mm}^{-1} K_{m:}`, so that nothing is fitted again and only
    :math:`K A^\top X` and :math:`A (P_m A^\top X)` pass over all columns, once for the tested columns of all sets.

    Parameters
    ----------
    ridge
        The regression.
    sets
        Columns that are left out together.
    """

    def __init__(self, ridge: Ridge, sets: Sequence[Ints]) -> None:
        self._ridge = ridge
        self._sets = sets
        self._out = [ridge.without(columns) for columns in sets]

    def of_response(self) -> Floats:
        """Coefficients of the response without each set, columns x sets."""
        weights = np.repeat(self._ridge.weights[:, None], len(self._sets), axis=1)
        return self._drop(weights, np.arange(len(self._sets)))

    def residuals(self, a: Floats, x: Floats, of: Ints) -> tuple[Floats, Floats]:
        r"""Residuals of tested columns, and the share of the variance of their scores that is left.

        Let :math:`M` be the operator that partials out the rest. If the rest follows its priors, the variance of
        :math:`\tilde x^\top e` in units of the noise is :math:`\tilde x^\top M \tilde x`, not
        :math:`\tilde x^\top \tilde x` as for sums over independent cells, because a ridge removes less than a
        projection each time. The two differ by :math:`v^\top P_m v`, with :math:`v` the penalties times coefficients.

        Parameters
        ----------
        a
            All columns of the regression, cells x columns.
        x
            Tested columns, cells x tested, linear in those of their set or any others.
        of
            Number of the set that each is regressed without, in order.

        Returns
        -------
        Residuals :math:`\tilde x`, cells x tested, and the share of the variance that is left, (tested,).
        """
        weights = self._drop(self._ridge.inverse @ (a.T @ x).astype(np.float64), of)
        left = x - a @ weights.astype(a.dtype)
        squares = np.einsum("ij,ij->j", left, left, dtype=np.float64)
        weights *= self._ridge.penalty[:, None]
        taken = np.einsum("ij,ij->j", weights, self._drop(self._ridge.inverse @ weights, of))
        return left, np.clip(1 - taken / np.maximum(squares, 1e-12), _LEAST_LEFT, 1.0)

    def _drop(self, weights: Floats, of: Ints) -> Floats:
        """Turn coefficients on all columns into those on all but the set of each, in place."""
        numbers, first = np.unique(of, return_index=True)
        for s, start, stop in zip(numbers, first, np.append(first[1:], len(of)), strict=True):
            columns, here = self._sets[s], weights[:, start:stop]
            here -= self._out[s] @ here[columns]
            here[columns] = 0
        return weights
