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

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

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
    n_steps: int = 3
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
    covariance: Floats = field(repr=False)
    """Posterior covariance of all weights, in the order of ``blocks``."""

    def coefficients(self, functions: CellFunctions) -> Floats:
        """Coefficients at cells: cells x modulators, the intercept last."""
        matrices = self._matrices(functions)
        values = np.zeros((len(functions.cell_type), self.amplitudes.shape[1]))
        for (k, part), weights in zip(self.blocks, self.weights, strict=True):
            shared = matrices[part] @ weights
            values[:, k] += shared if part == Part.TYPE else shared * self.amplitudes[functions.cell_type, k]
        return values

    def standard_deviations(self, functions: CellFunctions) -> Floats:
        """Posterior standard deviation of each coefficient at cells: cells x modulators, the intercept last."""
        matrices = self._matrices(functions)
        offsets = np.concatenate([[0], np.cumsum([len(w) for w in self.weights])])
        values = np.zeros((len(functions.cell_type), self.amplitudes.shape[1]))
        for k in {k for k, _ in self.blocks}:
            mine = [i for i, (other, _) in enumerate(self.blocks) if other == k]
            index = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in mine])
            features = np.hstack(
                [self._scaled(matrices[p], k, p, functions.cell_type) for p in (self.blocks[i][1] for i in mine)]
            )
            variance = ((features @ self.covariance[np.ix_(index, index)]) * features).sum(axis=1)
            values[:, k] = np.sqrt(np.maximum(variance, 0.0))
        return values

    def _matrices(self, functions: CellFunctions) -> dict[int, Floats]:
        return {part: functions.of(part, self.scale) for part in {part for _, part in self.blocks}}

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
        for _ in range(2):
            tried = _with_amplitudes(problem, best)
            if tried is None or tried.log_evidence <= best.log_evidence + 1.0:
                break
            best = tried
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
    coefficients = fit.coefficients(functions)
    counts = np.bincount(functions.cell_type, minlength=functions.n_types)
    sums = np.zeros((functions.n_types, coefficients.shape[1]))
    np.add.at(sums, functions.cell_type, coefficients)
    means = sums / np.maximum(counts, 1)[:, None]
    present = counts > 0
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
    for _ in range(2):
        amplitudes = _update_amplitudes(problem, refit)
        refit = _Search(problem, amplitudes, refit.scale, warm=refit).polish()
    return _choose_scale(problem, _Search(problem, refit.amplitudes, refit.scale, warm=refit).run())


def _update_amplitudes(problem: _Problem, fit: SurfaceFit) -> Floats:
    """One step of alternating least squares for the amplitudes, shrunk towards one by a learned variance."""
    y, functions = problem.y, problem.functions
    n_types = functions.n_types
    shared = sorted({k for k, part in fit.blocks if part != Part.TYPE and k != len(problem.x) - 1})
    if not shared:
        return fit.amplitudes
    flat = SurfaceFit(
        [b for b in fit.blocks if b[1] != Part.TYPE],
        [w for b, w in zip(fit.blocks, fit.weights, strict=True) if b[1] != Part.TYPE],
        np.ones_like(fit.amplitudes), fit.scale, fit.evidence, fit.noise, fit.log_evidence, fit.covariance,
    )  # fmt: skip
    base = flat.coefficients(functions)[:, shared] * problem.x[shared].T
    current = fit.amplitudes[:, shared]
    residual = y - (fit.coefficients(functions) * problem.x.T).sum(axis=1)
    residual += (base * (current[functions.cell_type] - 1.0)).sum(axis=1)
    model = BlockModel(residual, fit.noise)
    one_hot = functions.of(Part.TYPE, fit.scale)
    model.add([(base.T[:, None, :] * one_hot.T).reshape(-1, len(y))], [0.3])
    step = model.learn(6).mean.reshape(len(shared), n_types).T + 1.0
    weight = np.zeros((n_types, len(shared)))
    np.add.at(weight, functions.cell_type, base**2)
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
        """Append the intercept to ``x`` (cells x modulators)."""
        rows = np.ones((x.shape[1] + 1, len(x)), dtype=np.float32)
        rows[:-1] = x.T
        return cls(rows, np.asarray(y, dtype=np.float64), functions, options)


class _Search:
    """Search for the parts of one target at one length scale and with given amplitudes."""

    def __init__(self, problem: _Problem, amplitudes: Floats, scale: int, *, warm: SurfaceFit | None = None) -> None:
        x, y, functions, self.options = problem
        self.scale, self.amplitudes = scale, amplitudes
        self.intercept = len(x) - 1
        self.functions = functions
        self.matrices: dict[int, Floats] = {
            part: np.ascontiguousarray(functions.of(part, scale).T, dtype=np.float32)
            for part in Part
            if part != Part.TYPE_SPACE
        }
        even = bool(np.all(amplitudes == 1.0))
        scaled = x if even else x * np.ascontiguousarray(amplitudes.T, dtype=np.float32)[:, functions.cell_type]
        self.x = [x if part == Part.TYPE else scaled for part in Part]
        self.model = BlockModel(y, problem.noise, dtype=np.float32)
        self._null = problem.null_evidence
        self.blocks: list[tuple[int, int]] = []
        self.dropped: dict[tuple[int, int], int] = {}
        self._squares: dict[int, Floats] | None = None
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
        if part == Part.TYPE_SPACE:
            by_type = self.matrices[Part.TYPE][:, None, :] * (self.matrices[Part.SPACE] * self.x[part][k])
            return by_type.reshape(-1, by_type.shape[-1])
        return self.matrices[part] * self.x[part][k]

    def _size(self, part: int) -> int:
        if part == Part.TYPE_SPACE:
            return self.functions.n_types * len(self.matrices[Part.SPACE])
        return len(self.matrices[part])

    def _products(self, part: int, cells: Floats | None) -> Floats:
        r"""Sums over cells of every modulator times every function (modulators x functions), weighted by ``cells``.

        Without weights, sums of their squares. The intercept alone has a part for each type.
        """
        x = self.x[part][self.intercept :] if part == Part.TYPE_SPACE else self.x[part]
        x = x**2 if cells is None else x * cells
        space = self.matrices[Part.SPACE if part == Part.TYPE_SPACE else part]
        space = space**2 if cells is None else space
        if part == Part.TYPE_SPACE:
            return ((self.matrices[Part.TYPE] * x) @ space.T).reshape(1, -1).astype(np.float64)
        return (x @ space.T).astype(np.float64)

    def _add(self, blocks: Sequence[tuple[int, int]], variances: Sequence[float]) -> None:
        self.model.add([self._features(k, part) for k, part in blocks], variances)
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
            posterior = self._prune(self.model.learn(self.options.n_steps))
            score = self.model.residual(posterior.mean) / self.model.noise
            if not self._try_best(score, self._at_least(self.options.add_threshold, posterior)):
                return posterior
        return self._prune(self.model.learn(self.options.n_steps))

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
        return self.model.learn(2)

    def gains(self, score: Floats) -> tuple[Floats, Floats]:
        r"""Approximate gain of log evidence, and the variance that gives it, for every modulator and part.

        With :math:`q = F^\top C^{-1} y` and :math:`s \approx \mathrm{diag}(F^\top F) / \sigma^2`,

        .. math:: \Delta(v) = \tfrac12 \sum_b \left( \frac{q_b^2 v}{1 + v s_b} - \log(1 + v s_b) \right)
        """
        gain = np.full((self.intercept + 1, len(Part)), -np.inf)
        variance = np.zeros_like(gain)
        if self._squares is None:
            self._squares = {part: self._products(part, None) for part in Part if self._size(part)}
        for part, squares in self._squares.items():
            rows = slice(self.intercept, None) if part == Part.TYPE_SPACE else slice(None)
            q2 = self._products(part, score.astype(np.float32)) ** 2
            s = squares / self.model.noise
            tried = np.stack([(q2 * v / (1 + v * s) - np.log1p(v * s)).sum(axis=1) for v in _VARIANCE_GRID]) / 2
            gain[rows, part] = tried.max(axis=0)
            variance[rows, part] = _VARIANCE_GRID[tried.argmax(axis=0)]
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
            posterior = self.model.learn(3)
        evidence[self.intercept] = np.inf
        offsets = self.model.offsets
        return SurfaceFit(
            blocks=list(self.blocks),
            weights=[posterior.mean[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)],
            amplitudes=self.amplitudes,
            scale=self.scale,
            evidence=evidence,
            noise=float(self.model.noise),
            log_evidence=posterior.log_evidence,
            covariance=posterior.covariance,
        )
