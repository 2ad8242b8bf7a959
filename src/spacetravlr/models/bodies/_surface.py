"""Coefficient surfaces, on their own or as departures from the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacetravlr._core.surfaces.fit import fit_surface, refit_surface
from spacetravlr._core.surfaces.model import CellFunctions, Surface, SurfaceFit
from spacetravlr.models.bodies._base import (
    Body,
    BodyState,
    EvaluationCells,
    Varying,
    by_type,
    empty_result,
    fitted_rows,
)

if TYPE_CHECKING:
    from spacetravlr._core.standardise import BlockDesign
    from spacetravlr._core.surfaces.search import SurfaceOptions
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._inputs import FitInputs
    from spacetravlr.models.bodies._seed import SeedStages

# Residual variance of a first search, in units of the seed's held-out error, above which no more is tried.
_HOPELESS = 1.3


class _Fit(NamedTuple):
    """Surface of one target, standardised units."""

    chosen: SurfaceFit
    """Of the choosing folds."""
    final: SurfaceFit
    """Of all cells."""
    departs: bool
    """Whether it is added to the seed."""


class _Target(NamedTuple):
    """One target in standardised units."""

    terms: Floats
    """Terms x cells, float32: fits read one term after another."""
    y: Floats
    mean: float
    spread: float
    cell_type: Ints

    @classmethod
    def of(cls, block: BlockDesign, inputs: FitInputs, t: int, terms: Floats) -> _Target:
        """Target ``t`` of a block."""
        y = (block.y[:, t].astype(np.float64) - block.y_mean[t]) / block.y_spread[t]
        return cls(terms, y, float(block.y_mean[t]), float(block.y_spread[t]), inputs.cell_type)

    def x(self, rows: Ints) -> Floats:
        """Terms of some cells, cells x terms."""
        return np.take(self.terms, rows, axis=1).T

    def offset(self, anchor: Floats) -> Floats:
        """Prediction of the seed ``anchor`` (types x intercept and terms) at all cells."""
        out = np.empty(len(self.y))
        for code, b in enumerate(anchor):
            rows = np.flatnonzero(self.cell_type == code)
            out[rows] = b[0] + b[1:] @ np.take(self.terms, rows, axis=1)
        return out

    def original(self, fit: SurfaceFit, where: CellFunctions, rows: Ints, offset: Floats) -> Floats:
        """Prediction of a surface on top of ``offset`` at ``rows``, in original units."""
        return self.mean + self.spread * (offset[rows] + fit.prediction(self.x(rows), where))


class _Outcome(NamedTuple):
    """Surface of one target and what it predicts; see :class:`BodyResult` for the arrays, each of shape (cells,)."""

    fit: _Fit
    prediction: Floats
    train: Floats


@dataclass(frozen=True)
class _Shared:
    """What the fits of all targets of a block read; lists have an entry for each fold, the reporting one last."""

    block: BlockDesign
    inputs: FitInputs
    standardised: Floats
    """Terms in standardised units, terms x cells."""
    seed_prediction: Floats
    stages: SeedStages
    options: SurfaceOptions
    seen: list[Ints]
    """Cells to fit on when the fold is predicted, by type."""
    left_out: list[Ints]
    everything: Ints
    at_seen: list[CellFunctions]
    at_left_out: list[CellFunctions]
    at_everything: CellFunctions


@dataclass(frozen=True)
class SurfaceParts(Varying):
    """Weights of the surfaces of a block, one part of one coefficient after another."""

    scale: Ints
    """Length scale of each target, -1 without a surface."""
    target: Ints
    """Target of each part."""
    column: Ints
    """Coefficient of the target that the part belongs to, 0 for the intercept."""
    part: Ints
    """:class:`spacetravlr._core.surfaces.model.Part`."""
    indptr: Ints
    """Part ``i`` has the weights ``weights[indptr[i]:indptr[i + 1]]``."""
    weights: Floats
    amplitudes: Floats
    """Parts x types."""

    @classmethod
    def collect(cls, states: Sequence[SurfaceFit | None], n_types: int) -> SurfaceParts:
        """Lay out the fits of the targets of a block, ``None`` where no surface was kept."""
        rows = [(t, k, part, w, fit.amplitudes[:, k], fit.amplitudes.shape[1])
                for t, fit in enumerate(states) if fit is not None
                for (k, part), w in zip(fit.blocks, fit.weights, strict=True)]  # fmt: skip
        return cls(
            scale=np.array([-1 if fit is None else fit.scale for fit in states], dtype=np.int64),
            target=np.array([r[0] for r in rows], dtype=np.int64),
            column=np.array([(k + 1) % width for _, k, _, _, _, width in rows], dtype=np.int64),  # theirs is last
            part=np.array([int(r[2]) for r in rows], dtype=np.int64),
            indptr=np.cumsum([0, *(len(r[3]) for r in rows)]).astype(np.int64),
            weights=np.concatenate([np.zeros(0), *(r[3] for r in rows)]),
            amplitudes=np.array([r[4] for r in rows], dtype=np.float64).reshape(-1, n_types),
        )

    def of(self, t: int) -> Surface:
        """Surface of one target, its coefficients numbered from the intercept, 0."""
        own = np.flatnonzero(self.target == t)
        columns = self.column[own]
        amplitudes = np.ones((self.amplitudes.shape[1], int(columns.max(initial=0)) + 1))
        amplitudes[:, columns] = self.amplitudes[own].T
        return Surface(
            blocks=list(zip(columns.tolist(), self.part[own].tolist(), strict=True)),
            weights=[self.weights[self.indptr[i] : self.indptr[i + 1]] for i in own],
            amplitudes=amplitudes,
            scale=int(self.scale[t]),
        )

    def departures(self, cells: EvaluationCells, keeps: Bools) -> Iterator[tuple[int, Ints, Ints, Floats]]:
        """Evaluate the surface of one target after another."""
        functions = cells.functions()
        for t in np.flatnonzero(self.scale >= 0).tolist():
            rows, surface = np.flatnonzero(keeps[t][cells.cell_type]), self.of(t)
            fields = surface.fields(functions.take(rows, scale=surface.scale))
            columns = np.union1d([0], list(fields)).astype(np.int64)
            nothing = np.zeros(len(rows))
            yield t, rows, columns, np.stack([fields.get(k, nothing) for k in columns.tolist()]).T

    def state(self) -> dict[str, Any]:
        """Everything as a dict of arrays."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SurfaceParts:
        """Rebuild from :meth:`state`."""
        return cls(**{name: np.asarray(value) for name, value in state.items()})


class SurfaceBody(Body):
    """Coefficient surfaces, one target at a time in each thread.

    A target has surfaces of its own, with truly zero coefficients, unless they fit their training cells worse than the
    seed predicts held-out ones. That happens on smoothed expression, which takes more terms than surfaces can hold;
    there the surface describes how coefficients depart from the seed.
    """

    name = "surface"
    chosen_by = ("auto", "surface")
    after = ("seed",)
    reads_functions = True
    reports_progress = True
    varying = SurfaceParts
    _fits: list[_Fit]

    def compare(self) -> None:
        """Fit and predict everything."""
        task, inputs = self.task, self.task.inputs
        block, functions = task.block, task.functions
        assert functions is not None
        self.result = result = empty_result(block)
        folds = range(inputs.n_folds + 1)
        seen = [by_type(inputs, fitted_rows(inputs, fold)) for fold in folds]
        left_out = [by_type(inputs, inputs.fold == fold) for fold in folds]
        everything = by_type(inputs)
        shared = _Shared(
            block, inputs, np.ascontiguousarray(block.standardised().T), self.before["seed"].result.prediction,
            self.before["seed"].stages, task.options.surface, seen, left_out, everything,
            [functions.take(rows) for rows in seen], [functions.take(rows) for rows in left_out],
            functions.take(everything),
        )  # fmt: skip
        self._fits = []
        for t, found in enumerate(task.each_target(_fit_target, shared)):
            self._fits.append(found.fit)
            result.prediction[:, t], result.train[:, t] = found.prediction, found.train
            task.progress()
        result.judged = np.array([not fit.departs for fit in self._fits], dtype=bool)

    def state(self, t: int) -> BodyState:
        """Deliver the surface of all cells, on top of the seed where it departs from it."""
        block, fit = self.task.block, self._fits[t]
        if fit.departs:
            return BodyState(self.before["seed"].state(t).constant, fit.final)
        return BodyState(block.constant(t, block.y_mean[t]), fit.final)

    def evidence(self, t: int) -> Floats | None:
        """Log Bayes factors; none where the surface departs from the seed, whose terms it does not judge."""
        fit = self._fits[t]
        return None if fit.departs else fit.chosen.evidence[:-1]

    def standard_deviations(self, t: int) -> Floats | None:
        """Of surfaces of their own; the error of a seed that a surface departs from is not known."""
        task, block = self.task, self.task.block
        columns = block.columns(t)
        if task.functions is None or self._fits[t].departs and len(columns):
            return None
        return original_deviations(self._fits[t].final, block, t, task.functions)


def _fit_target(shared: _Shared, t: int, check: Callable[[], None]) -> _Outcome:
    """Fit target ``t`` of the block to all folds but each in turn, and predict it."""
    block, inputs, stages, options = shared.block, shared.inputs, shared.stages, shared.options
    target = _Target.of(block, inputs, t, shared.standardised[block.columns(t)])
    x, y = target.x, target.y
    choose, report, inside = shared.seen[-1], shared.left_out[-1], shared.at_seen[-1]
    prediction, train = np.full((2, inputs.n_cells), np.nan)
    offset: Floats = np.zeros(inputs.n_cells)
    seed_error = _mean_square(block.y[choose, t] - shared.seed_prediction[choose, t])
    hopeless = _HOPELESS * seed_error / target.spread**2
    fit = fit_surface(x(choose), y[choose], inside, options, max_noise=hopeless)
    fitted = target.original(fit, inside, choose, offset)
    departs = _mean_square(block.y[choose, t] - fitted) > seed_error
    if departs:
        offset = target.offset(_anchor(block, t, stages.choosing))
        fit = fit_surface(x(choose), (y - offset)[choose], inside, options)
        fitted = target.original(fit, inside, choose, offset)
    train[choose] = fitted
    prediction[report] = target.original(fit, shared.at_left_out[-1], report, offset)
    for fold in range(inputs.n_folds):
        check()
        if departs:
            offset = target.offset(_anchor(block, t, stages.held[fold]))
        rows, left_out = shared.seen[fold], shared.left_out[fold]
        again = refit_surface(fit, x(rows), (y - offset)[rows], shared.at_seen[fold], options, search=True)
        prediction[left_out] = target.original(again, shared.at_left_out[fold], left_out, offset)
    check()
    if departs:
        offset = target.offset(_anchor(block, t, stages.final))
    rows = shared.everything
    final = refit_surface(fit, x(rows), (y - offset)[rows], shared.at_everything, options, search=False)
    return _Outcome(_Fit(fit, final, departs), prediction, train)


def original_deviations(fit: SurfaceFit, block: BlockDesign, t: int, functions: CellFunctions) -> Floats:
    """Posterior standard deviations of a target in original units, cells x (intercept, terms)."""
    columns = block.columns(t)
    scale = block.spread[columns]
    slopes = fit.standard_deviations(functions)[:, :-1] / scale
    # in original units the intercept is that of the standardised terms less what their means contribute
    intercept = fit.deviation_of(np.append(-block.mean[columns] / scale, 1.0), functions)
    return np.asarray(block.y_spread[t] * np.column_stack([intercept, slopes]))


def _anchor(block: BlockDesign, t: int, seeds: Floats) -> Floats:
    """Seed of target ``t`` in standardised units: types x (intercept, terms)."""
    return block.to_standard(t, seeds[t, : block.n_types, : len(block.columns(t)) + 1])


def _mean_square(residual: Floats) -> float:
    return float(np.mean(residual**2))
