"""No regressors: the mean of each cell type, which every other body must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spacetravlr._core.scores import type_means
from spacetravlr.models.bodies._base import Body, BodyState, empty_result, fitted_rows

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats


class ZeroBody(Body):
    """The mean of the cell type, or of all cells where a type is absent from the training cells."""

    name = "zero"
    chosen_by = ("auto", "surface", "cnn", "vit", "seed", "pooled")
    chosen_with_noise = ("auto", "pooled")

    def compare(self) -> None:
        """Predict every fold by the means of the others."""
        inputs, self.result = self.task.inputs, empty_result(self.task.block)
        for fold in range(inputs.n_folds + 1):
            fitted, rows = fitted_rows(inputs, fold), inputs.fold == fold
            means = self._means(fitted)
            self.result.prediction[rows] = means[inputs.cell_type[rows]]
            if fold == inputs.n_folds:
                self.result.train[fitted] = means[inputs.cell_type[fitted]]
        self._final = self._means(np.ones(inputs.n_cells, dtype=bool))

    def state(self, t: int) -> BodyState:
        """Deliver the means over all cells."""
        return BodyState(self.task.block.constant(t, self._final[:, t]))

    def _means(self, rows: Bools) -> Floats:
        return type_means(self.task.block.y, self.task.inputs.cell_type, self.task.inputs.n_types, rows)
