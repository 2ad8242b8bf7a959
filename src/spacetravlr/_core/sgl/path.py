r"""Sparse group lasso seeds (how-it-works, section 3) of a block of targets in every type, from cross products.

.. math:: \min_b \tfrac{1}{2n} ||y - X b||^2 + \lambda \sum_g \sqrt{|g|}\, ||b_g||_2 + \alpha ||b||_1

Columns are standardised inside (mean 0, standard deviation 1), coefficients come back in the original units, the
intercept is free. :math:`|g|` counts the columns of a group that vary; columns that do not vary get 0. Unless ``alpha``
is given, :math:`\alpha` is ``l1_ratio`` times :math:`\lambda`. No step passes over cells after
``grouped_moments(design, y, codes, n_groups=)``, ``codes = cell_type * n_folds + fold``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr._core.sgl.block import Columns, Settings, Strata, Sums, fit_jobs
from spacetravlr._core.sgl.cross_products import GroupedMoments
from spacetravlr._core.sgl.reference import L1_RATIO, check_penalties
from spacetravlr._utils import InterruptiblePool, resolve_n_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spacetravlr._types import Floats, Ints

_JOBS = 4  # fits of a target in a stratum that a thread takes at once
_PATIENCE = 5  # penalties tried after the best one before the path is cut short
# duality gaps, as parts of half the variance: of the fits down the path, and of those next to the best penalty
_WALK_TOL, _CHOICE_TOL = 1e-3, 1e-7


@dataclass(frozen=True)
class Seeds:
    """Seeds of T targets in S strata (the cell types, then the pooled seed when asked for)."""

    coef: NDArray[np.float64]
    """Intercept, then the target's terms in the order of ``term``, then zeros; shape (T, S, 1 + widest target)."""
    lam: NDArray[np.float64]
    """Chosen penalty, shape (T, S); NaN where nothing could be fitted (fewer than 2 cells, constant target)."""
    held: NDArray[np.float64]
    """``coef`` with each fold left out, at the same penalties, shape (folds, T, S, 1 + widest target); no folds when
    not asked for."""


def fit_seeds(
    grams: GroupedMoments,
    indptr: Ints,
    term: Ints,
    *,
    groups: Ints,
    n_folds: int,
    folds: Sequence[int] | None = None,
    min_cells: int = 0,
    pooled: bool = False,
    lam: float | Floats | None = None,
    start: Floats | None = None,
    alpha: float | None = None,
    l1_ratio: float = L1_RATIO,
    n_lambdas: int = 20,
    lambda_min_ratio: float = 3e-3,
    tol: float = 1e-7,
    max_sweeps: int = 2000,
    leave_out: bool = False,
    n_jobs: int | None = None,
) -> Seeds:
    r"""Fit the seeds of a block of targets, the penalty chosen by held-out error over spatial folds.

    Parameters
    ----------
    grams
        Cross products of the groups ``cell_type * n_folds + fold``; column t of its targets is target t here.
    indptr, term
        Compressed rows: target t uses the columns ``term[indptr[t]:indptr[t + 1]]`` of ``grams``.
    groups
        Group of each column of ``grams`` (:class:`~spacetravlr._core.design.Kind`), shape (K,).
    n_folds
        Spatial folds of each type in ``grams``.
    folds
        Folds to use, for choosing the penalty and for the fit; all by default. Other folds take no part in either.
    min_cells
        Types with fewer cells in ``folds`` (and those with none) get the pooled seed: slopes of all types together,
        from the variation within types, with an intercept of their own.
    pooled
        Add the pooled seed as a last stratum; its intercept is that of all cells.
    lam
        Penalty, one for all or of shape (T, S), in units of the target; chosen by held-out error where NaN or None.
    start
        Coefficients from which to go on at given penalties, as in :class:`Seeds`. They save time, and change the result
        by no more than ``tol`` allows.
    alpha
        Penalty on single coefficients; default ``l1_ratio * lambda``.
    l1_ratio
        See ``alpha``; the default keeps few terms within a group and still drops whole groups.
    n_lambdas, lambda_min_ratio
        Geometric path from the smallest penalty at which all is zero down to this part of it. The path ends early after
        5 penalties without a new smallest held-out error; the penalty is at the minimum of a parabola through the
        smallest error and those next to it.
    tol
        Duality gap of the final fit, as a part of half the variance of the target. Where terms go along with each
        other, as imputed ones do, coefficients at a gap of 1e-5 still change by 1 % with the rounding of the inputs.
    max_sweeps
        Most sweeps of coordinate descent at one penalty.
    leave_out
        Also fit with each of ``folds`` left out in turn. Types that get the pooled seed are those of the whole fit.
    n_jobs
        Threads; the results do not depend on it.

    Returns
    -------
    The seeds.
    """
    check_penalties(alpha, l1_ratio)
    _check_targets(grams, indptr)
    n_types = grams.n_groups // n_folds
    used = np.arange(n_folds) if folds is None else np.asarray(folds, dtype=np.int64)
    cells = grams.n.reshape(n_types, n_folds)[:, used].sum(axis=1)
    small = cells < max(min_cells, 1)
    strata = [[c] for c in range(n_types)]
    if pooled or small.any():
        strata.append(list(range(n_types)))
    n_targets, n_strata = len(indptr) - 1, len(strata)
    indptr = np.asarray(indptr, dtype=np.int64)
    order, group_ptr = _order_by_group(indptr, np.asarray(term), np.asarray(groups))
    slopes = np.zeros((n_targets, n_strata, int(np.diff(indptr).max(initial=0))))
    held = np.zeros((len(used) if leave_out else 0, *slopes.shape))
    chosen = np.full((n_targets, n_strata), np.nan)
    wanted = np.full((n_targets, n_strata), -1.0)
    if lam is not None:
        given = np.asarray(lam, dtype=np.float64)
        if np.isinf(given).any() or (given < 0).any():
            msg = f"Expected `lam` to be finite and at least zero, found `{lam}`."
            raise ValueError(msg)
        wanted[:, : given.shape[1] if given.ndim == 2 else None] = np.where(np.isnan(given), -1.0, given)
    starts = np.zeros_like(slopes)
    if start is not None:
        starts[:, :n_types] = start[:, :n_types, 1:]
        starts[:, :n_types][:, small] = 0.0  # slopes of all types together are no start for one
        _put_in_order(starts, indptr, order)
    settings = Settings(
        -1.0 if alpha is None else float(alpha), float(l1_ratio), _path(n_lambdas, lambda_min_ratio), _PATIENCE,
        max(_WALK_TOL, tol), max(_CHOICE_TOL, tol), tol, max_sweeps,
    )  # fmt: skip
    arguments = (
        Strata(np.cumsum([0, *map(len, strata)]), np.concatenate(strata).astype(np.int64), used, n_folds),
        Columns(np.asarray(indptr, dtype=np.int64), np.asarray(term, dtype=np.int64)[order], group_ptr),
        Sums(grams.n, grams.x, grams.y, grams.xx, grams.xy, grams.yy),
        wanted, starts, settings, slopes, held, chosen,
    )  # fmt: skip
    with InterruptiblePool(resolve_n_jobs(n_jobs)) as pool:
        parts = range(0, n_targets * n_strata, _JOBS)
        list(pool.map(lambda first: fit_jobs(first, min(first + _JOBS, n_targets * n_strata), *arguments), parts))
    for fitted in (slopes, *held):
        _restore_order(fitted, indptr, order)
    if small.any():
        is_pooled = np.flatnonzero(small)
        slopes[:, is_pooled], chosen[:, is_pooled] = slopes[:, [-1]], chosen[:, [-1]]
        held[:, :, is_pooled] = held[:, :, [-1]]
    keep = slice(None) if pooled or not small.any() else slice(n_types)

    def with_intercept(slopes: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
        x_mean, y_mean = _means(grams, n_types, n_folds, folds)
        intercepts = y_mean[:n_strata].T - _products(slopes, x_mean[:n_strata], indptr, np.asarray(term))
        return np.concatenate([intercepts[:, keep, None], slopes[:, keep]], axis=2)

    coef = with_intercept(slopes, used)
    return Seeds(
        coef=coef,
        lam=chosen[:, keep],
        held=np.array([with_intercept(h, np.delete(used, q)) for q, h in enumerate(held)]).reshape(-1, *coef.shape),
    )


def _check_targets(grams: GroupedMoments, indptr: Ints) -> None:
    if len(indptr) - 1 != grams.y.shape[1]:
        msg = f"Expected `indptr` to have a row for each of the {grams.y.shape[1]} targets, found {len(indptr) - 1}."
        raise ValueError(msg)


def _path(n_lambdas: int, ratio: float) -> NDArray[np.float64]:
    if n_lambdas < 1 or not 0 < ratio < 1:
        msg = (
            "Expected `n_lambdas` to be positive and `lambda_min_ratio` between 0 and 1, "
            f"found `{n_lambdas}` and `{ratio}`."
        )
        raise ValueError(msg)
    return np.geomspace(1.0, ratio, n_lambdas) if n_lambdas > 1 else np.ones(1)


def _order_by_group(indptr: Ints, term: Ints, groups: Ints) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Order that puts each target's terms by group, and the group borders within each target, shape (T, groups + 1)."""
    target = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    _, code = np.unique(groups, return_inverse=True)
    n_codes = int(code.max(initial=-1)) + 1
    of_term = code[term]
    order = np.lexsort((of_term, target))
    counts = np.zeros((len(indptr) - 1, n_codes + 1), dtype=np.int64)
    np.add.at(counts, (target, of_term + 1), 1)
    return order, np.cumsum(counts, axis=1)


def _put_in_order(slopes: NDArray[np.float64], indptr: Ints, order: NDArray[np.intp]) -> None:
    for t, (start, stop) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        slopes[t, :, : stop - start] = slopes[t][:, order[start:stop] - start]


def _restore_order(slopes: NDArray[np.float64], indptr: Ints, order: NDArray[np.intp]) -> None:
    for t, (start, stop) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        by_group = slopes[t, :, : stop - start].copy()
        slopes[t][:, order[start:stop] - start] = by_group


def _means(
    grams: GroupedMoments, n_types: int, n_folds: int, folds: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of regressors and targets in each type, then over all cells; a type without cells has those of all."""
    n = grams.n.reshape(n_types, n_folds)[:, folds].sum(axis=1)
    out = []
    for sums, shift in ((grams.x, grams.x_shift), (grams.y, grams.y_shift)):
        total = sums.reshape(n_types, n_folds, -1)[:, folds].sum(axis=1)
        overall = total.sum(axis=0) / max(n.sum(), 1.0)
        own = np.where(n[:, None] > 0, total / np.maximum(n, 1.0)[:, None], overall)
        out.append(np.vstack([own, overall]) + shift)
    return out[0], out[1]


def _products(slopes: NDArray[np.float64], x: NDArray[np.float64], indptr: Ints, term: Ints) -> NDArray[np.float64]:
    """Slopes (T, S, widest) times one row of regressors a stratum (S, K): shape (T, S)."""
    out = np.empty(slopes.shape[:2])
    for t, (start, stop) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        out[t] = np.einsum("sm,sm->s", slopes[t, :, : stop - start], x[:, term[start:stop]])
    return out
