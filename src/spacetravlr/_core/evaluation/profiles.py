r"""Agreement of one predicted profile of changes with the observed one.

A profile is the mean change of every gene, :math:`\delta_g`. Genes that are NaN in either are left out. Undefined
values are NaN: a correlation with a profile that does not vary, or over fewer than three genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Genes below which nothing is called a correlation.
LEAST_GENES = 3
_FLAT = 1e-12  # variance below this part of the mean square is that of a constant


def varies(values: Floats) -> bool:
    """Whether a profile is more than a constant, up to rounding."""
    return bool(np.var(values) > _FLAT * np.mean(np.square(values)))


def mean_known(values: Floats, axis: int = 0) -> Floats:
    """Mean along an axis, NaN left out; NaN where nothing is known."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis))


def pearson(a: Floats, b: Floats) -> float:
    """Pearson correlation of two profiles."""
    if len(a) < LEAST_GENES or not (varies(a) and varies(b)):
        return np.nan
    a, b = a - a.mean(), b - b.mean()
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def spearman(a: Floats, b: Floats) -> float:
    """Pearson correlation of the ranks of two profiles."""
    if len(a) < LEAST_GENES or not (varies(a) and varies(b)):
        return np.nan
    return pearson(rankdata(a), rankdata(b))


def cosine(a: Floats, b: Floats) -> float:
    """Correlation about zero, where zero is no change."""
    size = np.sqrt(np.dot(a, a) * np.dot(b, b))
    return float(np.dot(a, b) / size) if len(a) and size > 0 else np.nan


def largest(values: Floats, k: int) -> Ints:
    """Positions of the ``k`` largest changes, up or down; fewer where fewer are not zero."""
    k = min(k, int(np.count_nonzero(values)))
    return np.argsort(-np.abs(values), kind="stable")[:k]


def sign_agreement(predicted: Floats, observed: Floats, k: int) -> float:
    """Fraction of the ``k`` largest observed changes whose sign is predicted; no change counts as half."""
    top = largest(observed, k)
    if not len(top):
        return np.nan
    product = np.sign(predicted[top]) * np.sign(observed[top])
    return float(np.mean((product + 1) / 2))


def top_overlap(predicted: Floats, observed: Floats, k: int) -> float:
    """Fraction of the ``k`` largest observed changes that are among the ``k`` largest predicted ones."""
    top = largest(observed, k)
    if not len(top):
        return np.nan
    return float(np.isin(top, largest(predicted, len(top))).mean())


def agreement(predicted: Floats, observed: Floats, reference: Floats, k: int) -> dict[str, float]:
    """All numbers about one pair of profiles.

    Parameters
    ----------
    predicted, observed
        Mean change of each gene; NaN for genes to leave out.
    reference
        Mean change over other observed perturbations; NaN throughout where there are none.
    k
        Genes called the largest.
    """
    good = np.isfinite(predicted) & np.isfinite(observed)
    a, b = predicted[good], observed[good]
    beyond = good & np.isfinite(reference)
    informative = len(a) > 0 and varies(a)
    return {
        "n_genes": float(good.sum()),
        "pearson_delta": pearson(a, b),
        "spearman_delta": spearman(a, b),
        "cosine": cosine(a, b),
        "pearson_delta_perturbed": (
            pearson((predicted - reference)[beyond], (observed - reference)[beyond]) if informative else np.nan
        ),
        "mae": float(np.abs(a - b).mean()) if len(a) else np.nan,
        "rmse": float(np.sqrt(np.square(a - b).mean())) if len(a) else np.nan,
        "sign_agreement": sign_agreement(a, b, k),
        "top_overlap": top_overlap(a, b, k),
    }
