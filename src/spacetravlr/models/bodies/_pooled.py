"""One hierarchical model for all terms of a target, on regressors corrected for measurement error."""

from __future__ import annotations

from dataclasses import replace
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
    from spacetravlr._core.surfaces.inference import TermInference
    from spacetravlr._core.surfaces.model import SurfaceFit
    from spacetravlr._types import Floats, Ints


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
        assert task.functions is not None
        self.result = empty_result(task.block)
        self.result.without_terms = self.result.prediction.copy()
        self.result.without_claims = self.result.prediction.copy()
        self._folds = [by_type(inputs, inputs.fold == fold) for fold in range(inputs.n_folds + 1)]
        # what differs between folds is learned by the intercept
        self._means = type_means(task.block.y, inputs.cell_type, inputs.n_types, ~inputs.report)
        if inputs.calibration is not None:
            _ = inputs.expected_regulators  # before several threads ask for it
        with threadpool_limits(1):  # targets are the threads
            self._fits = list(task.pool.map(self._fit, range(len(task.block))))
        self.result.evidence_gain = np.array([fit.evidence_gain for fit in self._fits])
        choosing, y = ~inputs.report, task.block.y
        error = (y - self.result.prediction) ** 2
        # where smooth position predicts worse than the mean of the type, to beat it is not enough
        rivals = (self.result.without_terms, self._means[inputs.cell_type])
        gains = [((y - rival) ** 2 - error)[choosing] for rival in rivals]
        self.result.p_terms = np.max([paired_block_p(gain, inputs.cv_block[choosing]) for gain in gains], axis=0)
        del self._folds

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

    def _fit(self, t: int) -> _Fit:
        task, inputs, options = self.task, self.task.inputs, self.task.options.pooled
        block, functions = task.block, self.task.functions
        assert functions is not None
        values = self._regressors(t)
        kind = block.group[block.columns(t)]
        means = type_means(values, inputs.cell_type, inputs.n_types, np.ones(inputs.n_cells, dtype=bool))
        values -= means[inputs.cell_type].astype(np.float32)
        spread = values.std(axis=0, dtype=np.float64)
        spread = np.where(spread > 1e-6 * block.spread[block.columns(t)], spread, np.inf)
        x: Floats = np.ascontiguousarray((values / spread.astype(np.float32)).T)
        scale = float(block.y_spread[t])
        level = self._means[inputs.cell_type, t]
        if inputs.calibration is not None:  # what the depth of a cell does to its measured value
            level = level + inputs.calibration.offset[:, inputs.targets.gene[block.index[t]]]
        y = (block.y[:, t].astype(np.float64) - level) / scale

        def predict(fit: SurfaceFit, rows: Ints) -> Floats:
            there = functions.take(rows, scale=fit.scale)
            return np.asarray(level[rows] + scale * fit.prediction(x[:, rows].T, there))

        result, report = self.result, inputs.n_folds
        assert result.without_terms is not None
        assert result.without_claims is not None
        by_type = kind == Kind.LIGAND  # to adjust for co-expression takes no map of it
        adjustment = np.isin(kind, ADJUSTMENT_KINDS)
        hierarchy = Hierarchy(x, kind, y, functions, self._folds, options, inputs.cv_block, by_type, adjustment)
        choosing = list(range(inputs.n_folds))
        found = hierarchy.search(choosing)
        assert found.adjusted is not None
        result.without_claims[self._folds[report], t] = predict(found.adjusted, self._folds[report])
        for fold in choosing:
            result.train[self._folds[fold], t] = predict(found.full, self._folds[fold])
        for fold in (report, *choosing):
            task.pool.check()
            others = [f for f in choosing if f != fold]
            fits = found if fold == report else hierarchy.refit(others, blind=True)
            result.prediction[self._folds[fold], t] = predict(fits.full, self._folds[fold])
            result.without_terms[self._folds[fold], t] = predict(fits.smooth, self._folds[fold])
        fits = hierarchy.refit([*choosing, report], evidence=True)
        final, terms = fits.full, fits.terms
        task.progress()
        columns = block.columns(t)
        mean, unit = block.mean[columns], block.spread[columns]
        delivered = uncentred(rescaled(final, unit / spread), (means - mean) / unit)
        assert terms is not None
        draws = self._draws(t, delivered, terms, unit / spread)
        if not task.options.uncertainty:  # as large as all the rest
            delivered = replace(delivered, factor=delivered.factor[:0])
        gain = found.full.log_evidence - max(found.adjusted.log_evidence, found.smooth.log_evidence)
        return _Fit(delivered, final.evidence[:-1], gain, terms.rescaled(scale / spread), draws)

    def _draws(self, t: int, fit: SurfaceFit, terms: TermInference, units: Floats) -> Floats:
        """Weights less their means in draws from the posterior, with what else enlarges errors: weights x draws.

        They are the same whatever other targets are fitted. ``units`` are those of the weights (terms,).
        """
        name = self.task.inputs.target_names[int(self.task.block.index[t])]
        rng = np.random.default_rng([self.task.options.rng_seed, *name.encode()])
        n_draws = self.task.options.n_draws
        draws = np.sqrt(terms.inflation) * (fit.factor.T @ rng.standard_normal((fit.factor.shape[0], n_draws)))
        credited = (terms.model_error * units)[:, None] * rng.standard_normal((len(units), n_draws))
        starts = np.cumsum([0, *(len(w) for w in fit.weights)])
        for (k, part), start, weights in zip(fit.blocks, starts[:-1].tolist(), fit.weights, strict=True):
            if part == Part.POOLED:
                draws[start] += credited[k]
            if k < len(units):  # what the data alone say: larger than what is delivered, and less sure
                determined = max(float(terms.determined[k]), _LEAST_DETERMINED)
                own = slice(start, start + len(weights))
                draws[own] = draws[own] / np.sqrt(determined) + (1 / determined - 1) * weights[:, None]
        return np.asarray(draws)

    def _regressors(self, t: int) -> Floats:
        """Values of the terms of target ``t``, cells x terms: expected ones where expression is measured with noise."""
        block, inputs = self.task.block, self.task.inputs
        columns = block.columns(t)
        calibration = inputs.calibration
        if calibration is None:
            return block.values[:, columns].copy()
        terms = inputs.terms.take(np.sort(inputs.targets.terms_of(int(block.index[t]))))
        genes, local = np.unique(terms.gene, return_inverse=True)
        own = int(inputs.targets.gene[block.index[t]])
        if calibration.factors[own].any():
            expected = calibration.expected(genes, without=own)
        else:
            expected = inputs.expected_regulators[:, np.searchsorted(inputs.regulators, genes)]
        return term_values(expected, inputs.received, Terms(terms.kind, local, terms.signal))
