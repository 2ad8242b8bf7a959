r"""Hierarchical shrinkage: a pooled effect, departures by cell type and departures in space.

.. math::
    y_j = \sum_k x_{jk} \Big( a_k + a_{k c(j)} + \sum_b \phi_b(s_j) w_{kb} \Big) + f(s_j) + f_{c(j)}(s_j) + \epsilon_j

with one variance for all :math:`a_k` of a kind of term, one for their departures by cell type, one for those by
position, and one each for the smooth intercepts :math:`f`, all learned from the evidence. No term is left out of the
pooled effect: with noisy measurements, selection loses more than shrinkage. Only the terms with the clearest pooled
effects have departures, as many as ``max_features`` allows (all of them in small problems). Terms that do not vary in
space have departures by cell type alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.surfaces.group_ard import GroupArd, Posterior
from spacetravlr._core.surfaces.inference import Groups, TermInference, infer_terms
from spacetravlr._core.surfaces.model import Part, SurfaceFit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._types import Bools, Floats, Ints

_START = {Part.POOLED: 1e-2, Part.TYPE: 1e-3, Part.SPACE: 1e-3, Part.FINE: 0.1, Part.TYPE_SPACE: 0.1}


@dataclass(frozen=True)
class PooledOptions:
    """How hierarchies are fitted."""

    scale: int = 0
    """Length scale of departures by position, among those on offer."""
    max_features: int = 400
    """Largest number of departures by position, over the terms of a target."""
    n_steps: int = 8
    """Updates of the variances at each stage."""
    n_refit_steps: int = 2
    """Updates of the variances on other cells, from where they were."""


class PooledFits(NamedTuple):
    """A hierarchical model, and the fits that it must beat."""

    full: SurfaceFit
    smooth: SurfaceFit
    """The intercept alone."""
    terms: TermInference | None = None
    """Errors and tests of the terms, where they were judged."""
    adjusted: SurfaceFit | None = None
    """The intercept and the terms of adjustment, after a search; the intercept alone if there are none."""


class Hierarchy:
    """The hierarchy of one target, fitted to folds of cells: each fold is passed over once.

    Parameters
    ----------
    x
        Terms of variance one and mean zero within cell types, terms x cells (float32).
    kind
        Kind of each term; terms of a kind share variances.
    y
        Target of mean about zero within cell types, (cells,).
    functions
        What coefficients may depend on, at the same cells.
    folds
        Cells of each fold, in the order of their types.
    options
        How.
    region
        Spatial block of each cell; cells of different blocks count as independent where errors are stated. All of them
        count as independent when not given.
    by_type
        Terms without departures by position; none by default.
    adjustment
        Terms that support no claim, so that the others must add to them; none by default.
    """

    def __init__(
        self,
        x: Floats,
        kind: Ints,
        y: Floats,
        functions: CellFunctions,
        folds: Sequence[Ints],
        options: PooledOptions | None = None,
        region: Ints | None = None,
        by_type: Bools | None = None,
        adjustment: Bools | None = None,
    ) -> None:
        none = np.zeros(len(x), dtype=bool)
        self._by_type = none if by_type is None else by_type
        self._adjustment = none if adjustment is None else adjustment
        self._all_vary = True
        self.kind, self.options = np.asarray(kind), options or PooledOptions()
        self.n_types, self.intercept = functions.n_types, len(x)
        self._x = [x[:, rows] for rows in folds]
        self._functions = [functions.take(rows) for rows in folds]
        self._regions = None if region is None else [region[rows] for rows in folds]
        noise = max(float(np.var(y)), 1e-12)
        self._parts = [
            GroupArd(y[rows], noise, dtype=np.float32, groups=own.bounds)
            for rows, own in zip(folds, self._functions, strict=True)
        ]
        self._blocks: list[tuple[int, int]] = []
        self._noise = self._first_noise = noise
        self._start: dict[tuple[int, int], float] = {}
        self._add([(self.intercept, p) for p in (Part.TYPE, Part.FINE, Part.TYPE_SPACE)], [0, 1, 2])
        self._n_smooth = len(self._blocks)

    def search(self, folds: Sequence[int]) -> PooledFits:
        """Fit from the start, and choose which terms have departures."""
        n_steps = self.options.n_steps
        model = self._combined(folds)
        smooth = self._fit(model, model.learn(n_steps, exact=False))
        if not self.intercept:
            return PooledFits(smooth, smooth, adjusted=smooth)
        self._add([(k, Part.POOLED) for k in range(self.intercept)], self.kind.tolist())
        model = self._combined(folds)
        posterior = model.learn(n_steps, exact=False)
        self._remember(model)
        chosen = self._clearest(model, posterior)
        self._all_vary = len(chosen) == self.intercept - self._by_type.sum()
        n_kinds = int(self.kind.max()) + 1
        departures = [(k, Part.TYPE) for k in sorted([*chosen, *np.flatnonzero(self._by_type).tolist()])]
        departures += [(k, Part.SPACE) for k in chosen]
        self._add(departures, [int(self.kind[k]) + n_kinds * (part == Part.SPACE) for k, part in departures])
        model = self._combined(folds)
        posterior = model.learn(n_steps, exact=False)
        self._remember(model)
        adjusted = self._adjusted(folds) if self._adjustment.any() else smooth
        return PooledFits(self._fit(model, posterior), smooth, adjusted=adjusted)

    def refit(self, folds: Sequence[int], *, blind: bool = False, evidence: bool = False) -> PooledFits:
        """Fit again on other folds.

        Parameters
        ----------
        folds
            Which folds.
        blind
            Ignore the results of the search: learn all variances again, and leave out departures if only some terms
            have them. Otherwise continue from the variances that were found.
        evidence
            Judge each term.
        """
        n_steps = self.options.n_steps if blind else self.options.n_refit_steps
        model = self._combined(folds)
        if blind:
            model.variances = np.array([_START[Part(p)] for _, p in self._blocks])
            model.noise = self._first_noise
            if not self._all_vary:
                model.keep(np.arange(len(self._blocks)) < self._n_smooth + self.intercept)
        alone = model.only(np.arange(len(model)) < self._n_smooth)
        smooth = self._fit(alone, alone.learn(n_steps, exact=False))
        if not self.intercept:
            return PooledFits(smooth, smooth, TermInference.of_none(self.n_types) if evidence else None)
        posterior = model.learn(n_steps, exact=evidence)
        terms = self._judged(model, posterior, folds) if evidence else None
        return PooledFits(self._fit(model, posterior, evidence=evidence), smooth, terms)

    def _adjusted(self, folds: Sequence[int]) -> SurfaceFit:
        """Fit the intercept and the terms of adjustment, from the variances that were found."""
        model = self._combined(folds)
        kept = [k == self.intercept or bool(self._adjustment[k]) for k, _ in self._blocks]
        model.keep(np.array(kept))
        posterior = model.learn(self.options.n_steps, exact=False)
        return self._fit(model, posterior, [block for block, keep in zip(self._blocks, kept, strict=True) if keep])

    def _judged(self, model: GroupArd, posterior: Posterior, folds: Sequence[int]) -> TermInference:
        """Errors and tests of all terms."""
        cell_type = np.concatenate([self._functions[f].cell_type for f in folds])
        space = np.concatenate([self._functions[f].space[self.options.scale] for f in folds])
        scores = None
        if self._regions is not None:
            n = 1 + max(int(region.max(initial=0)) for region in self._regions)
            scores = np.sum([self._parts[f].scores(posterior.mean, self._regions[f], n) for f in folds], axis=0)
            scores = scores[:, np.unique(np.concatenate([self._regions[f] for f in folds]))]
        groups = Groups.of(cell_type, self.n_types, space)
        return infer_terms(model, posterior, self._blocks, self.intercept, groups, scores)

    def _add(self, blocks: Sequence[tuple[int, int]], numbers: Sequence[int]) -> None:
        """Add parts of coefficients, those of the same number with one variance."""
        split = [part in (Part.TYPE, Part.TYPE_SPACE) for _, part in blocks]
        start = [_START[Part(part)] for _, part in blocks]
        for x, functions, part in zip(self._x, self._functions, self._parts, strict=True):
            part.add([self._rows(x, functions, *block) for block in blocks], start, split=split, shared=numbers)
        self._blocks.extend(blocks)
        self._start |= dict(zip(blocks, start, strict=True))

    def _rows(self, x: Floats, functions: CellFunctions, k: int, part: int) -> Floats:
        scale = self.options.scale
        own = np.ones((1, x.shape[1]), dtype=np.float32) if k == self.intercept else x[k : k + 1]
        if part in (Part.SPACE, Part.TYPE_SPACE):
            return functions.stack(scale)[slice(*functions.places(scale)[Part.SPACE : Part.SPACE + 2])] * own
        return functions.of(part, scale).T.astype(np.float32) if part == Part.FINE else own

    def _combined(self, folds: Sequence[int]) -> GroupArd:
        model = GroupArd.combined([self._parts[f] for f in folds], self._noise)
        model.variances = np.array([self._start[block] for block in self._blocks])
        return model

    def _remember(self, model: GroupArd) -> None:
        self._start |= dict(zip(self._blocks, model.variances.tolist(), strict=True))
        self._noise = float(model.noise)

    def _fit(
        self,
        model: GroupArd,
        posterior: Posterior,
        blocks: Sequence[tuple[int, int]] | None = None,
        *,
        evidence: bool = False,
    ) -> SurfaceFit:
        blocks = self._blocks[: len(model)] if blocks is None else blocks
        places = [model.block(i) for i in range(len(blocks))]
        factors = np.full(self.intercept + 1, -np.inf)
        factors[-1] = np.inf
        if evidence:
            sets = [[i for i, (other, _) in enumerate(blocks) if other == k] for k in range(self.intercept)]
            factors[:-1] = model.log_bayes_factors(posterior, sets)
        return SurfaceFit(
            blocks=list(blocks),
            weights=[posterior.mean[place] for place in places],
            amplitudes=np.ones((self.n_types, self.intercept + 1)),
            scale=self.options.scale,
            evidence=factors,
            noise=float(model.noise),
            log_evidence=posterior.log_evidence,
            # to predict, nobody needs it
            factor=posterior.factor[:, np.concatenate(places)] if evidence else posterior.factor[:0],
        )

    def _clearest(self, model: GroupArd, posterior: Posterior) -> list[int]:
        """Terms with the largest pooled effects in units of their error, as many as may have departures by position.

        Half as many if not all terms can have them: departures are then expensive, and leaving them out costs little.
        """
        n_functions = max(self._functions[0].space[self.options.scale].shape[1], 1)
        pooled = [i for i, (k, part) in enumerate(self._blocks) if part == Part.POOLED and not self._by_type[k]]
        places = np.array([int(model.block(i)[0]) for i in pooled])
        error = np.linalg.norm(posterior.factor[:, places], axis=0)
        ranks = np.argsort(-np.abs(posterior.mean[places]) / np.maximum(error, 1e-12), kind="stable")
        terms = np.array([self._blocks[i][0] for i in pooled])
        most = self.options.max_features // n_functions
        return sorted(terms[ranks[: most if most >= len(terms) else most // 2]].tolist())


def uncentred(fit: SurfaceFit, offsets: Floats) -> SurfaceFit:
    r"""The same predictions from terms that are not centred: :math:`x_{jk} + o_{k c(j)}` instead of :math:`x_{jk}`.

    What the offsets contribute is taken from the intercept: the pooled and type parts from its type part, those by
    position from its surface in each type.

    Parameters
    ----------
    fit
        On centred terms.
    offsets
        Types x terms.
    """
    n_types, intercept = offsets.shape[0], fit.amplitudes.shape[1] - 1
    starts = np.cumsum([0, *(len(w) for w in fit.weights)])
    places = dict(zip(fit.blocks, starts[:-1].tolist(), strict=True))
    level = places[intercept, Part.TYPE] + np.arange(n_types)
    rows = np.vstack([np.concatenate(fit.weights), fit.factor])  # all change in the same way
    out = rows.copy()
    for part in (Part.POOLED, Part.TYPE, Part.SPACE):
        terms = [k for k, own in fit.blocks if k != intercept and own == part]
        if not terms:
            continue
        first, by_type = np.array([places[k, part] for k in terms]), offsets[:, terms].T
        if part == Part.POOLED:
            out[:, level] -= rows[:, first] @ by_type
        elif part == Part.TYPE:
            for c in range(n_types):
                out[:, level[c]] -= rows[:, first + c] @ by_type[:, c]
        else:
            width = len(fit.weights[fit.blocks.index((terms[0], part))])
            surface = places[intercept, Part.TYPE_SPACE] + np.arange(n_types) * width
            for f in range(width):
                out[:, surface + f] -= rows[:, first + f] @ by_type
    return replace(fit, weights=np.split(out[0], starts[1:-1]), factor=out[1:])


def rescaled(fit: SurfaceFit, units: Floats) -> SurfaceFit:
    """The same predictions from terms divided by ``units`` (terms,): weights times ``units``."""
    factors = np.append(units, 1.0)
    per_block = [factors[k] for k, _ in fit.blocks]
    per_weight = np.repeat(per_block, [len(w) for w in fit.weights])
    weights = [w * f for w, f in zip(fit.weights, per_block, strict=True)]
    return replace(fit, weights=weights, factor=fit.factor * per_weight)
