r"""Expected expression of a gene in a cell, given the counts: regression calibration.

A measured value is the true value plus noise, :math:`x_{jg} = z_{jg} + e_{jg}`, of known variance :math:`v_{jg}`
(:mod:`spacetravlr._core.noise`). Least squares on :math:`x` underestimates coefficients and credits the wrong
regulators. Least squares on

.. math:: \hat z_{jg} = E(z_{jg} \mid x_j)

does not, because the error :math:`z - \hat z` is uncorrelated with :math:`\hat z` (Carroll, Ruppert, Stefanski &
Crainiceanu 2006, chapter 4). The same holds for products with a received signal and with functions of position. The
distribution of :math:`z` is

.. math:: z_{jg} = m_{g c(j)} + S_g(s_j) + d_{g c(j)} \big( f_g \cdot \eta_j + \sqrt{1 - |f_g|^2}\, \epsilon_{jg} \big)

with a mean for each cell type, a smooth field, a spread in each type, and factors that genes share. All of these are
estimated from moments minus the noise, after the effect of depth on measured values is removed. The target gene itself
is not used: that would bring its own noise into its regulators, as imputation does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.noise import log1p_moments
from spacetravlr._core.scores import centred_by_type, sums_by_type, type_means

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_MAX_FACTORS = 20
_MAX_SHARED = 0.95  # of a gene's variation that factors may hold
_PRIOR_CELLS = 50  # cells of a type at which its own spread weighs as much as that of all types
_N_STEPS = 30
_N_DEPTHS = 33
_LEAST = 0.05  # least expected count, in units of the type's mean


@dataclass(frozen=True)
class Calibration:
    """Distribution of expression and noise; all arrays have one row per cell or per gene."""

    offset: Floats
    """What depth alone does to measured values, of mean zero in each type, cells x genes, float32."""
    mean: Floats
    """Type mean and smooth field, cells x genes, float32."""
    residual: Floats
    """Measured less offset and mean, cells x genes, float32."""
    noise: Floats
    """Variance of the noise, cells x genes, float32."""
    spread: Floats
    """Standard deviation of what varies from cell to cell, types x genes."""
    factors: Floats
    """Loadings of the genes in units of their spread, genes x factors."""
    cell_type: Ints

    def expected(self, genes: Ints, without: int = -1) -> Floats:
        """Expected expression of some genes, cells x genes, float32.

        Parameters
        ----------
        genes
            Which.
        without
            Gene that must not be used; -1 for none.
        """
        out = np.empty((len(self.cell_type), len(genes)), dtype=np.float32)
        used = (self.factors != 0).any(axis=1) & (np.arange(self.factors.shape[0]) != without)
        _fill_expected(
            self.residual, self.noise, self.spread, self.factors, used, self.cell_type.astype(np.int64),
            np.asarray(genes, dtype=np.int64), out,
        )  # fmt: skip
        out += self.mean[:, genes]
        return out


def calibrate(
    expression: Floats,
    scale: Floats,
    cell_type: Ints,
    n_types: int,
    functions: Floats,
    regulators: Ints,
    unit: float = 1.0,
) -> Calibration:
    """Estimate the distribution of expression and its noise.

    Parameters
    ----------
    expression
        Log-normalised counts, cells x genes.
    scale
        Scale of each cell, see :func:`spacetravlr._core.noise.counting_scale`.
    cell_type, n_types
        Type of each cell.
    functions
        Smooth functions of position, cells x functions.
    regulators
        Genes that may inform one another: those that share factors.
    unit
        Logarithm of the base that ``expression`` was taken to.
    """
    relative = np.expm1(np.asarray(expression, dtype=np.float64) * unit)
    depth = 1.0 / np.where(np.isfinite(scale) & (scale > 0), scale, np.nanmedian(scale))
    of_type = type_means(relative, cell_type, n_types, np.ones(len(relative), dtype=bool))
    basis = centred_by_type(functions, cell_type, n_types).astype(np.float64)
    spectrum = np.linalg.eigh(basis.T @ basis)
    rate, _ = _type_and_field(relative, basis, spectrum, cell_type, n_types)
    rate = depth[:, None] * np.maximum(rate, _LEAST * of_type[cell_type])
    counts = depth[:, None] * relative
    dispersion = ((counts - rate) ** 2 - rate).sum(axis=0) / np.maximum((rate**2).sum(axis=0), 1e-12)
    dispersion = np.clip(dispersion, 0.0, 4.0)
    _, noise = log1p_moments(rate, 1.0 / depth, dispersion)
    offset = _depth_offsets(of_type, depth, dispersion, cell_type)
    x = np.asarray(expression, dtype=np.float64) * unit - offset
    means, residual = _type_and_field(x, basis, spectrum, cell_type, n_types)
    residual = residual.astype(np.float32)
    spread = _spread(residual, noise, cell_type, n_types)
    factors = np.zeros((x.shape[1], 0))
    if len(regulators) > 1:
        found = _factors(residual[:, regulators], noise[:, regulators], spread[:, regulators], cell_type)
        factors = np.zeros((x.shape[1], found.shape[1]))
        factors[regulators] = found
    return Calibration(
        offset=(offset / unit).astype(np.float32),
        mean=(means / unit).astype(np.float32),
        residual=residual / np.float32(unit),
        noise=noise / np.float32(unit**2),
        spread=spread / unit,
        factors=factors,
        cell_type=cell_type,
    )


def _depth_offsets(of_type: Floats, depth: Floats, dispersion: Floats, cell_type: Ints) -> Floats:
    """Effect of a cell's depth on its expected measured value, at the mean expression of its type, cells x genes.

    The logarithm is not linear: of two cells with the same expression, the one with fewer counts has the lower mean.
    Depth would therefore make all genes covary. Interpolated over a grid of depths, for each type and gene.
    """
    offset = np.empty((len(depth), of_type.shape[1]))
    logs = np.log(depth)
    for c in range(len(of_type)):
        rows = np.flatnonzero(cell_type == c)
        if not len(rows):
            continue
        grid = np.linspace(logs[rows].min(), logs[rows].max() + 1e-9, _N_DEPTHS)
        mean, _ = log1p_moments(np.exp(grid)[:, None] * of_type[c], np.exp(-grid), dispersion)
        place = (logs[rows] - grid[0]) / (grid[1] - grid[0])
        left = np.minimum(place.astype(int), _N_DEPTHS - 2)
        part = (place - left)[:, None]
        offset[rows] = (1 - part) * mean[left] + part * mean[left + 1]
        offset[rows] -= offset[rows].mean(axis=0)
    return offset


def _type_and_field(
    x: Floats, basis: Floats, spectrum: tuple[Floats, Floats], cell_type: Ints, n_types: int
) -> tuple[Floats, Floats]:
    r"""Mean of the type plus smooth field, and what is left, both cells x genes.

    A ridge on a basis of mean zero in each type with one variance per gene, learned from the evidence. In the
    eigenbasis of its products (``spectrum``), with eigenvalues :math:`\lambda` and projections :math:`c`, the weights
    are :math:`c v / (\sigma^2 + v \lambda)`.
    """
    centred = centred_by_type(x, cell_type, n_types).astype(np.float64)
    values, vectors = np.maximum(spectrum[0], 0.0)[:, None], spectrum[1]
    projected = vectors.T @ (basis.T @ centred)
    total, n = (centred**2).sum(axis=0), len(x)
    variance = noise = np.maximum(total / n, 1e-12)
    variance = 0.1 * variance
    weights = np.zeros_like(projected)
    for _ in range(_N_STEPS):
        weights = projected * variance / (noise + variance * values)
        determined = (variance * values / (noise + variance * values)).sum(axis=0)
        variance = np.maximum((weights**2).sum(axis=0) / np.maximum(determined, 1e-9), 1e-12)
        left = total - 2 * (weights * projected).sum(axis=0) + (weights**2 * values).sum(axis=0)
        noise = np.maximum(left / np.maximum(n - determined, 1.0), 1e-12)
    field = basis @ (vectors @ weights)
    residual = centred - field
    return x - residual, residual


def _spread(residual: Floats, noise: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Noise-free standard deviation in each type, shrunk towards that of all types: types x genes."""
    counts = np.bincount(cell_type, minlength=n_types)[:, None]
    excess = sums_by_type(residual.astype(np.float64) ** 2 - noise, cell_type, n_types).T
    overall = np.maximum(excess.sum(axis=0) / max(len(cell_type), 1), 0.0)
    own = np.maximum(excess + _PRIOR_CELLS * overall, 0.0) / (counts + _PRIOR_CELLS)
    return np.sqrt(own)


def _factors(residual: Floats, noise: Floats, spread: Floats, cell_type: Ints) -> Floats:
    """Factor loadings from the noise-free correlations: principal factors of their shrunk estimates.

    Noise of different genes is independent, so products of two genes need no correction, only the scale does.
    """
    weights = spread[cell_type]
    scaled = (residual * weights).astype(np.float32)
    squares = (weights**2).astype(np.float32)
    weight = np.maximum((squares.T @ squares).astype(np.float64), 1e-12)
    correlation = (scaled.T @ scaled).astype(np.float64) / weight
    total = (weights**2 * (weights**2 + noise)).astype(np.float32)
    error = (total.T @ total).astype(np.float64) / weight**2  # variance of each correlation where there is none
    correlation *= correlation**2 / np.maximum(correlation**2 + error, 1e-12)
    correlation = np.clip(correlation, -_MAX_SHARED, _MAX_SHARED)
    np.fill_diagonal(correlation, 0.0)
    shared = np.abs(correlation).max(axis=0)
    loadings = np.zeros((len(shared), 0))
    for _ in range(_N_STEPS):
        values, vectors = np.linalg.eigh(correlation + np.diag(shared))
        kept = np.flatnonzero(values > max(-values[0], 0.05))[-min(_MAX_FACTORS, max(len(shared) // 2, 1)) :]
        loadings = vectors[:, kept] * np.sqrt(values[kept])
        shared = np.minimum((loadings**2).sum(axis=1), _MAX_SHARED)
    length = (loadings**2).sum(axis=1, keepdims=True)
    return loadings * np.sqrt(np.minimum(1.0, _MAX_SHARED / np.maximum(length, 1e-12)))


@parallel_kernel
def _fill_expected(residual, noise, spread, factors, used, cell_type, genes, out):
    n_factors = factors.shape[1]
    own = np.empty(factors.shape[0])
    for g in range(factors.shape[0]):
        own[g] = 1.0
        for f in range(n_factors):
            own[g] -= factors[g, f] ** 2
    for j in nb.prange(residual.shape[0]):
        precision, projected = np.eye(n_factors), np.zeros(n_factors)
        c = cell_type[j]
        for g in range(factors.shape[0]):
            d = spread[c, g]
            if not used[g] or d <= 0.0:
                continue
            weight = d / (d * d * own[g] + noise[j, g])
            for a in range(n_factors):
                loading = factors[g, a] * weight
                projected[a] += loading * residual[j, g]
                for b in range(a + 1):
                    precision[a, b] += d * loading * factors[g, b]
        _solve(precision, projected)
        for i in range(genes.shape[0]):
            g = genes[i]
            d, shared = spread[c, g], 0.0
            for a in range(n_factors):
                shared += factors[g, a] * projected[a]
            shared *= d
            variance = d * d * own[g]
            kept = variance / (variance + noise[j, g]) if variance > 0.0 else 0.0
            out[j, i] = shared + kept * (residual[j, g] - shared)


@kernel
def _solve(a, b):
    """Solve a positive definite system in place; only the lower triangle of ``a`` is read."""
    n = b.shape[0]
    for i in range(n):
        for j in range(i + 1):
            value = a[i, j]
            for k in range(j):
                value -= a[i, k] * a[j, k]
            a[i, j] = np.sqrt(value) if i == j else value / a[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= a[k, i] * b[k]
        b[i] /= a[i, i]
