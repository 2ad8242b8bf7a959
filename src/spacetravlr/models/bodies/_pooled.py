"""One hierarchical model for all terms of a target, on regressors corrected for measurement error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from spacetravlr._core.design import ADJUSTMENT_KINDS, Kind, Terms, term_values
from spacetravlr._core.scores import paired_block_p, type_means
from spacetravlr._core.surfaces.model import Part
from spacetravlr._core.surfaces.pooled import Hierarchy, rescaled, uncentred
from spacetravlr.models.bodies._base import Body, BodyState, by_type, empty_result
from spacetravlr.models.bodies._surface import SurfaceParts, original_deviations

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacetravlr._core.standardise import BlockDesign
    from spacetravlr._core.surfaces.inference import TermInference
    from spacetravlr._core.surfaces.model import CellFunctions, SurfaceFit
    from spacetravlr._core.surfaces.pooled import PooledOptions
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.bodies._inputs import FitInputs


#: Part of an effect that shrinkage leaves below which draws are as if it were this: where the data say next to nothing.
_LEAST_DETERMINED = 0.2


class _Fit(NamedTuple):
    """Hierarchy of one target, standardised units."""

    final: SurfaceFit
    evidence: Floats
    """Log Bayes factor of each term."""
    evidence_gain: float
    """Log evidence that terms which claim something add, on the choosing folds."""
    terms: TermInference
    """Errors and tests of the terms, in original units."""
    draws: Floats
    """Weights less their means, in draws from the posterior: weights x draws."""


class _Outcome(NamedTuple):
    """Hierarchy of one target and what it predicts; see :class:`BodyResult` for the arrays, each of shape (cells,)."""

    fit: _Fit
    prediction: Floats
    train: Floats
    without_terms: Floats
    without_claims: Floats


@dataclass(frozen=True)
class _Shared:
    """What the fits of all targets of a block read."""

    block: BlockDesign
    inputs: FitInputs
    functions: CellFunctions
    folds: list[Ints]
    """Cells of each fold, by type."""
    means: Floats
    """Mean of each target in the choosing folds, types x targets."""
    options: PooledOptions
    uncertainty: bool
    n_draws: int
    seed: int


class PooledBody(Body):
    """A pooled effect of every term with departures by cell type and position, each shrunk by a learned amount.

    Regressors are the expected values of each regulator given the counts (:mod:`spacetravlr._core.calibration`), or
    expression itself if that is exact.
    """

    name = "pooled"
    chosen_by = ("pooled",)
    chosen_with_noise = ("auto", "pooled")
    reads_functions = True
    reports_progress = True
    least_evidence = float(np.log(9.0))  # odds of nine to one: one in ten such terms is wrong
    varying = SurfaceParts
    _fits: list[_Fit]

    def compare(self) -> None:
        """Fit and predict everything."""
        task, inputs = self.task, self.task.inputs
        block, options = task.block, task.options
        assert task.functions is not None
        self.result = result = empty_result(block)
        result.without_terms = result.prediction.copy()
        result.without_claims = result.prediction.copy()
        # what differs between folds is learned by the intercept
        self._means = type_means(block.y, inputs.cell_type, inputs.n_types, ~inputs.report)
        if inputs.calibration is not None:
            _ = inputs.expected_regulators  # before several threads ask for it
        folds = [by_type(inputs, inputs.fold == fold) for fold in range(inputs.n_folds + 1)]
        shared = _Shared(
            block, inputs, task.functions, folds, self._means, options.pooled, options.uncertainty, options.n_draws,
            options.rng_seed,
        )  # fmt: skip
        self._fits = []
        with threadpool_limits(1):  # targets are the threads
            for t, found in enumerate(task.each_target(_fit_target, shared)):
                self._fits.append(found.fit)
                result.prediction[:, t], result.train[:, t] = found.prediction, found.train
                result.without_terms[:, t], result.without_claims[:, t] = found.without_terms, found.without_claims
                task.progress()
        result.evidence_gain = np.array([fit.evidence_gain for fit in self._fits])
        choosing, y = ~inputs.report, block.y
        error = (y - result.prediction) ** 2
        # where smooth position predicts worse than the mean of the type, to beat it is not enough
        rivals = (result.without_terms, self._means[inputs.cell_type])
        gains = [((y - rival) ** 2 - error)[choosing] for rival in rivals]
        result.p_terms = np.max([paired_block_p(gain, inputs.cv_block[choosing]) for gain in gains], axis=0)

    def state(self, t: int) -> BodyState:
        """Deliver the hierarchy of all cells."""
        return BodyState(self.task.block.constant(t, self._means[:, t]), self._fits[t].final)

    def inference(self, t: int) -> TermInference:
        """Errors and tests of the terms, in original units."""
        return self._fits[t].terms

    def draws(self, t: int) -> tuple[SurfaceFit, Floats]:
        """What is delivered, and its weights less their means in draws from the posterior: weights x draws."""
        return self._fits[t].final, self._fits[t].draws

    def evidence(self, t: int) -> Floats:
        """Log Bayes factor of each term, with its departures, against its absence."""
        return self._fits[t].evidence

    def standard_deviations(self, t: int) -> Floats | None:
        """Posterior standard deviations, less the error of the type means."""
        functions = self.task.functions
        return None if functions is None else original_deviations(self._fits[t].final, self.task.block, t, functions)


def _fit_target(shared: _Shared, t: int, check: Callable[[], None]) -> _Outcome:
    """Fit target ``t`` of the block to every fold, and predict it."""
    block, inputs, functions = shared.block, shared.inputs, shared.functions
    values = _regressors(block, inputs, t)
    columns = block.columns(t)
    kind = block.group[columns]
    means = type_means(values, inputs.cell_type, inputs.n_types, np.ones(inputs.n_cells, dtype=bool))
    values -= means[inputs.cell_type].astype(np.float32)
    spread = values.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 1e-6 * block.spread[columns], spread, np.inf)
    x: Floats = np.ascontiguousarray((values / spread.astype(np.float32)).T)
    scale = float(block.y_spread[t])
    level = shared.means[inputs.cell_type, t]
    if inputs.calibration is not None:  # what the depth of a cell does to its measured value
        level = level + inputs.calibration.offset[:, inputs.targets.gene[block.index[t]]]
    y = (block.y[:, t].astype(np.float64) - level) / scale

    def predict(fit: SurfaceFit, fold: int, to: Floats) -> None:
        rows = shared.folds[fold]
        there = functions.take(rows, scale=fit.scale)
        to[rows] = level[rows] + scale * fit.prediction(x[:, rows].T, there)

    prediction, train, without_terms, without_claims = np.full((4, inputs.n_cells), np.nan)
    report, choosing = inputs.n_folds, list(range(inputs.n_folds))
    hierarchy = Hierarchy(
        x, kind, y, functions, shared.folds, shared.options, inputs.cv_block,
        by_type=kind == Kind.LIGAND,  # to adjust for co-expression takes no map of it
        adjustment=np.isin(kind, ADJUSTMENT_KINDS),
    )  # fmt: skip
    found = hierarchy.search(choosing)
    assert found.adjusted is not None
    predict(found.adjusted, report, without_claims)
    for fold in choosing:
        predict(found.full, fold, train)
    for fold in (report, *choosing):
        check()
        others = [f for f in choosing if f != fold]
        fits = found if fold == report else hierarchy.refit(others, blind=True)
        predict(fits.full, fold, prediction)
        predict(fits.smooth, fold, without_terms)
    fits = hierarchy.refit([*choosing, report], evidence=True)
    final, terms = fits.full, fits.terms
    mean, unit = block.mean[columns], block.spread[columns]
    delivered = uncentred(rescaled(final, unit / spread), (means - mean) / unit)
    assert terms is not None
    draws = _draws(shared, t, delivered, terms, unit / spread)
    if not shared.uncertainty:  # as large as all the rest
        delivered = replace(delivered, factor=delivered.factor[:0])
    gain = found.full.log_evidence - max(found.adjusted.log_evidence, found.smooth.log_evidence)
    fit = _Fit(delivered, final.evidence[:-1], gain, terms.rescaled(scale / spread), draws)
    return _Outcome(fit, prediction, train, without_terms, without_claims)


def _draws(shared: _Shared, t: int, fit: SurfaceFit, terms: TermInference, units: Floats) -> Floats:
    """Weights less their means in draws from the posterior, with what else enlarges errors: weights x draws.

    They are the same whatever other targets are fitted. ``units`` are those of the weights (terms,).
    """
    name = shared.inputs.target_names[int(shared.block.index[t])]
    rng = np.random.default_rng([shared.seed, *name.encode()])
    draws = np.sqrt(terms.inflation) * (fit.factor.T @ rng.standard_normal((fit.factor.shape[0], shared.n_draws)))
    credited = (terms.model_error * units)[:, None] * rng.standard_normal((len(units), shared.n_draws))
    starts = np.cumsum([0, *(len(w) for w in fit.weights)])
    for (k, part), start, weights in zip(fit.blocks, starts[:-1].tolist(), fit.weights, strict=True):
        if part == Part.POOLED:
            draws[start] += credited[k]
        if k < len(units):  # what the data alone say: larger than what is delivered, and less sure
            determined = max(float(terms.determined[k]), _LEAST_DETERMINED)
            own = slice(start, start + len(weights))
            draws[own] = draws[own] / np.sqrt(determined) + (1 / determined - 1) * weights[:, None]
    return np.asarray(draws)


def _regressors(block: BlockDesign, inputs: FitInputs, t: int) -> Floats:
    """Values of the terms of target ``t``, cells x terms: expected ones where expression is measured with noise."""
    calibration = inputs.calibration
    if calibration is None:
        return block.values[:, block.columns(t)].copy()
    terms = inputs.terms.take(np.sort(inputs.targets.terms_of(int(block.index[t]))))
    genes, local = np.unique(terms.gene, return_inverse=True)
    own = int(inputs.targets.gene[block.index[t]])
    if calibration.factors[own].any():
        expected = calibration.expected(genes, without=own)
    else:
        expected = inputs.expected_regulators[:, np.searchsorted(inputs.regulators, genes)]
    return term_values(expected, inputs.received, Terms(terms.kind, local, terms.signal))
