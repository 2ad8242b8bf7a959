"""Coefficient surfaces, on their own or as departures from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.surfaces.fit import fit_surface, refit_surface
from spacetravlr._core.surfaces.model import CellFunctions, SurfaceFit
from spacetravlr.models.bodies._base import BodyResult, fitted_rows
from spacetravlr.models.bodies._fitted import BodyState

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._inputs import BlockDesign, BodyOptions, FitInputs
    from spacetravlr.models.bodies._seed import SeedStages

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

    terms: Floats
    """Terms x cells, float32: fits read one term after another."""
    y: Floats
    mean: float
    spread: float
    cell_type: Ints

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


def fit_surfaces(
    block: BlockDesign,
    inputs: FitInputs,
    options: BodyOptions,
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
    everything = np.argsort(inputs.cell_type, kind="stable")  # searches want the cells of a type side by side

    def cells(mask: Bools) -> Ints:
        return everything[mask[everything]]

    seen = [cells(fitted_rows(inputs, held)) for held in range(inputs.n_folds + 1)]
    left = [cells(inputs.fold == held) for held in range(inputs.n_folds + 1)]
    at_seen, at_left = ([functions.take(rows) for rows in parts] for parts in (seen, left))
    whole = functions.take(everything)
    choose, report = seen[-1], left[-1]
    nothing = np.zeros(inputs.n_cells)
    standardised = np.ascontiguousarray(block.standardised().T)

    def one(t: int) -> tuple[SurfaceFit, SurfaceFit, bool]:
        columns = block.columns(t)
        target = _Target(
            standardised[columns],
            (block.y[:, t].astype(np.float64) - block.y_mean[t]) / block.y_spread[t],
            float(block.y_mean[t]),
            float(block.y_spread[t]),
            inputs.cell_type,
        )
        x, y = target.x, target.y
        inside = at_seen[-1]
        offset: Floats = nothing
        seed_error = _mean_square(block.y[choose, t] - seed.prediction[choose, t])
        hopeless = _HOPELESS * seed_error / target.spread**2
        fit = fit_surface(x(choose), y[choose], inside, options.surface, max_noise=hopeless)
        fitted = target.original(fit, inside, choose, offset)
        departs = _mean_square(block.y[choose, t] - fitted) > seed_error
        if departs:
            offset = target.offset(_anchor(block, inputs, t, stages.choosing))
            fit = fit_surface(x(choose), (y - offset)[choose], inside, options.surface)
            fitted = target.original(fit, inside, choose, offset)
        train[choose, t] = fitted
        prediction[report, t] = target.original(fit, at_left[-1], report, offset)
        for held in range(inputs.n_folds):
            if departs:
                offset = target.offset(_anchor(block, inputs, t, stages.held[held]))
            rows = seen[held]
            again = refit_surface(fit, x(rows), (y - offset)[rows], at_seen[held], options.surface, search=True)
            prediction[left[held], t] = target.original(again, at_left[held], left[held], offset)
        if departs:
            offset = target.offset(_anchor(block, inputs, t, stages.final))
        final = refit_surface(fit, x(everything), (y - offset)[everything], whole, options.surface, search=False)
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
