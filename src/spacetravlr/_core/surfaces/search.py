"""Search for the parts of a coefficient surface: which modulators have which, at one length scale."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.kernels import kernel
from spacetravlr._core.surfaces.group_ard import GroupArd, Posterior
from spacetravlr._core.surfaces.model import Part, SurfaceFit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._types import Bools, Floats

_VARIANCE_GRID = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])


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


class Problem(NamedTuple):
    """Standardised modulators (the intercept last), response, cell functions and options of one target."""

    x: Floats
    """Modulators x cells, float32."""
    y: Floats
    functions: CellFunctions
    options: SurfaceOptions
    buffer: Floats
    """Memory for the rows of one search after the other."""
    scaled: Floats
    """The same for modulators times their amplitudes."""

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
    def of(cls, x: Floats, y: Floats, functions: CellFunctions, options: SurfaceOptions) -> Problem:
        """Append the intercept to ``x`` (cells x modulators), and put the cells in the order of their types."""
        y = np.asarray(y, dtype=np.float64)
        if np.any(np.diff(functions.cell_type) < 0):
            order = np.argsort(functions.cell_type, kind="stable")
            x, y, functions = x[order], y[order], functions.take(order)
        rows = np.ones((x.shape[1] + 1, len(x)), dtype=np.float32)
        rows[:-1] = x.T
        buffer = np.empty((options.max_features, len(x)), dtype=np.float32)
        return cls(rows, y, functions, options, buffer, np.empty_like(rows))

    def times(self, amplitudes: Floats) -> Floats:
        """Modulators times amplitudes (cell types x modulators); overwritten by the next call."""
        for a, (start, stop) in zip(
            amplitudes.astype(np.float32), itertools.pairwise(self.functions.bounds), strict=True
        ):
            np.multiply(self.x[:, start:stop], a[:, None], out=self.scaled[:, start:stop])
        return self.scaled


class Search:
    """Search for the parts of one target at one length scale and with given amplitudes."""

    def __init__(self, problem: Problem, amplitudes: Floats, scale: int, *, warm: SurfaceFit | None = None) -> None:
        x, y, functions, self.options = problem[:4]
        self.scale, self.amplitudes = scale, amplitudes
        self.intercept = len(x) - 1
        self.functions = functions
        self.stack, self.places = functions.stack(scale), functions.places(scale)
        self.matrices = {part: self.stack[slice(*self.places[part : part + 2])] for part in range(Part.TYPE_SPACE)}
        self.even = bool(np.all(amplitudes == 1.0))
        scaled = x if self.even else problem.times(amplitudes)
        self.x = [x if part == Part.TYPE else scaled for part in Part]
        self.model = GroupArd(y, problem.noise, dtype=np.float32, groups=functions.bounds, buffer=problem.buffer)
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
        n_free = self.options.max_features - self.model.n_features
        chosen: list[tuple[int, int]] = []
        for k in np.argsort(-total, kind="stable")[: self.options.max_added]:
            if total[k] <= 0.03 * total.max():
                break
            for part in np.flatnonzero(gain[k]):
                size = self._size(int(part))
                if size <= n_free:
                    chosen.append((int(k), int(part)))
                    n_free -= size
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


@kernel
def _best_variances(products, squares, places, noise, grid, gain, variance):
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
