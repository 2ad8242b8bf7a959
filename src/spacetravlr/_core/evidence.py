r"""Bayesian linear model with one prior variance a block of features, learned from the data (ARD).

.. math:: y = A w + \epsilon, \quad w_g \sim N(0, v_g I), \quad \epsilon \sim N(0, \sigma^2 I)

Blocks may be added, dropped and judged without passing over the cells again: everything but ``A`` itself lives in
:math:`A^\top A` and :math:`A^\top y`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.lapack import inverse_and_logdet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._types import Bools, Floats, Ints

_MIN_VARIANCE, _MAX_VARIANCE = 1e-8, 1e3


class Posterior(NamedTuple):
    """Posterior of the weights and the log evidence of the model (up to a constant that depends on ``n`` alone)."""

    mean: Floats
    covariance: Floats
    log_evidence: float


class BlockModel:
    """Blocks of features, their prior variances and the noise variance."""

    def __init__(self, y: Floats, noise: float) -> None:
        self.y = y
        self.noise = noise
        self.features = np.empty((len(y), 0))
        self.sizes = np.empty(0, dtype=int)
        self.variances = np.empty(0)
        self._gram = np.empty((0, 0))
        self._cross = np.empty(0)
        self._yy = float(y @ y)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def offsets(self) -> Ints:
        """Where each block starts, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def block(self, i: int) -> Ints:
        """Feature indices of block ``i``."""
        offsets = self.offsets
        return np.arange(offsets[i], offsets[i + 1])

    def add(self, blocks: Sequence[Floats], variances: Sequence[float]) -> None:
        """Append blocks of features (cells x features each)."""
        new = np.hstack(blocks)
        corner = self.features.T @ new
        self._gram = np.block([[self._gram, corner], [corner.T, new.T @ new]])
        self._cross = np.concatenate([self._cross, new.T @ self.y])
        self.features = np.hstack([self.features, new])
        self.sizes = np.concatenate([self.sizes, [b.shape[1] for b in blocks]])
        self.variances = np.concatenate([self.variances, variances])

    def keep(self, mask: Bools) -> None:
        """Keep the blocks where ``mask`` is true."""
        if mask.all():
            return
        columns = np.repeat(mask, self.sizes)
        self.features = self.features[:, columns]
        self._gram = self._gram[np.ix_(columns, columns)]
        self._cross = self._cross[columns]
        self.sizes, self.variances = self.sizes[mask], self.variances[mask]

    def posterior(self) -> Posterior:
        """Posterior at the current variances."""
        prior = np.repeat(self.variances, self.sizes)
        precision = self._gram / self.noise
        precision[np.diag_indices_from(precision)] += 1.0 / prior
        covariance, logdet = inverse_and_logdet(precision)
        mean = covariance @ self._cross / self.noise
        logdet += float(np.log(prior).sum()) + len(self.y) * np.log(self.noise)
        fit = (self._yy - float(mean @ self._cross)) / self.noise
        return Posterior(mean, covariance, -0.5 * (logdet + fit))

    def learn(self, n_steps: int) -> Posterior:
        r"""Update the variances by MacKay's fixed point and return the posterior.

        .. math:: v_g = \frac{\lVert w_g \rVert^2}{\gamma_g}, \quad
            \gamma_g = m_g - \frac{\mathrm{tr} \Sigma_{gg}}{v_g}, \quad
            \sigma^2 = \frac{\lVert y - A w \rVert^2}{n - \sum_g \gamma_g}
        """
        starts = self.offsets[:-1]
        for _ in range(n_steps):
            mean, covariance, _ = self.posterior()
            trace = np.add.reduceat(np.diagonal(covariance), starts)
            squared = np.add.reduceat(mean**2, starts)
            determined = np.maximum(self.sizes - trace / self.variances, 1e-6)
            self.variances = np.clip(squared / determined, _MIN_VARIANCE, _MAX_VARIANCE)
            residual = self._yy - 2 * mean @ self._cross + mean @ self._gram @ mean
            freedom = max(len(self.y) - determined.sum(), 1.0)
            self.noise = max(residual / freedom, 1e-6 * self._yy / len(self.y), 1e-12)
        return self.posterior()

    def log_bayes_factors(self, posterior: Posterior, sets: Sequence[Sequence[int]]) -> Floats:
        r"""Log Bayes factor of each set of blocks against their absence (Savage-Dickey density ratio at zero).

        .. math:: \log B_g = \tfrac12 \left( \log |\Sigma_{gg}| - \log |D_g| + w_g^\top \Sigma_{gg}^{-1} w_g \right)
        """
        prior = np.repeat(self.variances, self.sizes)
        factors = np.empty(len(sets))
        for i, blocks in enumerate(sets):
            index = np.concatenate([self.block(b) for b in blocks])
            weights = posterior.mean[index]
            inverse, logdet = inverse_and_logdet(posterior.covariance[np.ix_(index, index)])
            factors[i] = 0.5 * (logdet - np.log(prior[index]).sum() + weights @ inverse @ weights)
        return factors
