"""Seeds: a sparse group lasso in each cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from spacetravlr._core.sgl.cross_products import grouped_moments
from spacetravlr._core.sgl.path import fit_seeds
from spacetravlr._core.sgl.reference import solve_reference
from spacetravlr.models.bodies._base import Body, BodyResult, BodyState, empty_result

if TYPE_CHECKING:
    from spacetravlr._core.standardise import BlockDesign
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.bodies._inputs import BodyOptions, FitInputs


class SeedStages(NamedTuple):
    """Seeds by what they were fitted on; each of shape (targets, types, 1 + widest target), original units."""

    held: list[Floats]
    """All choosing folds but one, for each of them."""
    choosing: Floats
    final: Floats
    """All cells."""


class SeedBody(Body):
    """Sparse group lasso of each cell type."""

    name = "seed"
    chosen_by = ("auto", "surface", "cnn", "vit", "seed")
    stages: SeedStages

    def compare(self) -> None:
        """Fit and predict everything: seeds are cheap."""
        task = self.task
        self.result, self.stages = fit_seed(task.block, task.inputs, task.options, task.n_jobs)

    def state(self, t: int) -> BodyState:
        """Deliver the seeds of all cells."""
        block = self.task.block
        return BodyState(self.stages.final[t, : block.n_types, : len(block.columns(t)) + 1])


def fit_seed(block: BlockDesign, inputs: FitInputs, options: BodyOptions, n_jobs: int) -> tuple[BodyResult, SeedStages]:
    """Fit the sparse group lasso of each cell type and predict held-out cells."""
    n_folds = inputs.n_folds + 1
    grams = grouped_moments(
        block.values, block.y, inputs.cell_type * n_folds + inputs.fold, n_groups=inputs.n_types * n_folds
    )
    common: dict[str, Any] = {
        "groups": block.group,
        "n_folds": n_folds,
        "min_cells": options.min_cells,
        "alpha": options.l1_penalty,
        "n_jobs": n_jobs,
    }
    choosing = list(range(inputs.n_folds))
    with threadpool_limits(1):
        chosen = fit_seeds(
            grams, block.indptr, block.term, folds=choosing, lam=options.group_penalty, leave_out=True, **common
        )
        lam = chosen.lam  # NaN, where nothing could be fitted, lets the solver choose again
        held: list[Floats] = list(chosen.held)
        final: Floats = fit_seeds(grams, block.indptr, block.term, lam=lam, start=chosen.coef, **common).coef
    if options.solver == "group-lasso":
        final = _reference_seeds(block, inputs, options, lam, final)
    result = empty_result(block)
    for fold, coefficients in enumerate([*held, chosen.coef]):
        rows = np.flatnonzero(inputs.fold == fold)
        result.prediction[rows] = _predict_by_type(block, inputs, coefficients, rows)
    fitted = np.flatnonzero(~inputs.report)
    result.train[fitted] = _predict_by_type(block, inputs, chosen.coef, fitted)
    return result, SeedStages(held, chosen.coef, final)


def _predict_by_type(block: BlockDesign, inputs: FitInputs, coefficients: Floats, rows: Ints) -> Floats:
    prediction = np.empty((len(rows), len(block)))
    for c in range(inputs.n_types):
        own = np.flatnonzero(inputs.cell_type[rows] == c)
        if not len(own):
            continue
        dense = np.zeros((block.values.shape[1], len(block)))
        for t in range(len(block)):
            columns = block.columns(t)
            dense[columns, t] = coefficients[t, c, 1 : len(columns) + 1]
        prediction[own] = block.values[rows[own]] @ dense + coefficients[:, c, 0]
    return prediction


def _reference_seeds(block: BlockDesign, inputs: FitInputs, options: BodyOptions, lam: Floats, seeds: Floats) -> Floats:
    """The same seeds from the reference solver, at the penalties that the Gram solver chose."""
    out = seeds.copy()
    for t in range(len(block)):
        columns = block.columns(t)
        for c in range(inputs.n_types):
            rows = np.flatnonzero(inputs.cell_type == c)
            if len(rows) < max(options.min_cells, 2) or not lam[t, c] > 0:
                continue
            solution = solve_reference(
                block.values[rows][:, columns],
                block.y[rows, t],
                block.group[columns],
                lam=float(lam[t, c]),
                alpha=options.l1_penalty,
            )
            out[t, c, 0], out[t, c, 1 : len(columns) + 1] = solution.intercept, solution.coef
    return out
