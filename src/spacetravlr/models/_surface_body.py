"""Coefficient surfaces, on their own or as departures from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.surfaces import CellFunctions, SurfaceFit, fit_surface, refit_surface
from spacetravlr.models._bodies import BodyResult, fitted_rows
from spacetravlr.models._fitted import BodyState

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models._inputs import BlockDesign, FitInputs, FitSettings
    from spacetravlr.models._seed_body import SeedStages

# Residual variance of a first search, in units of the seed's held-out error, above which no more is tried.
_HOPELESS = 1.3


@dataclass
class SurfaceExtras:
    """What only surfaces know."""

    evidence: list[Floats]
    """Log Bayes factor of each term of each target; NaN throughout where the surface departs from the seed."""
    fits: list[SurfaceFit]
    """Fits of step 4, standardised units."""


class _Target(NamedTuple):
    """One target in standardised units."""

    x: Floats
    y: Floats
    mean: float
    spread: float
    cell_type: Ints

    def offset(self, anchor: Floats) -> Floats:
        """Prediction of the seed ``anchor`` (types x intercept and terms) at all cells."""
        b = anchor[self.cell_type]
        return b[:, 0] + (self.x * b[:, 1:]).sum(axis=1)

    def original(self, fit: SurfaceFit, where: CellFunctions, rows: Bools, offset: Floats) -> Floats:
        """Prediction of a surface on top of ``offset`` at ``rows``, in original units."""
        b = fit.coefficients(where)
        return self.mean + self.spread * (offset[rows] + (b[:, :-1] * self.x[rows]).sum(axis=1) + b[:, -1])


def fit_surfaces(
    block: BlockDesign,
    inputs: FitInputs,
    settings: FitSettings,
    functions: CellFunctions,
    seed: BodyResult,
    stages: SeedStages,
    pool: Executor,
    progress: Callable[[], None],
) -> tuple[BodyResult, SurfaceExtras]:
    """Coefficient surfaces, one target at a time in each thread of ``pool``.

    A target has surfaces of its own, with truly zero coefficients, unless they fit their training cells worse than the
    seed predicts held-out ones. That happens on smoothed expression, which takes more terms than surfaces can hold;
    there the surface describes how coefficients depart from the seed.
    """
    shape = block.y.shape
    prediction, train = np.full(shape, np.nan), np.full(shape, np.nan)
    choose = ~inputs.report
    folds = range(inputs.n_folds + 1)
    at = {held: (functions.take(fitted_rows(inputs, held)), functions.take(inputs.fold == held)) for held in folds}
    nothing = np.zeros(inputs.n_cells)

    def one(t: int) -> tuple[SurfaceFit, SurfaceFit, bool]:
        columns = block.columns(t)
        target = _Target(
            ((block.values[:, columns] - block.mean[columns]) / block.spread[columns]).astype(np.float64),
            (block.y[:, t].astype(np.float64) - block.y_mean[t]) / block.y_spread[t],
            float(block.y_mean[t]),
            float(block.y_spread[t]),
            inputs.cell_type,
        )
        x, y = target.x, target.y
        inside, outside = at[inputs.n_folds]
        offset: Floats = nothing
        seed_error = _mean_square(block.y[choose, t] - seed.prediction[choose, t])
        hopeless = _HOPELESS * seed_error / target.spread**2
        fit = fit_surface(x[choose], y[choose], inside, settings.surface, max_noise=hopeless)
        fitted = target.original(fit, inside, choose, offset)
        departs = _mean_square(block.y[choose, t] - fitted) > seed_error
        if departs:
            offset = target.offset(_anchor(block, inputs, t, stages.choosing))
            fit = fit_surface(x[choose], (y - offset)[choose], inside, settings.surface)
            fitted = target.original(fit, inside, choose, offset)
        train[choose, t] = fitted
        prediction[inputs.report, t] = target.original(fit, outside, inputs.report, offset)
        for held in range(inputs.n_folds):
            if departs:
                offset = target.offset(_anchor(block, inputs, t, stages.held[held]))
            seen, rows = fitted_rows(inputs, held), inputs.fold == held
            inside, outside = at[held]
            again = refit_surface(fit, x[seen], (y - offset)[seen], inside, settings.surface, search=True)
            prediction[rows, t] = target.original(again, outside, rows, offset)
        if departs:
            offset = target.offset(_anchor(block, inputs, t, stages.final))
        final = refit_surface(fit, x, y - offset, functions, settings.surface, search=False)
        progress()
        return fit, final, departs

    fits = list(pool.map(one, range(len(block))))

    def state(t: int) -> BodyState:
        _, final, departs = fits[t]
        if departs:
            return BodyState(stages.final[t, : inputs.n_types, : len(block.columns(t)) + 1], surface=final)
        return BodyState(block.constant(t, block.y_mean[t]), surface=final)

    evidence = [np.full(len(f.evidence) - 1, np.nan) if departs else f.evidence[:-1] for f, _, departs in fits]
    return BodyResult(prediction, train, state), SurfaceExtras(evidence, [final for _, final, _ in fits])


def _anchor(block: BlockDesign, inputs: FitInputs, t: int, seeds: Floats) -> Floats:
    """Seed of target ``t`` in standardised units: types x (intercept, terms)."""
    return block.to_standard(t, seeds[t, : inputs.n_types, : len(block.columns(t)) + 1])


def _mean_square(residual: Floats) -> float:
    return float(np.mean(residual**2))
