r"""Bayesian linear model with one prior variance a block of features, learned from the data (ARD).

.. math:: y = A w + \epsilon, \quad w_g \sim N(0, v_g I), \quad \epsilon \sim N(0, \sigma^2 I)

Blocks may be added, dropped and judged without passing over the cells again: everything but ``A`` itself lives in
:math:`A^\top A` and :math:`A^\top y`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.lapack import inverse_factor_and_logdet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike

    from spacetravlr._types import Bools, Floats, Ints

_MIN_VARIANCE, _MAX_VARIANCE = 1e-8, 1e3
_CHUNK = 2048  # cells whose products are summed in the precision of the features
_DIAGONALS = (0.0, 1e-7, 1e-6, 1e-5, 1e-4)  # single precision rounds products at about the second


class Posterior(NamedTuple):
    """Posterior of the weights and the log evidence of the model (up to a constant that depends on ``n`` alone)."""

    mean: Floats
    factor: Floats
    """Inverse of the lower Cholesky factor of the precision."""
    log_evidence: float

    @property
    def covariance(self) -> Floats:
        """Posterior covariance of the weights."""
        return self.factor.T @ self.factor


class BlockModel:
    """Blocks of features, their prior variances and the noise variance.

    Parameters
    ----------
    y
        Response (cells,).
    noise
        Noise variance to start from.
    dtype
        Of the features; their products are summed in float64 over chunks of cells.
    """

    def __init__(self, y: Floats, noise: float, *, dtype: DTypeLike = np.float64) -> None:
        self.y = np.asarray(y, dtype=np.float64)
        self.noise = noise
        self.sizes = np.empty(0, dtype=int)
        self.variances = np.empty(0)
        self._rows = np.empty((64, len(y)), dtype=dtype)
        self._products = np.empty((64, 64))
        self._cross = np.empty(0)
        self._yy = float(self.y @ self.y)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def n_features(self) -> int:
        """Features of all blocks."""
        return len(self._cross)

    @property
    def features(self) -> Floats:
        """Features x cells."""
        return self._rows[: self.n_features]

    @property
    def _gram(self) -> Floats:
        return self._products[: self.n_features, : self.n_features]

    @property
    def offsets(self) -> Ints:
        """Where each block starts, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def block(self, i: int) -> Ints:
        """Feature indices of block ``i``."""
        offsets = self.offsets
        return np.arange(offsets[i], offsets[i + 1])

    def add(self, blocks: Sequence[Floats], variances: Sequence[float]) -> None:
        """Append blocks of features (features x cells each)."""
        start, end = self.n_features, self.n_features + sum(len(b) for b in blocks)
        self._reserve(end)
        new = np.concatenate(blocks, axis=0, out=self._rows[start:end], casting="same_kind")
        corner, cross = np.zeros((end, end - start)), np.zeros(end - start)
        for first in range(0, len(self.y), _CHUNK):
            cells = slice(first, first + _CHUNK)
            corner += self._rows[:end, cells] @ new[:, cells].T
            cross += new[:, cells] @ self.y[cells].astype(new.dtype)
        self._products[:end, start:end] = corner
        self._products[start:end, :start] = corner[:start].T
        self._cross = np.concatenate([self._cross, cross])
        self.sizes = np.concatenate([self.sizes, [len(b) for b in blocks]])
        self.variances = np.concatenate([self.variances, variances])

    def _reserve(self, n_features: int) -> None:
        """Make room; twice as much as there was, so that adding block after block copies each feature a few times."""
        capacity = len(self._rows)
        if n_features <= capacity:
            return
        capacity = max(2 * capacity, n_features)
        rows, products = self.features, self._gram
        self._rows = np.empty((capacity, len(self.y)), dtype=rows.dtype)
        self._products = np.empty((capacity, capacity))
        self._rows[: len(rows)] = rows
        self._products[: len(rows), : len(rows)] = products

    def keep(self, mask: Bools) -> None:
        """Keep the blocks where ``mask`` is true."""
        if mask.all():
            return
        columns = np.flatnonzero(np.repeat(mask, self.sizes))
        first = int(np.argmin(mask))  # what lies before the first block to go stays where it is
        moved = columns[self.offsets[first] :]
        rows, products = self._rows[moved], self._gram[np.ix_(columns, columns)]
        self._cross = self._cross[columns]
        self.sizes, self.variances = self.sizes[mask], self.variances[mask]
        self._rows[self.n_features - len(moved) : self.n_features] = rows
        self._gram[:] = products

    def residual(self, mean: Floats) -> Floats:
        """What weights leave of the response (cells,)."""
        return self.y - mean.astype(self._rows.dtype) @ self.features

    def _precision(self, dtype: DTypeLike = np.float64) -> Floats:
        """Posterior precision of the weights."""
        precision = np.divide(self._gram, self.noise, dtype=dtype, casting="same_kind")
        precision[np.diag_indices_from(precision)] += (1.0 / np.repeat(self.variances, self.sizes)).astype(dtype)
        return precision

    def posterior(self) -> Posterior:
        """Posterior at the current variances."""
        factor, logdet = _factor(self._precision)
        mean = (factor @ self._cross) @ factor / self.noise
        logdet += float(self.sizes @ np.log(self.variances)) + len(self.y) * np.log(self.noise)
        fit = (self._yy - float(mean @ self._cross)) / self.noise
        return Posterior(mean, factor, -0.5 * (logdet + fit))

    def _moments(self) -> tuple[Floats, Floats]:
        """Posterior means and variances of the weights, in single precision where that does."""
        try:
            factor, _ = inverse_factor_and_logdet(self._precision(self._rows.dtype))
        except np.linalg.LinAlgError:
            factor, _ = _factor(self._precision)
        mean = (factor @ self._cross.astype(factor.dtype)) @ factor / self.noise
        return mean.astype(np.float64), np.einsum("ij,ij->j", factor, factor).astype(np.float64)

    def learn(self, n_steps: int) -> Posterior:
        r"""Update the variances by MacKay's fixed point and return the posterior.

        .. math:: v_g = \frac{\lVert w_g \rVert^2}{\gamma_g}, \quad
            \gamma_g = m_g - \frac{\mathrm{tr} \Sigma_{gg}}{v_g}, \quad
            \sigma^2 = \frac{\lVert y - A w \rVert^2}{n - \sum_g \gamma_g}
        """
        starts = self.offsets[:-1]
        for _ in range(n_steps):
            mean, variance = self._moments()
            trace = np.add.reduceat(variance, starts)
            squared = np.add.reduceat(mean**2, starts)
            determined = np.maximum(self.sizes - trace / self.variances, 1e-6)
            self.variances = np.clip(squared / determined, _MIN_VARIANCE, _MAX_VARIANCE)
            residual = self._yy - 2 * mean @ self._cross + mean @ (self._gram @ mean)
            freedom = max(len(self.y) - determined.sum(), 1.0)
            self.noise = max(residual / freedom, 1e-6 * self._yy / len(self.y), 1e-12)
        return self.posterior()

    def log_bayes_factors(self, posterior: Posterior, sets: Sequence[Sequence[int]]) -> Floats:
        r"""Log Bayes factor of each set of blocks against their absence (Savage-Dickey density ratio at zero).

        .. math:: \log B_g = \tfrac12 \left( \log |\Sigma_{gg}| - \log |D_g| + w_g^\top \Sigma_{gg}^{-1} w_g \right)
        """
        prior = np.repeat(self.variances, self.sizes)
        factors = np.empty(len(sets))
        offsets = self.offsets
        for i, blocks in enumerate(sets):
            index = np.concatenate([np.arange(offsets[b], offsets[b + 1]) for b in blocks])
            mine = posterior.factor[:, index]
            factor, logdet = _factor(lambda: mine.T @ mine)  # noqa: B023 - called at once
            whitened = factor @ posterior.mean[index]
            factors[i] = 0.5 * (logdet - np.log(prior[index]).sum() + whitened @ whitened)
        return factors


def _factor(matrix: Callable[[], Floats]) -> tuple[Floats, float]:
    """Inverse Cholesky factor and log determinant of what ``matrix`` makes.

    Where features are almost the same and the noise is small, rounding can leave a matrix that is not positive
    definite; its diagonal then grows by the least part that helps.
    """
    for part in _DIAGONALS[:-1]:
        try:
            return inverse_factor_and_logdet(_raised(matrix(), part))
        except np.linalg.LinAlgError:
            continue
    return inverse_factor_and_logdet(_raised(matrix(), _DIAGONALS[-1]))


def _raised(matrix: Floats, part: float) -> Floats:
    matrix[np.diag_indices_from(matrix)] *= 1.0 + part
    return matrix
