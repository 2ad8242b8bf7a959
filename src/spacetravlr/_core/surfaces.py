r"""Coefficient surfaces (SPEC section 3): coefficients as smooth functions of cell type, niche and position.

.. math::
    y_j = \sum_k x_{jk} b_{jk} + \epsilon_j, \qquad
    b_{jk} = \gamma_{k c(j)} \Big( a_k + \sum_b \phi_b(s_j) w_{kb} + \sum_q \psi_q(n_j) u_{kq} \Big) + a_{k c(j)}

with one variance a modulator and part (pooled, cell type, niche, space), learned from the evidence, and optional
amplitudes :math:`\gamma` of the shared surface in each cell type. Modulators enter by how much their parts would raise
the evidence and leave by the Bayes factor against their absence, so that a modulator without support ends with
coefficients of exactly zero. The last modulator is the intercept.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import numba as nb
import numpy as np

from spacetravlr._core.evidence import BlockModel, Posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._types import Bools, Floats, Ints

# Share of the evidence that a model with amplitudes may lack before they are refined: in trials on simulated tissue,
# models that won in the end lacked up to 7 %.
_AMPLITUDE_LACK = 0.1
_VARIANCE_GRID = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])


class Part(IntEnum):
    """Parts of a coefficient; the intercept alone also has a surface of its own in each cell type."""

    POOLED = 0
    TYPE = 1
    NICHE = 2
    SPACE = 3
    TYPE_SPACE = 4


@dataclass(frozen=True)
class SurfaceOptions:
    """How surfaces are searched; thresholds are differences of log evidence."""

    keep_threshold: float = 3.0
    """A modulator stays active when its log Bayes factor against absence is above this."""
    add_threshold: float = 2.0
    """A part is tried when its approximate gain of log evidence is above this."""
    max_added: int = 6
    """Modulators added at once; few, since each that enters changes what the others have left to explain."""
    min_share: float = 0.002
    """Both thresholds are at least this share of the evidence that the whole model has gained over a constant: on
    smoothed (imputed) expression cells repeat one another, and differences of evidence run high for all modulators."""
    max_features: int = 500
    """Largest number of features of one target."""
    n_rounds: int = 40
    n_steps: int = 2
    """Variance updates a round."""
    amplitudes: bool = True
    """Whether to try amplitudes of the shared surface in each cell type."""


@dataclass(frozen=True)
class CellFunctions:
    """What a coefficient may depend on, evaluated at cells (rows)."""

    cell_type: Ints
    """Codes 0..n_types-1."""
    niche: Floats
    """Standardised niche composition, a row's expected squared norm being one; no columns to leave it out."""
    space: tuple[Floats, ...]
    """Spatial functions, one array for each length scale on offer."""
    n_types: int
    _stacks: dict[int, Floats] = field(default_factory=dict, repr=False, compare=False)

    def take(self, rows: Ints | Bools) -> CellFunctions:
        """The same functions at some of the cells."""
        return CellFunctions(self.cell_type[rows], self.niche[rows], tuple(s[rows] for s in self.space), self.n_types)

    def of(self, part: int, scale: int) -> Floats:
        """Functions of one :class:`Part`, cells x functions."""
        n = len(self.cell_type)
        if part == Part.POOLED:
            return np.ones((n, 1))
        if part == Part.NICHE:
            return self.niche
        if part == Part.SPACE:
            return self.space[scale]
        one_hot = np.zeros((n, self.n_types))
        one_hot[np.arange(n), self.cell_type] = 1.0
        if part == Part.TYPE:
            return one_hot
        return (one_hot[:, :, None] * self.space[scale][:, None, :]).reshape(n, -1)

    def times(self, weights: Floats, part: int, scale: int) -> Floats:
        """Functions of one :class:`Part` times their weights, (cells,)."""
        if part == Part.POOLED:
            return np.full(len(self.cell_type), weights[0])
        if part == Part.TYPE:
            return np.asarray(weights[self.cell_type])
        if part == Part.TYPE_SPACE:
            return np.einsum("jf,jf->j", self.space[scale], weights.reshape(self.n_types, -1)[self.cell_type])
        return np.asarray((self.niche if part == Part.NICHE else self.space[scale]) @ weights)

    @property
    def bounds(self) -> Ints:
        """Where each type begins and where the last one ends, with cells in the order of their types."""
        return np.searchsorted(self.cell_type, np.arange(self.n_types + 1))

    def type_means(self) -> CellFunctions:
        """Means over the cells of each type, one row a type; zero where a type is absent."""
        counts = np.maximum(np.bincount(self.cell_type, minlength=self.n_types), 1)[:, None]

        def mean(values: Floats) -> Floats:
            return (self.of(Part.TYPE, 0).T @ values) / counts

        return CellFunctions(np.arange(self.n_types), mean(self.niche), tuple(map(mean, self.space)), self.n_types)

    def stack(self, scale: int) -> Floats:
        """Functions of all parts of a modulator, functions x cells in float32; kept, since every target needs them."""
        if scale not in self._stacks:
            parts = [self.of(part, scale).T for part in Part if part != Part.TYPE_SPACE]
            self._stacks[scale] = np.concatenate(parts, dtype=np.float32, casting="same_kind")
        return self._stacks[scale]

    def places(self, scale: int) -> Ints:
        """Rows of :meth:`stack` at which each part begins, and where the last one ends."""
        sizes = 1, self.n_types, self.niche.shape[1], self.space[scale].shape[1]
        return np.concatenate([[0], np.cumsum(sizes)])


@dataclass(frozen=True)
class SurfaceFit:
    """A fitted surface of one target, in standardised units."""

    blocks: list[tuple[int, int]]
    """(modulator, part) of each block of weights."""
    weights: list[Floats]
    """Posterior mean of the weights of each block."""
    amplitudes: Floats
    """Amplitude of the shared surface, cell types x modulators (the intercept last)."""
    scale: int
    """Which length scale was chosen."""
    evidence: Floats
    """Log Bayes factor of each modulator against its absence; -inf where it was never added (modulators,)."""
    noise: float
    """Residual variance."""
    log_evidence: float
    factor: Floats = field(repr=False)
    """The posterior covariance of all weights, in the order of ``blocks``, is ``factor.T @ factor``."""

    def coefficients(self, functions: CellFunctions) -> Floats:
        """Coefficients at cells: cells x modulators, the intercept last."""
        values = np.zeros((len(functions.cell_type), self.amplitudes.shape[1]))
        for k, field_ in self.fields(functions).items():
            values[:, k] = field_
        return values

    def prediction(self, x: Floats, functions: CellFunctions) -> Floats:
        """Response at cells with modulators ``x`` (cells x modulators, without the intercept), (cells,)."""
        total = np.zeros(len(functions.cell_type))
        for k, field_ in self.fields(functions).items():
            total += field_ if k == x.shape[1] else field_ * x[:, k]
        return total

    def fields(self, functions: CellFunctions, *, amplitudes: bool = True, types: bool = True) -> dict[int, Floats]:
        """Coefficients of the modulators that have any, each (cells,), by number.

        Without ``amplitudes`` the surface that all types share, without ``types`` less the parts of single types.
        """
        out: dict[int, Floats] = {}
        for (k, part), weights in zip(self.blocks, self.weights, strict=True):
            if part == Part.TYPE and not types:
                continue
            values = functions.times(weights, part, self.scale)
            if part != Part.TYPE and amplitudes:
                values = values * self.amplitudes[functions.cell_type, k]
            out[k] = out[k] + values if k in out else values
        return out

    def standard_deviations(self, functions: CellFunctions) -> Floats:
        """Posterior standard deviation of each coefficient at cells: cells x modulators, the intercept last."""
        matrices = {part: functions.of(part, self.scale) for part in {part for _, part in self.blocks}}
        offsets = np.concatenate([[0], np.cumsum([len(w) for w in self.weights])])
        values = np.zeros((len(functions.cell_type), self.amplitudes.shape[1]))
        for k in {k for k, _ in self.blocks}:
            mine = [i for i, (other, _) in enumerate(self.blocks) if other == k]
            index = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in mine])
            features = np.hstack(
                [self._scaled(matrices[p], k, p, functions.cell_type) for p in (self.blocks[i][1] for i in mine)]
            )
            values[:, k] = np.linalg.norm(features @ self.factor[:, index].T, axis=1)
        return values

    def _scaled(self, matrix: Floats, k: int, part: int, cell_type: Ints) -> Floats:
        return matrix if part == Part.TYPE else matrix * self.amplitudes[cell_type, k][:, None]


def fit_surface(
    x: Floats,
    y: Floats,
    functions: CellFunctions,
    options: SurfaceOptions | None = None,
    *,
    max_noise: float = np.inf,
) -> SurfaceFit:
    """Fit the surfaces of one target.

    Parameters
    ----------
    x
        Standardised modulators at the training cells, cells x modulators; an intercept column is appended.
    y
        Standardised target, mean about zero (cells,).
    functions
        What coefficients may depend on, at the same cells.
    options
        How to search.
    max_noise
        Stop after the first search when it leaves a larger residual variance: the caller has something better.
    """
    options = options or SurfaceOptions()
    problem = _Problem.of(x, y, functions, options)
    flat = np.ones((functions.n_types, len(problem.x)))
    first = _Search(problem, flat, problem.first_scale).run()
    if first.noise > max_noise:
        return first
    best = _choose_scale(problem, first)
    if options.amplitudes and functions.n_types > 1:
        tried = _with_amplitudes(problem, best)
        if _is_better(tried, best):
            best = tried
            again = _refined(problem, best)
            best = again if _is_better(again, best) else best
    return best


def refit_surface(
    fit: SurfaceFit,
    x: Floats,
    y: Floats,
    functions: CellFunctions,
    options: SurfaceOptions | None = None,
    *,
    search: bool,
) -> SurfaceFit:
    """Fit again on other cells, with the length scale and the amplitudes of ``fit``.

    Parameters
    ----------
    fit
        A fit of the same target.
    x, y, functions, options
        As in :func:`fit_surface`.
    search
        Search for the parts anew; otherwise keep those of ``fit`` and learn their variances only.
    """
    problem = _Problem.of(x, y, functions, options or SurfaceOptions())
    if search:
        return _search_at(problem, fit.amplitudes, fit.scale)
    return _Search(problem, fit.amplitudes, fit.scale, warm=fit).polish()


def _search_at(problem: _Problem, amplitudes: Floats, scale: int) -> SurfaceFit:
    """Search as every search starts, at a coarse length scale, and carry on from there at ``scale``.

    From scratch at a fine scale the first few modulators would take all the features allowed.
    """
    first = _Search(problem, amplitudes, problem.first_scale).run()
    if scale == first.scale:
        return first
    return _Search(problem, amplitudes, scale, warm=first if _fits_in(problem, first, scale) else None).run()


def _choose_scale(problem: _Problem, fit: SurfaceFit) -> SurfaceFit:
    """Climb from the length scale of ``fit`` to a neighbour for as long as the evidence rises.

    Finer scales have more functions; those at which the parts of the fit would need too many features are left out.
    """
    fits = {fit.scale: fit}
    here = fit.scale
    while True:
        for scale in (here - 1, here + 1):
            if 0 <= scale < len(problem.functions.space) and scale not in fits and _fits_in(problem, fits[here], scale):
                fits[scale] = _Search(problem, fit.amplitudes, scale, warm=fits[here]).run()
        best = max(fits, key=lambda s: fits[s].log_evidence)
        if best == here:
            return fits[here]
        here = best


def _fits_in(problem: _Problem, fit: SurfaceFit, scale: int) -> bool:
    """Whether the parts of ``fit`` have at most the features allowed, or no more than now, at another length scale."""
    more = problem.functions.space[scale].shape[1] - problem.functions.space[fit.scale].shape[1]
    copies = {Part.SPACE: 1, Part.TYPE_SPACE: problem.functions.n_types}
    n_features = sum(len(w) for w in fit.weights) + more * sum(copies.get(Part(part), 0) for _, part in fit.blocks)
    return more <= 0 or n_features <= problem.options.max_features


def _with_amplitudes(problem: _Problem, fit: SurfaceFit) -> SurfaceFit | None:
    """Refit with type amplitudes, started at the ratio of each type's mean coefficient to the mean over types."""
    functions = problem.functions
    means = fit.coefficients(functions.type_means())
    present = np.bincount(functions.cell_type, minlength=functions.n_types) > 0
    centre = means[present].mean(axis=0)
    active = np.abs(centre) > 1e-6
    active[-1] = False
    if not active.any():
        return None
    amplitudes: Floats = np.ones_like(means)
    amplitudes[:, active] = np.clip(means[:, active] / centre[active], 0.1, 4.0)
    amplitudes[~present] = 1.0
    amplitudes /= amplitudes[present].mean(axis=0)
    refit = _Search(problem, amplitudes, fit.scale).run()
    null = problem.null_evidence
    if refit.log_evidence - null < (1.0 - _AMPLITUDE_LACK) * (fit.log_evidence - null):
        return None
    return _refined(problem, refit)


def _refined(problem: _Problem, fit: SurfaceFit) -> SurfaceFit:
    """Learn amplitudes and variances in turn, then search on from there."""
    for _ in range(2):
        amplitudes = _update_amplitudes(problem, fit)
        fit = _Search(problem, amplitudes, fit.scale, warm=fit).polish()
    return _choose_scale(problem, _Search(problem, fit.amplitudes, fit.scale, warm=fit).run())


def _is_better(fit: SurfaceFit | None, other: SurfaceFit) -> TypeGuard[SurfaceFit]:
    return fit is not None and fit.log_evidence > other.log_evidence + 1.0


def _update_amplitudes(problem: _Problem, fit: SurfaceFit) -> Floats:
    """One step of alternating least squares for the amplitudes, shrunk towards one by a learned variance."""
    y, functions = problem.y, problem.functions
    surfaces = fit.fields(functions, amplitudes=False, types=False)
    shared = sorted(k for k in surfaces if k != len(problem.x) - 1)
    if not shared:
        return fit.amplitudes
    base = np.stack([surfaces[k] * problem.x[k] for k in shared])
    current = fit.amplitudes[:, shared].T[:, functions.cell_type]
    residual = y - fit.prediction(problem.x[:-1].T, functions) + (base * (current - 1.0)).sum(axis=0)
    model = BlockModel(residual, fit.noise, groups=functions.bounds)
    model.add([base], [0.3], split=[True])
    step = model.learn(6).mean.reshape(functions.n_types, len(shared)) + 1.0
    weight = np.stack([(base[:, a:b] ** 2).sum(axis=1) for a, b in itertools.pairwise(functions.bounds)])
    level = (step * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-30)
    amplitudes = np.ones_like(fit.amplitudes)
    amplitudes[:, shared] = step / np.maximum(level, 0.2)
    return amplitudes


class _Problem(NamedTuple):
    """Standardised modulators (the intercept last), response, cell functions and options of one target."""

    x: Floats
    """Modulators x cells, float32."""
    y: Floats
    functions: CellFunctions
    options: SurfaceOptions

    @property
    def first_scale(self) -> int:
        """Length scale at which searches start: coarse, but not the coarsest."""
        return min(1, len(self.functions.space) - 1)

    @property
    def noise(self) -> float:
        """Variance of the response: the noise of a model that explains nothing."""
        return max(float(self.y.var()), 1e-12)

    @property
    def null_evidence(self) -> float:
        """Log evidence of a model that explains nothing."""
        return -0.5 * len(self.y) * (float(np.log(self.noise)) + 1.0)

    @classmethod
    def of(cls, x: Floats, y: Floats, functions: CellFunctions, options: SurfaceOptions) -> _Problem:
        """Append the intercept to ``x`` (cells x modulators), and put the cells in the order of their types."""
        y = np.asarray(y, dtype=np.float64)
        if np.any(np.diff(functions.cell_type) < 0):
            order = np.argsort(functions.cell_type, kind="stable")
            x, y, functions = x[order], y[order], functions.take(order)
        rows = np.ones((x.shape[1] + 1, len(x)), dtype=np.float32)
        rows[:-1] = x.T
        return cls(rows, y, functions, options)


class _Search:
    """Search for the parts of one target at one length scale and with given amplitudes."""

    def __init__(self, problem: _Problem, amplitudes: Floats, scale: int, *, warm: SurfaceFit | None = None) -> None:
        x, y, functions, self.options = problem
        self.scale, self.amplitudes = scale, amplitudes
        self.intercept = len(x) - 1
        self.functions = functions
        self.stack, self.places = functions.stack(scale), functions.places(scale)
        self.matrices = {part: self.stack[slice(*self.places[part : part + 2])] for part in range(Part.TYPE_SPACE)}
        self.even = bool(np.all(amplitudes == 1.0))
        scaled = x if self.even else x * np.ascontiguousarray(amplitudes.T, dtype=np.float32)[:, functions.cell_type]
        self.x = [x if part == Part.TYPE else scaled for part in Part]
        self.model = BlockModel(y, problem.noise, dtype=np.float32, groups=functions.bounds)
        self._null = problem.null_evidence
        self.blocks: list[tuple[int, int]] = []
        self.dropped: dict[tuple[int, int], int] = {}
        self._squares: tuple[Floats, Floats] | None = None
        if warm is None:
            self._add([(self.intercept, Part.POOLED)], [1.0])
        else:
            self._add(warm.blocks, [max(float(np.mean(w**2)), 1e-4) for w in warm.weights])
            self.model.noise = warm.noise

    def run(self) -> SurfaceFit:
        """Add and drop parts until nothing changes, then drop modulators without support."""
        return self._finish(self._grow())

    def polish(self) -> SurfaceFit:
        """Only learn the variances of the parts that are there; none is dropped."""
        return self._finish(self.model.learn(self.options.n_steps), drop=False)

    def _features(self, k: int, part: int) -> Floats:
        """Rows of a part; those that each type has a weight of its own for are split by the model."""
        if part == Part.TYPE:
            return self.x[part][k : k + 1]
        return self.matrices[Part.SPACE if part == Part.TYPE_SPACE else part] * self.x[part][k]

    def _size(self, part: int) -> int:
        if part == Part.TYPE_SPACE:
            return self.functions.n_types * len(self.matrices[Part.SPACE])
        return len(self.matrices[part])

    def _products(self, cells: Floats | None) -> tuple[Floats, Floats]:
        """Sums over cells of every modulator times every function (modulators x functions), weighted by ``cells``.

        Without weights, sums of their squares. The second are those of the intercept alone with a part for each type.
        """

        def weighted(functions: Floats) -> Floats:
            return functions**2 if cells is None else functions * cells

        def powered(x: Floats) -> Floats:
            return x**2 if cells is None else x

        stack, by_type = weighted(self.stack), self.matrices[Part.TYPE]
        products = powered(self.x[Part.SPACE]) @ stack.T
        if not self.even:
            own = slice(*self.places[Part.TYPE : Part.TYPE + 2])
            products[:, own] = powered(self.x[Part.TYPE]) @ stack[own].T
        of_types = (by_type * powered(self.x[Part.TYPE_SPACE][self.intercept])) @ weighted(self.matrices[Part.SPACE]).T
        return products, of_types.reshape(1, -1)

    def _add(self, blocks: Sequence[tuple[int, int]], variances: Sequence[float]) -> None:
        split = [part in (Part.TYPE, Part.TYPE_SPACE) for _, part in blocks]
        self.model.add([self._features(k, part) for k, part in blocks], variances, split=split)
        self.blocks.extend(blocks)

    def _keep(self, mask: Bools) -> None:
        self.model.keep(mask)
        self.blocks = [b for b, kept in zip(self.blocks, mask, strict=True) if kept]

    def _of(self, k: int) -> list[int]:
        return [i for i, (other, _) in enumerate(self.blocks) if other == k]

    def _modulators(self) -> list[int]:
        return sorted({k for k, _ in self.blocks if k != self.intercept})

    def _grow(self) -> Posterior:
        for _ in range(self.options.n_rounds):
            posterior = self._prune(self.model.learn(self.options.n_steps, exact=False))
            score = self.model.residual(posterior.mean) / self.model.noise
            if not self._try_best(score, self._at_least(self.options.add_threshold, posterior)):
                return posterior
        return self._prune(self.model.learn(self.options.n_steps, exact=False))

    def _at_least(self, threshold: float, posterior: Posterior) -> float:
        return max(threshold, self.options.min_share * (posterior.log_evidence - self._null))

    def _prune(self, posterior: Posterior) -> Posterior:
        """Drop the parts whose absence raises the evidence; the overall mean always stays."""
        factors = self.model.log_bayes_factors(posterior, [[i] for i in range(len(self.blocks))])
        kept = factors > 0
        kept[self.blocks.index((self.intercept, Part.POOLED))] = True
        if kept.all():
            return posterior
        for i in np.flatnonzero(~kept):
            self.dropped[self.blocks[i]] = self.dropped.get(self.blocks[i], 0) + 1
        self._keep(kept)
        return self.model.learn(0, exact=False)

    def gains(self, score: Floats) -> tuple[Floats, Floats]:
        r"""Approximate gain of log evidence, and the variance that gives it, for every modulator and part.

        With :math:`q = F^\top C^{-1} y` and :math:`s \approx \mathrm{diag}(F^\top F) / \sigma^2`,

        .. math:: \Delta(v) = \tfrac12 \sum_b \left( \frac{q_b^2 v}{1 + v s_b} - \log(1 + v s_b) \right)
        """
        gain = np.full((self.intercept + 1, len(Part)), -np.inf)
        variance = np.zeros_like(gain)
        if self._squares is None:
            self._squares = self._products(None)
        products = self._products(score.astype(np.float32))
        shared = slice(Part.TYPE_SPACE)
        for rows, parts, places, q, s in zip(
            (slice(None), slice(self.intercept, None)),
            (shared, slice(Part.TYPE_SPACE, None)),
            (self.places, np.array([0, products[1].size])),
            products,
            self._squares,
            strict=True,
        ):
            _best_variances(q, s, places, self.model.noise, _VARIANCE_GRID, gain[rows, parts], variance[rows, parts])
        return gain, variance

    def _try_best(self, score: Floats, threshold: float) -> bool:
        """Add the best modulators, each with all of its parts that would help; says whether there were any.

        Judging the parts of a modulator together matters: a wrong modulator that is correlated with the right one can
        match its mean effect, but seldom its mean effect and its surface.
        """
        gain, variance = self.gains(score)
        for block in self.blocks:
            gain[block] = -np.inf
        for block, times in self.dropped.items():
            if times > 1:
                gain[block] = -np.inf
        gain[gain <= self.options.add_threshold] = 0.0
        total = gain.sum(axis=1)
        gain[total <= threshold] = 0.0
        total = gain.sum(axis=1)
        room = self.options.max_features - self.model.n_features
        chosen: list[tuple[int, int]] = []
        for k in np.argsort(-total, kind="stable")[: self.options.max_added]:
            if total[k] <= 0.03 * total.max():
                break
            for part in np.flatnonzero(gain[k]):
                size = self._size(int(part))
                if size <= room:
                    chosen.append((int(k), int(part)))
                    room -= size
        if chosen:
            self._add(chosen, [float(variance[b]) for b in chosen])
        return bool(chosen)

    def _finish(self, posterior: Posterior, *, drop: bool = True) -> SurfaceFit:
        """Drop modulators below the threshold (if asked to), the weakest first, and write down the fit."""
        evidence = np.full(self.intercept + 1, -np.inf)
        while modulators := self._modulators():
            factors = self.model.log_bayes_factors(posterior, [self._of(k) for k in modulators])
            if not drop or factors.min() >= self._at_least(self.options.keep_threshold, posterior):
                evidence[modulators] = factors
                break
            weakest = modulators[int(factors.argmin())]
            self._keep(np.array([k != weakest for k, _ in self.blocks]))
            posterior = self.model.learn(3, exact=False)
        evidence[self.intercept] = np.inf
        posterior = self.model.posterior()
        places = [self.model.block(i) for i in range(len(self.blocks))]
        return SurfaceFit(
            blocks=list(self.blocks),
            weights=[posterior.mean[place] for place in places],
            amplitudes=self.amplitudes,
            scale=self.scale,
            evidence=evidence,
            noise=float(self.model.noise),
            log_evidence=posterior.log_evidence,
            factor=posterior.factor[:, np.concatenate(places)],
        )


@nb.njit(cache=True, nogil=True)
def _best_variances(products, squares, places, noise, grid, gain, variance):  # type: ignore[no-untyped-def]
    """Largest gain of log evidence over a grid of variances, and where, of each modulator and part; none if empty."""
    for k in range(products.shape[0]):
        for part in range(places.shape[0] - 1):
            if places[part] == places[part + 1]:
                continue
            for v in grid:
                fit, logdet, product = 0.0, 0.0, 1.0
                for b in range(places[part], places[part + 1]):
                    q, ratio = np.float64(products[k, b]), 1.0 + v * np.float64(squares[k, b]) / noise
                    fit += q * q * v / ratio
                    product *= ratio
                    if product > 1e200:  # one logarithm for many factors
                        logdet += np.log(product)
                        product = 1.0
                total = 0.5 * (fit - logdet - np.log(product))
                if total > gain[k, part]:
                    gain[k, part], variance[k, part] = total, v
