"""One hierarchy of shrinkage for all terms of a target, on regressors less their measurement error."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from spacetravlr._core.design import term_values
from spacetravlr._core.scores import sums_by_type, type_means
from spacetravlr._core.surfaces.pooled import fit_pooled, refit_pooled, rescaled, uncentred
from spacetravlr.models.bodies._base import Body, BodyState, empty_result, fitted_rows
from spacetravlr.models.bodies._surface import SurfaceParts, original_deviations

if TYPE_CHECKING:
    from spacetravlr._core.design import Terms
    from spacetravlr._core.surfaces.model import SurfaceFit
    from spacetravlr._types import Bools, Floats, Ints


class _Fit(NamedTuple):
    """Hierarchy of one target, standardised units."""

    final: SurfaceFit
    evidence: Floats
    """Log Bayes factor of each term."""
    evidence_gain: float
    """Log evidence of all terms together, on the choosing folds."""


class PooledBody(Body):
    """A pooled effect of every term, with departures by cell type and position, each shrunk as far as the data ask.

    Regressors are what is expected of each regulator given what was counted (:mod:`spacetravlr._core.calibration`), or
    expression itself where that is exact.
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
        order = np.argsort(inputs.cell_type, kind="stable")  # the model wants the cells of a type side by side
        self._seen = [_rows(order, fitted_rows(inputs, fold)) for fold in range(inputs.n_folds + 1)]
        self._left_out = [_rows(order, inputs.fold == fold) for fold in range(inputs.n_folds + 1)]
        self._all = order
        self._means = [
            type_means(task.block.y, inputs.cell_type, inputs.n_types, fitted_rows(inputs, fold))
            for fold in range(inputs.n_folds + 1)
        ]
        self._final_means = type_means(task.block.y, inputs.cell_type, inputs.n_types, np.ones(inputs.n_cells, bool))
        calibration = inputs.calibration
        self._shared = None if calibration is None else calibration.expected(np.arange(inputs.expression.shape[1]))
        with threadpool_limits(1):  # targets are the threads
            self._fits = list(task.pool.map(self._fit, range(len(task.block))))
        self.result.evidence_gain = np.array([fit.evidence_gain for fit in self._fits])
        del self._seen, self._left_out, self._all, self._means, self._shared

    def state(self, t: int) -> BodyState:
        """Deliver the hierarchy of all cells."""
        return BodyState(self.task.block.constant(t, self._final_means[:, t]), self._fits[t].final)

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
        counts = np.maximum(np.bincount(inputs.cell_type, minlength=inputs.n_types), 1)[:, None]
        means = sums_by_type(values, inputs.cell_type, inputs.n_types).T / counts
        values -= means[inputs.cell_type].astype(np.float32)
        spread = values.std(axis=0, dtype=np.float64)
        spread = np.where(spread > 1e-6 * block.spread[block.columns(t)], spread, np.inf)
        x: Floats = np.ascontiguousarray((values / spread.astype(np.float32)).T)
        scale = float(block.y_spread[t])

        def response(rows: Ints, means: Floats) -> Floats:
            centred = block.y[rows, t].astype(np.float64) - means[inputs.cell_type[rows], t]
            return np.asarray(centred / scale)

        def predict(fit: SurfaceFit, rows: Ints, means: Floats) -> Floats:
            there = functions.take(rows, scale=fit.scale)
            return np.asarray(means[inputs.cell_type[rows], t] + scale * fit.prediction(x[:, rows].T, there))

        result, last = self.result, inputs.n_folds
        assert result.without_terms is not None
        rows, held = self._seen[last], self._left_out[last]
        fits, variances = fit_pooled(x[:, rows], kind, response(rows, self._means[last]), functions.take(rows), options)
        result.train[rows, t] = predict(fits.full, rows, self._means[last])
        result.prediction[held, t] = predict(fits.full, held, self._means[last])
        result.without_terms[held, t] = predict(fits.smooth, held, self._means[last])
        for fold in range(inputs.n_folds):
            task.pool.check()
            rows, held, y = self._seen[fold], self._left_out[fold], self._means[fold]
            again = refit_pooled(fits, variances, x[:, rows], kind, response(rows, y), functions.take(rows), options)
            result.prediction[held, t] = predict(again.full, held, y)
            result.without_terms[held, t] = predict(again.smooth, held, y)
        task.pool.check()
        rows = self._all
        final = refit_pooled(
            fits, variances, x[:, rows], kind, response(rows, self._final_means), functions.take(rows), options
        ).full
        task.progress()
        columns = block.columns(t)
        mean, unit = block.mean[columns], block.spread[columns]
        delivered = uncentred(rescaled(final, unit / spread), (means - mean) / unit)
        return _Fit(delivered, final.evidence[:-1], fits.full.log_evidence - fits.smooth.log_evidence)

    def _regressors(self, t: int) -> Floats:
        """Values of the terms of target ``t``, cells x terms: expected ones where expression is measured with noise."""
        block, inputs = self.task.block, self.task.inputs
        columns = block.columns(t)
        calibration = inputs.calibration
        if calibration is None:
            return block.values[:, columns].copy()
        terms = _terms_of(inputs.terms, inputs.targets.terms_of(int(block.index[t])))
        genes, local = np.unique(terms.gene, return_inverse=True)
        own = int(inputs.targets.gene[block.index[t]])
        assert self._shared is not None
        is_regulator = bool(calibration.factors[own].any())
        expected = calibration.expected(genes, without=own) if is_regulator else self._shared[:, genes]
        return term_values(expected, inputs.received, type(terms)(terms.kind, local, terms.signal))


def _terms_of(terms: Terms, index: Ints) -> Terms:
    return terms.take(np.sort(index))


def _rows(order: Ints, mask: Bools) -> Ints:
    return order[mask[order]]
