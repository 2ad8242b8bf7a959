"""Whether a prediction is nearer to its own perturbation than to others.

Every predicted profile is compared with every observed one over the genes that are NaN in neither. The perturbed genes,
whose change is known beforehand, are NaN and therefore do not help to identify the perturbation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.evaluation.profiles import LEAST_GENES

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_FLAT = 1e-12


class Pairs(NamedTuple):
    """Predicted x observed perturbations."""

    correlation: Floats
    """Pearson correlation; NaN where a profile does not vary, or there are fewer than three genes."""
    distance_1: Floats
    """Mean absolute difference, a Manhattan distance per gene."""
    distance_2: Floats
    """Root mean square difference, a Euclidean distance per gene."""


def compare_pairs(predicted: Floats, observed: Floats) -> Pairs:
    """Compare every predicted profile (rows) with every observed one; NaN is left out."""
    known = [np.isfinite(values).astype(np.float64) for values in (predicted, observed)]
    a, b = (np.where(np.isfinite(values), values, 0.0).astype(np.float64) for values in (predicted, observed))
    n = known[0] @ known[1].T
    sum_a, sum_b, product = a @ known[1].T, known[0] @ b.T, a @ b.T
    square_a, square_b = a**2 @ known[1].T, known[0] @ (b**2).T
    with np.errstate(divide="ignore", invalid="ignore"):
        var_a, var_b = square_a - sum_a**2 / n, square_b - sum_b**2 / n
        flat = (var_a <= _FLAT * square_a) | (var_b <= _FLAT * square_b) | (n < LEAST_GENES)
        correlation = np.where(flat, np.nan, (product - sum_a * sum_b / n) / np.sqrt(var_a * var_b))
    distances = np.full((2, *n.shape), np.nan)
    for p, row in enumerate(predicted.astype(np.float64)):
        difference = np.where(known[1] * known[0][p] > 0, np.abs(row - observed), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            distances[:, p] = difference.sum(axis=1) / n[p], np.sqrt((difference**2).sum(axis=1) / n[p])
    return Pairs(np.clip(correlation, -1, 1), distances[0], distances[1])


def rank_of_own(closeness: Floats, own: Ints) -> tuple[Floats, Ints]:
    """Rank of the right one among the candidates of each row, 1 for the closest, and how many candidates there are.

    Parameters
    ----------
    closeness
        Rows x candidates, larger is closer; NaN is no candidate.
    own
        Which candidate is the right one.

    Returns
    -------
    Ranks, ties counting half; NaN where the right one is NaN. Numbers of candidates, the right one included.
    """
    right = closeness[np.arange(len(own)), own][:, None]
    known = np.isfinite(closeness)
    with np.errstate(invalid="ignore"):
        better, tied = (known & (closeness > right)).sum(axis=1), (known & (closeness == right)).sum(axis=1)
    rank = np.where(np.isfinite(right[:, 0]), better + (tied + 1) / 2, np.nan)
    return rank, known.sum(axis=1)


def match(pairs: Pairs, own: Ints) -> dict[str, Floats]:
    """How well each prediction finds its own perturbation among the observed ones.

    ``discrimination`` is one minus the number of observed perturbations nearer than the right one over the number of
    all (Manhattan); ``centroid_accuracy`` the part of the others that are farther (Euclidean); ``rank`` by
    correlation. ``mismatched`` is the mean correlation with the others. NaN where there are no others.
    """
    rows = np.arange(len(own))
    matched = pairs.correlation[rows, own]
    others = pairs.correlation.copy()
    others[rows, own] = np.nan
    n_others = np.isfinite(others).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mismatched = np.where(n_others > 0, np.nansum(others, axis=1) / n_others, np.nan)
        rank, n = rank_of_own(pairs.correlation, own)
        nearer_1, n_1 = rank_of_own(-pairs.distance_1, own)
        nearer_2, n_2 = rank_of_own(-pairs.distance_2, own)
        return {
            "discrimination": np.where(n_1 > 1, 1 - (nearer_1 - 1) / n_1, np.nan),
            "centroid_accuracy": np.where(n_2 > 1, 1 - (nearer_2 - 1) / (n_2 - 1), np.nan),
            "mismatched": mismatched,
            "difference": matched - mismatched,
            "rank": np.where(n > 1, rank, np.nan),
            "n_candidates": n.astype(float),
        }


def mean_of_others(values: Floats) -> Floats:
    """Mean of all rows but each one itself, NaN left out; NaN where there is no other."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = known.sum(axis=0) - known
        return np.where(count > 0, (filled.sum(axis=0) - filled) / count, np.nan)
