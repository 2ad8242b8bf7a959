"""The three bodies of a coefficient (seed, surface, network), each fitted to a block of targets in the same four steps.

1. On the choosing folds less one, predict that one: errors that decide which body a cell type keeps.
2. On all choosing folds, predict the reporting fold: scores that took no part in any choice.
3. The settings found in step 2 (penalty, parts, stopping) stay.
4. Refit on all cells: the coefficients that are delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr.models.bodies._fitted import BodyState

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._inputs import BlockDesign, FitInputs


@dataclass
class BodyResult:
    """What one body predicts, and what it would deliver."""

    prediction: Floats
    """Each cell predicted without itself: choosing cells by step 1, reporting cells by step 2; NaN where not done."""
    train: Floats
    """Predictions of step 2 at the cells it was fitted on; cells x targets, NaN elsewhere."""
    state: Callable[[int], BodyState]
    """What it delivers for a target of the block."""


def sums_by_type(values: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Sum over the cells of each type: (cells x targets) to (targets x types)."""
    sums = [values[cell_type == c].sum(axis=0, dtype=np.float64) for c in range(n_types)]
    return np.stack(sums, axis=1)


def fit_zero(block: BlockDesign, inputs: FitInputs) -> BodyResult:
    """Predict the mean of the cell type (of all cells where a type is absent from the training cells)."""
    shape = block.y.shape
    prediction, train = np.full(shape, np.nan), np.full(shape, np.nan)
    for held in range(inputs.n_folds + 1):
        fitted = fitted_rows(inputs, held)
        rows = inputs.fold == held
        means = _type_means(block.y, inputs, fitted)
        prediction[rows] = means[inputs.cell_type[rows]]
        if held == inputs.n_folds:
            train[fitted] = means[inputs.cell_type[fitted]]
    final = _type_means(block.y, inputs, np.ones(inputs.n_cells, dtype=bool))

    def state(t: int) -> BodyState:
        return BodyState(block.constant(t, final[:, t]))

    return BodyResult(prediction, train, state)


def fitted_rows(inputs: FitInputs, held: int) -> Bools:
    """Cells to fit on when fold ``held`` is predicted: the other choosing folds, never the reporting one."""
    return ~inputs.report & (inputs.fold != held)


def _type_means(y: Floats, inputs: FitInputs, rows: Bools) -> Floats:
    """Mean of each type over ``rows`` (types x targets)."""
    sums = sums_by_type(y[rows].astype(np.float64), inputs.cell_type[rows], inputs.n_types).T
    counts = np.bincount(inputs.cell_type[rows], minlength=inputs.n_types)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), y[rows].mean(axis=0, dtype=np.float64))
