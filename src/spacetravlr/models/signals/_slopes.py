"""What signals explain of a target in held-out cells, and in each type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from spacetravlr._core.inference.block_scores import block_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.signals._inputs import SignalInputs

_FEWEST = 50  # cells of a type that it has an estimate of its own from
_FLAT = 1e-9


def held_out_gain(folds: Sequence[Ints], e: Floats, x: Floats, penalty: Floats | float = 0.0) -> float:
    """Reduction of the sum of squares of each fold by coefficients from the other folds, summed over folds.

    Parameters
    ----------
    folds
        Cells of each fold.
    e
        Residual of the target, (cells,).
    x
        Residuals of products, cells x products.
    penalty
        Added to the squares of each product.
    """
    products = [(x[rows].T @ x[rows], x[rows].T @ e[rows]) for rows in folds]
    grams, crosses = (sum(part[i] for part in products) for i in (0, 1))
    added = np.diag(penalty + 1e-6 * np.maximum(np.diag(grams), 1e-12))
    gain = 0.0
    for gram, cross in products:
        weights = linalg.solve(grams - gram + added, crosses - cross, assume_a="pos")
        gain += float(2 * weights @ cross - weights @ gram @ weights)
    return gain


def slopes_by_type(inputs: SignalInputs, xe: Floats, xx: Floats) -> tuple[Floats, Floats]:
    """Slope of each product in each type and its standard error from blocks, products x types; NaN where few cells.

    Parameters
    ----------
    inputs
        The tissue.
    xe, xx
        Residuals of the products times those of the target, and squared, cells x products.
    """
    n_types, n_blocks = inputs.fit.n_types, inputs.n_blocks
    cell = inputs.block * n_types + inputs.fit.cell_type
    crossed, squared = (
        block_sums(values, cell, n_blocks * n_types).reshape(n_blocks, n_types, -1) for values in (xe, xx)
    )
    squares = squared.sum(axis=0)
    few = np.bincount(inputs.fit.cell_type, minlength=n_types) < _FEWEST
    squares[few[:, None] | (squares <= _FLAT)] = np.nan
    slopes = crossed.sum(axis=0) / squares
    left = crossed - squared * slopes  # products of x with what its slope leaves, in each block
    return slopes.T, (np.sqrt((left**2).sum(axis=0)) / squares).T
