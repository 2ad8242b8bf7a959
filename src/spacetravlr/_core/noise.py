r"""Counting noise: how large it is in log-normalised counts, and independent halves of counts.

A count is a Poisson draw around what a cell expresses (Sarkar & Stephens 2021). Each molecule is kept with probability
:math:`p`, or goes to the other half:

.. math:: A \sim \mathrm{Binomial}(k, p), \quad B = k - A

so that :math:`A` and :math:`B` are independent Poisson counts of means :math:`p \mu` and :math:`(1 - p) \mu` where
:math:`k` is one of mean :math:`\mu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np
from scipy import sparse

from spacetravlr._core.kernels import kernel, parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_FLAT = 1e-9
_MANY = 400.0  # counts above which the variance is that of the tangent
_NODES = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)])  # three-point Gauss-Hermite quadrature
_WEIGHTS = np.array([1 / 6, 2 / 3, 1 / 6])


def thin(counts: Ints, fraction: float, rng: np.random.Generator) -> Ints:
    """Draw how many of each count's molecules are kept.

    Parameters
    ----------
    counts
        Whole numbers, at least zero, of any shape.
    fraction
        Probability of each molecule to be kept.
    rng
        Generator.

    Returns
    -------
    What is kept, of the shape of ``counts``; the other half is ``counts`` less that.
    """
    return rng.binomial(np.asarray(counts, dtype=np.int64), fraction)


def excess_variance(counts: Any, cell_type: Ints, n_types: int) -> tuple[Floats, Floats]:
    r"""How much of the variance of counts within cell types is more than counting noise.

    With :math:`\mu_{jg}` the mean of the type times the depth of the cell, counts that differ by counting noise alone
    have :math:`E (k - \mu)^2 = \mu`, and the variance of :math:`(k - \mu)^2 - k` is :math:`2 \mu^2`.

    Parameters
    ----------
    counts
        Cells x genes, an array or a sparse matrix.
    cell_type, n_types
        Type of each cell.

    Returns
    -------
    The share of each gene, :math:`\sum (k - \mu)^2 - k` over :math:`\sum (k - \mu)^2`, and the same sum in units of its
    standard error where there is nothing but noise; NaN for genes without counts.
    """
    matrix = sparse.csr_matrix(counts).astype(np.float64)
    depth = np.asarray(matrix.sum(axis=1)).ravel()
    square, mean, squared_mean = (np.zeros(matrix.shape[1]) for _ in range(3))
    for c in range(n_types):
        rows = np.flatnonzero(cell_type == c)
        if not len(rows) or not depth[rows].any():
            continue
        own, size = matrix[rows], depth[rows]
        rate = np.asarray(own.sum(axis=0)).ravel() / size.sum()
        fitted = rate**2 * (size @ size)
        square += np.asarray(own.multiply(own).sum(axis=0)).ravel() - 2 * rate * (own.T @ size) + fitted
        mean += rate * size.sum()
        squared_mean += fitted
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(square > _FLAT, (square - mean) / square, np.nan), (square - mean) / np.sqrt(2 * squared_mean)


def counting_scale(values: Floats, counts: Floats) -> Floats:
    r"""Scale :math:`c` of each cell in :math:`x = \log(1 + c k)`; NaN for a cell without counts.

    Parameters
    ----------
    values
        Log-normalised counts, cells x genes, natural logarithms.
    counts
        The counts.

    Raises
    ------
    ValueError
        If the values of a cell do not follow from its counts by one scale.
    """
    k = np.asarray(counts, dtype=np.float64)
    ratio = np.expm1(np.asarray(values, dtype=np.float64))
    found = k > 0
    total = k.sum(axis=1)
    scale = np.where(total > 0, ratio.sum(axis=1) / np.where(total > 0, total, 1.0), np.nan)
    close = np.isclose(ratio, scale[:, None] * k, rtol=2e-3, atol=1e-6) | (~found & (ratio == 0))
    if not close[total > 0].all():
        bad = float(1 - close[total > 0].mean())
        msg = f"{100 * bad:.3g} % of the values are not the log1p of the counts times one factor per cell"
        raise ValueError(msg)
    return scale


def log1p_moments(rate: Floats, scale: Floats, dispersion: Floats) -> tuple[Floats, Floats]:
    """Mean of log-normalised counts, and their variance around the true value, both cells x genes and float32.

    Parameters
    ----------
    rate
        Expected counts, cells x genes.
    scale
        Scale of each cell, (cells,).
    dispersion
        Variance of each gene's mean count around ``rate``, in units of its square, (genes,).
    """
    mean, variance = np.empty(rate.shape, dtype=np.float32), np.empty(rate.shape, dtype=np.float32)
    _fill_moments(
        np.ascontiguousarray(rate, np.float64), np.asarray(scale, np.float64), np.asarray(dispersion, np.float64),
        mean, variance,
    )  # fmt: skip
    return mean, variance


@parallel_kernel
def _fill_moments(rate, scale, dispersion, mean, variance):
    for j in nb.prange(rate.shape[0]):
        for g in range(rate.shape[1]):
            tau = np.sqrt(np.log1p(dispersion[g]))
            first, second = 0.0, 0.0
            for node in range(_NODES.shape[0]):
                weight = _WEIGHTS[node]
                if tau == 0.0:
                    if _NODES[node] != 0.0:
                        continue
                    weight = 1.0
                own = rate[j, g] * np.exp(tau * _NODES[node] - 0.5 * tau * tau)
                expected, noise = _moments(own, scale[j])
                first += weight * expected
                second += weight * noise
            mean[j, g], variance[j, g] = first, second


@kernel
def _moments(rate, scale):
    """Mean and variance of ``log1p(scale * k)`` for a Poisson ``k`` of mean ``rate``."""
    if rate > _MANY:
        variance = scale * scale * rate / (1.0 + scale * rate) ** 2
        return np.log1p(scale * rate) - 0.5 * variance, variance
    reach = 7.0 * np.sqrt(rate) + 8.0
    low = max(0, int(rate - reach))
    log_p = low * np.log(rate) - rate if rate > 0 else (0.0 if low == 0 else -np.inf)
    for i in range(2, low + 1):
        log_p -= np.log(i)
    p, first, second = np.exp(log_p), 0.0, 0.0
    for k in range(low, int(rate + reach) + 1):
        value = np.log1p(scale * k)
        first += p * value
        second += p * value * value
        p *= rate / (k + 1)
    return first, max(second - first * first, 0.0)
