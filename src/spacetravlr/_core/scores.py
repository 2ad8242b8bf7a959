"""Errors and explained variance by cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints

#: Share of the variance that is not noise below which there is nothing that could be explained.
LEAST_CEILING = 0.02
_FLAT = 1e-12  # sums of squares below this are those of a constant


def sums_by_type(values: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Sum over the cells of each type: (cells x targets) to (targets x types)."""
    sums = [values[cell_type == c].sum(axis=0, dtype=np.float64) for c in range(n_types)]
    return np.stack(sums, axis=1)


def type_means(y: Floats, cell_type: Ints, n_types: int, rows: Bools) -> Floats:
    """Mean of each type over ``rows``, types x targets; of all of ``rows`` where a type is absent from them."""
    sums = sums_by_type(y[rows].astype(np.float64), cell_type[rows], n_types).T
    counts = np.bincount(cell_type[rows], minlength=n_types)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), y[rows].mean(axis=0, dtype=np.float64))


def centred_by_type(values: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Values less their mean in the type of the cell, float32."""
    counts = np.maximum(np.bincount(cell_type, minlength=n_types), 1)[:, None]
    means = sums_by_type(values, cell_type, n_types).T / counts
    return (values - means[cell_type]).astype(np.float32)


def squares_within_types(y: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Sum of squares about the mean of each type: targets x types."""
    y = y.astype(np.float64)
    counts = np.maximum(np.bincount(cell_type, minlength=n_types), 1)
    means = sums_by_type(y, cell_type, n_types) / counts
    return sums_by_type((y - means.T[cell_type]) ** 2, cell_type, n_types)


def squared_errors(y: Floats, prediction: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Sum of squared errors in each type: targets x types."""
    return sums_by_type((y - prediction) ** 2, cell_type, n_types)


def r2(errors: Floats, total: Floats) -> Floats:
    """Share of ``total`` that is not in ``errors``, both sums of squares; NaN where there is nothing to explain."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > _FLAT, 1 - errors / total, np.nan).ravel()


def shrunk_error_ratio(errors: Floats, baseline: Floats, counts: Ints, prior_cells: float) -> Floats:
    """Errors relative to those of a baseline, drawn towards the ratio over all types where cells are few.

    Where the baseline has no error, nothing beats it: the ratio is infinite.

    Parameters
    ----------
    errors, baseline
        Sums of squared errors, targets x types.
    counts
        Cells of each type.
    prior_cells
        Cells of a type at which its own ratio weighs as much as the one over all types.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(baseline > _FLAT, errors / baseline, np.where(counts > 0, np.inf, 1.0))
        total = baseline.sum(axis=1)
        overall = np.where(total > _FLAT, errors.sum(axis=1) / total, 1.0)[:, None]
    return (counts * own + prior_cells * overall) / (counts + prior_cells)


def shrunk_standard_error(gain: Floats, baseline: Floats, cell_type: Ints, n_types: int, prior_cells: float) -> Floats:
    """Standard error of a difference of :func:`shrunk_error_ratio`, targets x types.

    Parameters
    ----------
    gain
        Differences of squared errors, cells x targets.
    baseline
        Sums of squared errors of the baseline, targets x types.
    cell_type, n_types
        Type of each cell.
    prior_cells
        As in :func:`shrunk_error_ratio`.
    """
    counts = np.bincount(cell_type, minlength=n_types)
    mean = sums_by_type(gain, cell_type, n_types) / np.maximum(counts, 1)
    spread = np.sqrt(sums_by_type((gain - mean.T[cell_type]) ** 2, cell_type, n_types))
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(baseline > _FLAT, spread / baseline, 0.0)
    return counts * own / (counts + prior_cells)


def block_means(values: Floats, block: Ints) -> Floats:
    """Mean of the cells of each block: (cells x targets) to (blocks x targets); blocks without cells are left out."""
    distinct, code = np.unique(block, return_inverse=True)
    sums = np.stack([values[code == b].sum(axis=0, dtype=np.float64) for b in range(len(distinct))])
    return np.asarray(sums / np.bincount(code)[:, None])


def ratio_interval(numerator: Floats, denominator: Floats, block: Ints, level: float = 0.9) -> tuple[Floats, Floats]:
    """Interval of one minus a ratio of sums over cells, by leaving out one spatial block after another.

    The jackknife's standard error with the t distribution of as many degrees of freedom as there are blocks, less one.

    Parameters
    ----------
    numerator, denominator
        Cells x targets.
    block
        Spatial block of each cell.
    level
        Coverage.

    Returns
    -------
    Lower and upper ends, (targets,); NaN with fewer than two blocks or without a denominator.
    """
    distinct, code = np.unique(block, return_inverse=True)
    n = len(distinct)
    of_blocks = [
        np.stack([values[code == b].sum(axis=0, dtype=np.float64) for b in range(n)])
        for values in (numerator, denominator)
    ]
    above, below = (sums.sum(axis=0) for sums in of_blocks)
    if n < 2:
        return np.full(len(above), np.nan), np.full(len(above), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (above - of_blocks[0]) / (below - of_blocks[1])
        error = np.sqrt((n - 1) / n * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
        middle = np.where(below > _FLAT, 1 - above / below, np.nan)
    reach = float(special.stdtrit(n - 1, 0.5 + level / 2)) * error
    return middle - reach, middle + reach


def paired_block_p(gain: Floats, block: Ints) -> Floats:
    """One-sided p-value that a gain (cells x targets) is not above zero, from its means over spatial blocks.

    Blocks, not cells, are taken as independent. Without variation, one where there is no gain and zero where there is.
    """
    means = block_means(gain, block)
    n = len(means)
    if n < 2:
        return np.ones(means.shape[1])
    mean, error = means.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, mean / error, np.where(mean > 0, np.inf, -np.inf))
    return np.asarray(1 - special.stdtr(n - 1, t))
