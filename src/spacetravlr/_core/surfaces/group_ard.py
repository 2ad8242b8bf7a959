r"""Bayesian linear model with one prior variance per block of features, or for several, learned from the data (ARD).

.. math:: y = A w + \epsilon, \quad w_g \sim N(0, v_g I), \quad \epsilon \sim N(0, \sigma^2 I)

Blocks may be added, dropped and judged without passing over the cells again: everything but ``A`` itself lives in
:math:`A^\top A` and :math:`A^\top y`.
"""

from __future__ import annotations

import copy
import itertools
from functools import partial, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.kernels import kernel
from spacetravlr._core.linalg.block_arrow import arrow_factor
from spacetravlr._core.linalg.cholesky import inverse_factor_and_logdet, small_cholesky, until_definite, with_jitter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from spacetravlr._types import Bools, Floats, Ints

_MIN_VARIANCE, _MAX_VARIANCE = 1e-8, 1e3
_CHUNK = 2048  # cells whose products are summed in the precision of the features
_FEW = 48  # features of a set up to which its Bayes factor is computed without the library


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


class GroupArd:
    """Blocks of features, their prior variances and the noise variance.

    A row of values over cells is one feature or, in blocks that are split, one for each group of cells (cell types);
    those are kept as the one row that they share, and their products group by group. The weights of the split rows come
    first, one group after another, then those of the others.

    Parameters
    ----------
    y
        Response (cells,).
    noise
        Noise variance to start from.
    dtype
        Of the rows; their products are summed in float64 over chunks of cells.
    groups
        Where each group of cells begins, and where the last one ends; one group when not given.
    buffer
        Memory for rows of ``dtype`` (rows x cells) that nothing else uses meanwhile; more is taken when it is full.
    """

    def __init__(
        self,
        y: Floats,
        noise: float,
        *,
        dtype: DTypeLike = np.float64,
        groups: Ints | None = None,
        buffer: Floats | None = None,
    ) -> None:
        self.y = np.asarray(y, dtype=np.float64)
        self.noise = noise
        self.variances = np.empty(0)
        self._shared = np.empty(0, dtype=int)  # number of the variance of each block
        self._bounds = np.array([0, len(y)]) if groups is None else np.asarray(groups)
        self._rows = np.empty((64, len(y)), dtype=dtype) if buffer is None else buffer
        self._block = np.empty(0, dtype=int)  # of each row
        self._split = np.empty(0, dtype=bool)
        self._products = np.empty((0, 0))  # rows x rows
        self._by_group = np.empty((self.n_groups, 0, 0))  # rows x split rows
        self._cross = np.empty((self.n_groups, 0))  # groups x rows
        self._of_feature = np.empty(0, dtype=int)
        self._places: list[Ints] | None = None
        self._yy = float(self.y @ self.y)

    @classmethod
    def combined(cls, parts: Sequence[GroupArd], noise: float) -> GroupArd:
        """The model of all cells of ``parts``, which have the same blocks; it holds products only, no rows.

        Its variances are those of the first part. So folds of cells are put together without passing over them again.
        """
        first = parts[0]
        out = cls(np.concatenate([part.y for part in parts]), noise, dtype=first._rows.dtype)
        out._bounds = first._bounds  # their number counts
        out._rows = first._rows[:0]
        out.variances, out._shared = first.variances.copy(), first._shared
        out._block, out._split = first._block, first._split
        out._products = reduce(np.add, [part._products for part in parts])
        out._by_group = reduce(np.add, [part._by_group for part in parts])
        out._cross = reduce(np.add, [part._cross for part in parts])
        out._arrange()
        return out

    def only(self, mask: Bools) -> GroupArd:
        """The model of some of its blocks alone, by products; this one stays as it is."""
        out = copy.copy(self)
        out._rows = self._rows[:0]
        out.variances = self.variances.copy()
        out.keep(mask)
        return out

    def __len__(self) -> int:
        return len(self.variances)

    @property
    def n_groups(self) -> int:
        """Groups of cells."""
        return len(self._bounds) - 1

    @property
    def n_features(self) -> int:
        """Features of all blocks."""
        return int(self.sizes.sum())

    @property
    def sizes(self) -> Ints:
        """Features of each block."""
        return np.bincount(self._block, np.where(self._split, self.n_groups, 1), len(self)).astype(int)

    @property
    def features(self) -> Floats:
        """Features x cells."""
        dense = self._rows[: len(self._block)]
        split = np.zeros((self.n_groups, int(self._split.sum()), len(self.y)), dense.dtype)
        for g, cells in enumerate(self._groups()):
            split[g, :, cells] = dense[self._split, cells]
        return np.concatenate([split.reshape(-1, len(self.y)), dense[~self._split]])

    def block(self, i: int) -> Ints:
        """Feature indices of block ``i``."""
        return self.places[i]

    @property
    def block_of_feature(self) -> Ints:
        """Block of each feature."""
        return self._of_feature

    @property
    def places(self) -> list[Ints]:
        """Feature indices of every block."""
        if self._places is None:
            ends = np.cumsum(self.sizes).tolist()
            order = np.argsort(self._of_feature, kind="stable")
            self._places = [order[a:b] for a, b in itertools.pairwise([0, *ends])]
        return self._places

    def add(
        self,
        blocks: Sequence[Floats],
        variances: Sequence[float],
        *,
        split: Sequence[bool] | None = None,
        shared: Sequence[int] | None = None,
    ) -> None:
        """Append blocks of rows (rows x cells each), with a feature a row or, where ``split``, a row and group.

        Blocks of the same number in ``shared`` have one variance between them; without it each has its own.
        """
        start = len(self._block)
        sizes = [len(b) for b in blocks]
        end = start + sum(sizes)
        self._reserve(end)
        new = np.concatenate(blocks, axis=0, out=self._rows[start:end], casting="same_kind")
        corner, cross = np.zeros((self.n_groups, end, end - start)), np.zeros((self.n_groups, end - start))
        for g, group in enumerate(self._groups()):
            for first in range(group.start, group.stop, _CHUNK):
                cells = slice(first, min(first + _CHUNK, group.stop))
                corner[g] += self._rows[:end, cells] @ new[:, cells].T
                cross[g] += new[:, cells] @ self.y[cells].astype(new.dtype)
        total = corner.sum(axis=0)
        self._products = np.block([[self._products, total[:start]], [total[:start].T, total[start:]]])
        is_split = np.repeat(np.zeros(len(blocks), dtype=bool) if split is None else np.asarray(split), sizes)
        old = np.concatenate([self._by_group, corner[:, :start][:, self._split].transpose(0, 2, 1)], axis=1)
        self._by_group = np.concatenate([old, corner[:, :, is_split]], axis=2)
        self._cross = np.concatenate([self._cross, cross], axis=1)
        self._split = np.concatenate([self._split, is_split])
        self._block = np.concatenate([self._block, np.repeat(np.arange(len(blocks)) + len(self), sizes)])
        self.variances = np.concatenate([self.variances, variances])
        first = int(self._shared.max(initial=-1)) + 1
        number = np.arange(len(blocks)) if shared is None else np.unique(shared, return_inverse=True)[1]
        self._shared = np.concatenate([self._shared, first + number])
        self._arrange()

    def _reserve(self, n_rows: int) -> None:
        """Enlarge the memory for rows, to twice what it was: so each row is copied a few times, however many come."""
        if n_rows <= len(self._rows):
            return
        rows = self._rows
        self._rows = np.empty((max(2 * len(rows), n_rows), len(self.y)), dtype=rows.dtype)
        self._rows[: len(self._block)] = rows[: len(self._block)]

    def keep(self, mask: Bools) -> None:
        """Keep the blocks where ``mask`` is true."""
        if mask.all():
            return
        kept = mask[self._block]
        rows = np.flatnonzero(kept)
        first = int(np.argmin(kept))  # what lies before the first row to go stays where it is
        if len(self._rows):
            self._rows[first : len(rows)] = self._rows[rows[first:]]
        self._products = self._products[np.ix_(rows, rows)]
        self._by_group = self._by_group[:, kept][:, :, kept[self._split]]
        self._cross, self._split = self._cross[:, kept], self._split[kept]
        self._block = (np.cumsum(mask) - 1)[self._block[kept]]
        self.variances, self._shared = self.variances[mask], self._shared[mask]
        self._arrange()

    def _groups(self) -> list[slice]:
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(self._bounds)]

    def _arrange(self) -> None:
        """Take the products of features apart: within groups, of groups with the border, within the border."""
        split, dense = self._split, np.flatnonzero(~self._split)
        self._parts = self._by_group[:, split], self._by_group[:, dense], self._products[np.ix_(dense, dense)]
        self._response = np.concatenate([self._cross[:, split].ravel(), self._cross[:, dense].sum(axis=0)])
        self._of_feature = np.concatenate([np.tile(self._block[split], self.n_groups), self._block[~split]])
        self._places = None  # worked out where they are asked for

    def _times(self, mean: Floats) -> Floats:
        """Products of features times weights."""
        groups, border, corner = self._parts
        first = len(mean) - len(corner)
        own, shared = mean[:first].reshape(len(groups), -1), mean[first:]
        of_groups = np.einsum("gab,gb->ga", groups, own) + np.einsum("gdb,d->gb", border, shared)
        return np.concatenate([of_groups.ravel(), corner @ shared + np.einsum("gdb,gb->d", border, own)])

    def residual(self, mean: Floats) -> Floats:
        """What weights leave of the response (cells,)."""
        n_rows, n_split = len(self._block), int(self._split.sum())
        weights = np.empty((self.n_groups, n_rows), self._rows.dtype)
        weights[:, self._split] = mean[: self.n_groups * n_split].reshape(self.n_groups, n_split)
        weights[:, ~self._split] = mean[self.n_groups * n_split :]
        residual = self.y.copy()
        for w, cells in zip(weights, self._groups(), strict=True):
            residual[cells] -= w @ self._rows[:n_rows, cells]
        return residual

    def products(self, blocks: Sequence[int]) -> Floats:
        """Products of the rows of some blocks of one row each, summed over all cells."""
        rows = np.array([int(np.flatnonzero(self._block == i)[0]) for i in blocks], dtype=int)
        return self._products[np.ix_(rows, rows)]

    def scores(self, mean: Floats, block: Ints, n_blocks: int) -> Floats:
        """Products of features and residuals, summed over each block of cells: features x blocks.

        Parameters
        ----------
        mean
            Weights.
        block
            Block of each cell, 0..n_blocks-1.
        n_blocks
            Number of blocks.
        """
        weighted = np.zeros((len(self.y), n_blocks), self._rows.dtype)
        weighted[np.arange(len(self.y)), block] = self.residual(mean)
        rows = self._rows[: len(self._block)]
        of_groups = np.stack([rows[:, cells] @ weighted[cells] for cells in self._groups()]).astype(np.float64)
        split = of_groups[:, self._split].reshape(-1, n_blocks)
        return np.concatenate([split, of_groups[:, ~self._split].sum(axis=0)])

    def _precision(self, dtype: DTypeLike = np.float64, jitter: float = 0.0) -> tuple[Floats, Floats, Floats]:
        """Posterior precision of the weights, in parts; see :mod:`spacetravlr._core.linalg.block_arrow`."""
        groups, border, corner = self._parts
        prior = 1.0 / self.variances[self._block]
        own = np.arange(groups.shape[1])
        groups, corner = groups / self.noise, np.divide(corner, self.noise, dtype=dtype, casting="same_kind")
        groups[:, own, own] += prior[self._split]
        corner[np.diag_indices_from(corner)] += prior[~self._split].astype(dtype)
        if jitter:
            with_jitter(groups, jitter)
            with_jitter(corner, jitter)
        return groups, np.divide(border, self.noise, dtype=dtype, casting="same_kind"), corner

    def _factor(self, dtype: DTypeLike) -> tuple[Floats, float]:
        """Inverse Cholesky factor and log determinant of the posterior precision.

        Where features are almost the same and the noise is small, rounding can leave a matrix that is not positive
        definite. It is then computed in double precision and, should that not do, with a diagonal that grows by the
        least part that helps.
        """
        try:
            return arrow_factor(*self._precision(dtype))
        except np.linalg.LinAlgError:
            return until_definite(lambda part: arrow_factor(*self._precision(jitter=part)))

    def posterior(self, *, exact: bool = True) -> Posterior:
        """Posterior at the current variances; not ``exact`` is in the precision of the rows, where that does."""
        factor, logdet = self._factor(np.float64 if exact else self._rows.dtype)
        mean = ((factor @ self._response.astype(factor.dtype)) @ factor / self.noise).astype(np.float64)
        logdet += float(self.sizes @ np.log(self.variances)) + len(self.y) * np.log(self.noise)
        fit = (self._yy - float(mean @ self._response)) / self.noise
        return Posterior(mean, factor, -0.5 * (logdet + fit))

    def learn(self, n_steps: int, *, exact: bool = True) -> Posterior:
        r"""Update the variances by MacKay's fixed point and return the posterior, see :meth:`posterior`.

        .. math:: v_g = \frac{\lVert w_g \rVert^2}{\gamma_g}, \quad
            \gamma_g = m_g - \frac{\mathrm{tr} \Sigma_{gg}}{v_g}, \quad
            \sigma^2 = \frac{\lVert y - A w \rVert^2}{n - \sum_g \gamma_g}
        """
        number = np.unique(self._shared, return_inverse=True)[1]
        variance, n = number[self._of_feature], int(number.max(initial=-1)) + 1
        sizes = np.bincount(variance, minlength=n)
        for _ in range(n_steps):
            mean, factor, _ = self.posterior(exact=False)
            trace = np.bincount(variance, np.einsum("ij,ij->j", factor, factor), n)
            squared = np.bincount(variance, mean**2, n)
            old = np.empty(n)
            old[number] = self.variances
            determined = np.maximum(sizes - trace / old, 1e-6)
            self.variances = np.clip(squared / determined, _MIN_VARIANCE, _MAX_VARIANCE)[number]
            residual = self._yy - 2 * mean @ self._response + mean @ self._times(mean)
            freedom = max(len(self.y) - determined.sum(), 1.0)
            self.noise = max(residual / freedom, 1e-6 * self._yy / len(self.y), 1e-12)
        return self.posterior(exact=exact)

    def log_bayes_factors(self, posterior: Posterior, sets: Sequence[Sequence[int]]) -> Floats:
        r"""Log Bayes factor of each set of blocks against their absence (Savage-Dickey density ratio at zero).

        .. math:: \log B_g = \tfrac12 \left( \log |\Sigma_{gg}| - \log |D_g| + w_g^\top \Sigma_{gg}^{-1} w_g \right)
        """
        places = self.places
        index = [np.concatenate([places[b] for b in blocks]) for blocks in sets]
        starts = np.cumsum([0, *map(len, index)])
        factors = _densities_at_zero(posterior.factor, posterior.mean, np.concatenate(index), starts, _FEW)
        for i in np.flatnonzero(np.isnan(factors)):  # many features, or almost the same
            factor_of_set = posterior.factor[:, index[i]].astype(np.float64)
            covariance = factor_of_set.T @ factor_of_set
            factor, logdet = until_definite(partial(_jittered_factor, covariance))
            whitened = factor @ posterior.mean[index[i]]
            factors[i] = logdet + whitened @ whitened
        prior = np.log(self.variances)[self._of_feature]
        return 0.5 * (factors - np.array([prior[i].sum() for i in index]))


@kernel
def _densities_at_zero(factor, mean, index, starts, few):
    r"""For each set of features :math:`\log |\Sigma_{gg}| + w_g^\top \Sigma_{gg}^{-1} w_g`.

    NaN for sets of more than ``few`` features, and where the covariance is not positive definite.
    """
    out = np.full(starts.shape[0] - 1, np.nan)
    covariance, row = np.empty((few, few)), np.empty(few)
    for g in range(out.shape[0]):
        own_idx = index[starts[g] : starts[g + 1]]
        m = own_idx.shape[0]
        if m > few:
            continue
        covariance[:m, :m] = 0
        for r in range(own_idx.min(), factor.shape[0]):  # what stands above the diagonal of the factor is zero
            for a in range(m):
                row[a] = factor[r, own_idx[a]]
            for a in range(m):
                for b in range(a + 1):
                    covariance[a, b] += row[a] * row[b]
        out[g] = _density_at_zero(covariance, mean[own_idx], row)
    return out


@kernel
def _density_at_zero(covariance, mean, whitened):
    """Log determinant of ``covariance``, overwritten, and squared length of ``mean`` whitened by it."""
    total = small_cholesky(covariance, mean.shape[0])
    if np.isnan(total):
        return np.nan
    for i in range(mean.shape[0]):
        value = mean[i]
        for k in range(i):
            value -= covariance[i, k] * whitened[k]
        whitened[i] = value / covariance[i, i]
        total += whitened[i] * whitened[i]
    return total


def _jittered_factor(matrix: Floats, jitter: float) -> tuple[Floats, float]:
    return inverse_factor_and_logdet(with_jitter(matrix.copy(), jitter))
