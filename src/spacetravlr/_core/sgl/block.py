r"""Compiled loops over (target, cell type) of the seed regression; see :mod:`spacetravlr._core.sgl.path`.

Every job gathers a target's own cross products from those of the block, so its cost depends on the number of its terms
and of folds and not on the number of cells. Jobs are independent: results do not depend on the number of threads. Those
are Python's, and whoever is free takes the next jobs, of which some take ten times as long as others; a compiled
parallel loop divides them beforehand, and to compile it would take longer than all the rest.

Cross products are centred within each cell type, on the means of the training folds. A seed of several types together
therefore has one set of slopes and one intercept per type: differences between types do not count as regulation within
them.

As far as possible, a seed is a continuous function of its data, so that rounding (which depends on the order of columns
and on the block of the target) does not decide anything. Terms are visited in the order of their correlation with the
target, and the penalty is at the minimum of a parabola through the smallest held-out errors, see :func:`_best_place`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spacetravlr._core.kernels import kernel
from spacetravlr._core.sgl.descent import descend, group_weights, largest_lambda

_FLAT = 1e-10  # a variance below this part of the mean square is rounding error of float32 input


class Sums(NamedTuple):
    """Sums over groups of cells, as in :class:`~spacetravlr._core.sgl.cross_products.GroupedMoments`."""

    n: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: NDArray[np.float64]


class Strata(NamedTuple):
    """Unions of cell types that share a seed, in compressed rows; a group of cells is ``type * n_folds + fold``."""

    indptr: NDArray[np.int64]
    members: NDArray[np.int64]
    folds: NDArray[np.int64]
    """Folds in use."""
    n_folds: int


class Columns(NamedTuple):
    """Terms of each target, in compressed rows and by group."""

    indptr: NDArray[np.int64]
    term: NDArray[np.int64]
    group_ptr: NDArray[np.int64]
    """Borders of the groups within each target, targets x (groups + 1)."""


class Settings(NamedTuple):
    """How the path of penalties is walked."""

    alpha: float
    """Penalty on single coefficients; below zero stands for ``l1_ratio * lambda``."""
    l1_ratio: float
    path: NDArray[np.float64]
    """Penalties to choose from, as parts of the largest."""
    patience: int
    walk_tol: float
    """Gap of the fits down the path."""
    choice_tol: float
    """Gap of those next to the best penalty."""
    tol: float
    max_sweeps: int


class _Split(NamedTuple):
    """Centred products of the training cells with each fold left out in turn and with none (the last row)."""

    n: NDArray[np.float64]
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: NDArray[np.float64]


class _Problem(NamedTuple):
    """A standardised problem; the columns by group."""

    gram: NDArray[np.float64]
    r: NDArray[np.float64]
    variance: float
    group_ptr: NDArray[np.int64]
    weights: NDArray[np.float64]
    sd: NDArray[np.float64]


@kernel
def _order(columns, group_ptr, t, members, strata, sums):
    """Order of a target's columns: by group, and within it by the correlation with the target, the largest first."""
    m = columns.shape[0]
    products, squares = np.zeros(m), np.zeros(m)
    for member in members:
        n, y = 0.0, 0.0
        x = np.zeros(m)
        for fold in strata.folds:
            code = member * strata.n_folds + fold
            n += sums.n[code]
            y += sums.y[code, t]
            for i in range(m):
                x[i] += sums.x[code, columns[i]]
                products[i] += sums.xy[code, t, columns[i]]
                squares[i] += sums.xx[code, columns[i], columns[i]]
        if n > 0.0:
            products -= x * y / n
            squares -= x * x / n
    order = np.empty(m, np.int64)
    for g in range(group_ptr.shape[0] - 1):
        start, stop = group_ptr[g], group_ptr[g + 1]
        score = np.abs(products[start:stop]) / np.sqrt(np.maximum(squares[start:stop], 1e-300))
        order[start:stop] = start + np.argsort(-score, kind="mergesort")
    return order


@kernel
def _gather(code, columns, t, sums, to_x, to_xx, to_xy):
    """Copy one target's sums over one group of cells."""
    for i in range(columns.shape[0]):
        to_x[i] = sums.x[code, columns[i]]
        to_xy[i] = sums.xy[code, t, columns[i]]
        row = sums.xx[code, columns[i]]
        for k in range(columns.shape[0]):
            to_xx[i, k] = row[columns[k]]


@kernel
def _add_centred(scale, n, x, y, xx, xy, yy, x_mean, y_mean, to_xx, to_xy):
    """Add ``scale`` times the products of (x - x_mean) and (y - y_mean) over n cells; returns that of y with itself."""
    for i in range(x.shape[0]):
        centred = x[i] - n * x_mean[i]
        for k in range(x.shape[0]):
            to_xx[i, k] += scale * (xx[i, k] - centred * x_mean[k] - x_mean[i] * x[k])
        to_xy[i] += scale * (xy[i] - centred * y_mean - x_mean[i] * y)
    return scale * (yy - (y - n * y_mean) * y_mean - y_mean * y)


@kernel
def _empty_split(n_rows, m):
    return _Split(np.zeros(n_rows), np.zeros((n_rows, m, m)), np.zeros((n_rows, m)), np.zeros(n_rows))


@kernel
def _split_sums(members, strata, columns, t, sums, splits):
    """Products of the training cells and of the held-out ones, with each fold left out in turn if ``splits``."""
    m, n_parts = columns.shape[0], strata.folds.shape[0]
    n_splits = n_parts if splits else 0
    train, test = _empty_split(n_splits + 1, m), _empty_split(n_splits, m)
    raw, raw_y = np.zeros((n_splits + 1, m)), np.zeros(n_splits + 1)
    n_slots = max(n_splits, 1)
    part_x, part_xx, part_xy = np.empty((n_slots, m)), np.empty((n_slots, m, m)), np.empty((n_slots, m))
    for member in members:
        codes = member * strata.n_folds + strata.folds
        full_x, full_xx, full_xy = np.zeros(m), np.zeros((m, m)), np.zeros(m)
        full_n, full_y, full_yy = 0.0, 0.0, 0.0
        for f in range(n_parts):
            slot = f if splits else 0
            _gather(codes[f], columns, t, sums, part_x[slot], part_xx[slot], part_xy[slot])
            full_x += part_x[slot]
            full_xx += part_xx[slot]
            full_xy += part_xy[slot]
            full_n += sums.n[codes[f]]
            full_y += sums.y[codes[f], t]
            full_yy += sums.yy[codes[f], t]
        for q in range(n_splits + 1):
            n_train = full_n - (sums.n[codes[q]] if q < n_splits else 0.0)
            if n_train == 0.0:
                continue  # a type without training cells has no mean to predict from
            x_mean = (full_x - part_x[q]) / n_train if q < n_splits else full_x / n_train
            y_mean = (full_y - (sums.y[codes[q], t] if q < n_splits else 0.0)) / n_train
            train.n[q] += n_train
            train.yy[q] += _add_centred(
                1.0, full_n, full_x, full_y, full_xx, full_xy, full_yy, x_mean, y_mean, train.xx[q], train.xy[q]
            )
            raw_y[q] += full_yy
            for i in range(m):
                raw[q, i] += full_xx[i, i]
            if q < n_splits and sums.n[codes[q]] > 0.0:
                n, y, yy = sums.n[codes[q]], sums.y[codes[q], t], sums.yy[codes[q], t]
                part = (n, part_x[q], y, part_xx[q], part_xy[q], yy, x_mean, y_mean)
                test.n[q] += n
                test.yy[q] += _add_centred(1.0, *part, test.xx[q], test.xy[q])
                train.yy[q] += _add_centred(-1.0, *part, train.xx[q], train.xy[q])
    for q in range(n_splits + 1):
        if train.yy[q] <= _FLAT * raw_y[q]:
            train.yy[q] = 0.0
        for i in range(m):
            if train.xx[q, i, i] <= _FLAT * raw[q, i]:
                train.xx[q, i, :] = 0.0
                train.xx[q, :, i] = 0.0
    return train, test


@kernel
def _standardised(train, q, group_ptr):
    """Correlations of one row of ``train``, whose products are centred."""
    n, xx, xy = train.n[q], train.xx[q], train.xy[q]
    m = xy.shape[0]
    gram, r, sd = np.zeros((m, m)), np.zeros(m), np.zeros(m)
    if n == 0.0:
        return _Problem(gram, r, 0.0, group_ptr, np.zeros(group_ptr.shape[0] - 1), sd)
    variance = train.yy[q] / n
    for i in range(m):
        sd[i] = math.sqrt(max(xx[i, i] / n, 0.0))
        r[i] = xy[i] / n / sd[i] if sd[i] > 0.0 and variance > 0.0 else 0.0
        for k in range(i):
            scale = sd[i] * sd[k]
            gram[i, k] = xx[i, k] / n / scale if scale > 0.0 else 0.0
            gram[k, i] = gram[i, k]
        gram[i, i] = 1.0 if sd[i] > 0.0 else 0.0
    return _Problem(gram, r, variance, group_ptr, group_weights(np.diag(gram), group_ptr), sd)


@kernel
def _descend(problem, lam, settings, tol, b, residual):
    """Solve at one penalty, from ``b`` and its ``residual`` in place."""
    if problem.variance > 0.0:
        l1 = settings.alpha if settings.alpha >= 0.0 else settings.l1_ratio * lam
        descend(problem.gram, problem.r, problem.variance, problem.group_ptr, problem.weights, lam, l1, b, residual,
                tol, settings.max_sweeps)  # fmt: skip


@kernel
def _original_units(b, sd, beta):
    """Fill ``beta`` with coefficients in the units of the input."""
    for i in range(b.shape[0]):
        beta[i] = b[i] / sd[i] if b[i] != 0.0 else 0.0


@kernel
def _squared_error(beta, test, q):
    """Sum of squared errors of slopes ``beta`` over the held-out cells, on the means of the training cells."""
    error = test.yy[q]
    support = np.flatnonzero(beta)
    for a in range(support.shape[0]):
        i = support[a]
        gradient = -2.0 * test.xy[q, i]
        for c in range(support.shape[0]):
            gradient += beta[support[c]] * test.xx[q, i, support[c]]
        error += beta[i] * gradient
    return max(error, 0.0)


@kernel
def _best_place(errors):
    """Where on the path, in steps from its start, the held-out error is smallest; a continuous function of the errors.

    The minimum of the parabola through the smallest error and its neighbours: where two penalties are about equally
    good, they lead to about the same place. At either end it is the parabola of the last three; the half step next to
    the start is stretched to a whole one, so that a start that is as good as any is the place.
    """
    n = errors.shape[0]
    best = int(np.argmin(errors))
    if n < 3 or best == 0:
        return float(best)
    middle = min(best, n - 2)
    slope = 0.5 * (errors[middle + 1] - errors[middle - 1])
    curvature = errors[middle + 1] - 2.0 * errors[middle] + errors[middle - 1]
    if curvature <= 0.0:
        return float(best)
    place = min(max(middle - slope / curvature, best - 0.5), best + 0.5, n - 1.0)
    return 2.0 * place - 1.0 if place < 1.0 else place


@kernel
def _penalty_at(place, lambdas):
    """Penalty at a place of the path, geometrically between the two next to it."""
    low = int(place)
    if low >= lambdas.shape[0] - 1:
        return lambdas[-1]
    share = place - low
    return lambdas[low] if share == 0.0 else lambdas[low] ** (1.0 - share) * lambdas[low + 1] ** share


@kernel
def _walk(problems, test, lambdas, settings, saved, saved_residual):
    """Held-out errors of all folds down the path until patience runs out; fills ``saved`` (penalties x folds)."""
    used = np.flatnonzero(test.n)
    m = saved.shape[2]
    b, residual, beta = np.zeros((test.n.shape[0], m)), np.empty((test.n.shape[0], m)), np.empty(m)
    for f in range(test.n.shape[0]):
        residual[f] = problems[f].r
    errors = np.zeros(lambdas.shape[0])
    best = 0
    for i in range(lambdas.shape[0]):
        for q in used:
            _descend(problems[q], lambdas[i], settings, settings.walk_tol, b[q], residual[q])
            _original_units(b[q], problems[q].sd, beta)
            errors[i] += _squared_error(beta, test, q)
        saved[i], saved_residual[i] = b, residual
        if errors[i] < errors[best]:
            best = i
        if i - best >= settings.patience:
            return errors[: i + 1]
    return errors


@kernel
def _refine(problems, test, lambdas, settings, errors, saved, saved_residual):
    """Solve the penalties around the best one further, wherever that leads; in place.

    A path that is solved loosely gets near the best penalty, but its errors, and with them the choice, depend on the
    sweep at which each fit stopped, that is, on rounding.
    """
    used = np.flatnonzero(test.n)
    beta = np.empty(saved.shape[2])
    refined = np.zeros(errors.shape[0], dtype=np.bool_)
    while True:
        best = int(np.argmin(errors))
        middle = min(max(best, 1), max(errors.shape[0] - 2, 0))
        low, high = min(best, middle - 1), max(best, middle + 1)
        done = True
        for i in range(max(low, 0), min(high, errors.shape[0] - 1) + 1):
            if refined[i]:
                continue
            done, refined[i], errors[i] = False, True, 0.0
            for q in used:
                _descend(problems[q], lambdas[i], settings, settings.choice_tol, saved[i, q], saved_residual[i, q])
                _original_units(saved[i, q], problems[q].sd, beta)
                errors[i] += _squared_error(beta, test, q)
        if done:
            return


@kernel
def _fit_one(members, strata, columns, group_ptr, t, sums, lam, start, settings, beta, held):
    """Fit one target in one stratum; fills ``beta`` (original units) and returns the penalty, NaN without a fit.

    At a given ``lam`` from ``start`` (original units), unless that is zero. With rows in ``held`` (folds x terms) also
    the coefficients with each fold left out, at the same penalty.
    """
    m = columns.shape[0]
    beta[:] = 0.0
    held[:] = 0.0
    train, test = _split_sums(members, strata, columns, t, sums, lam < 0.0 or held.shape[0] > 0)
    n_splits = test.n.shape[0]
    if train.n[n_splits] < 2.0 or train.yy[n_splits] == 0.0 or m == 0:
        return np.nan
    problems = [_standardised(train, q, group_ptr) for q in range(n_splits + 1)]
    full = problems[n_splits]
    top = largest_lambda(full.r, group_ptr, full.weights, settings.alpha, settings.l1_ratio)
    if top == 0.0:
        return np.nan
    lambdas = top * settings.path
    n_saved = lambdas.shape[0] if lam < 0.0 else 0
    saved, saved_residual = np.zeros((n_saved, n_splits, m)), np.empty((n_saved, n_splits, m))
    b, residual = np.zeros(m), full.r.copy()
    first = 0
    if lam >= 0.0:
        for i in range(m):
            b[i] = start[i] * full.sd[i]
    else:
        lam = lambdas[0]
        used = np.flatnonzero(test.n)
        if used.shape[0] > 0:
            errors = _walk(problems, test, lambdas, settings, saved, saved_residual)
            _refine(problems, test, lambdas, settings, errors, saved, saved_residual)
            place = _best_place(errors)
            lam, first = _penalty_at(place, lambdas), int(place)
        for f in used:  # where all cells together lead is near to where the folds have led
            b += saved[first, f] / used.shape[0]
    if n_saved > 0 and lam >= top:  # all is zero there; whether a descent onto the border gets there is up to rounding
        b[:] = 0.0
    else:
        for j in np.flatnonzero(b):
            residual -= b[j] * full.gram[j]
        if not np.any(b):  # down to the wanted penalty
            for value in lambdas[lambdas > lam]:
                _descend(full, value, settings, settings.walk_tol, b, residual)
        _descend(full, lam, settings, settings.tol, b, residual)
    _original_units(b, full.sd, beta)
    for q in range(held.shape[0]):
        if test.n[q] == 0.0:
            held[q] = beta
            continue
        problem = problems[q]
        if n_saved > 0:
            b[:], residual[:] = saved[first, q], saved_residual[first, q]
        else:
            b[:], residual[:] = 0.0, problem.r
            own = largest_lambda(problem.r, group_ptr, problem.weights, settings.alpha, settings.l1_ratio)
            for value in own * settings.path[own * settings.path > lam]:
                _descend(problem, value, settings, settings.walk_tol, b, residual)
        _descend(problem, lam, settings, settings.tol, b, residual)
        _original_units(b, problem.sd, held[q])
    return lam


@kernel
def fit_jobs(first, last, strata, targets, sums, lam, starts, settings, coef, held, chosen):
    """Fit jobs ``first`` to ``last - 1``, a target in a stratum each.

    The penalties are ``lam`` (T, S), or the best ones where that is negative. Fills ``coef`` (T, S, widest; ``starts``
    is of the same shape), ``held`` (folds or none, T, S, widest) and ``chosen`` (T, S), the penalties.
    """
    n_strata = strata.indptr.shape[0] - 1
    for job in range(first, last):
        t, s = job // n_strata, job % n_strata
        members = strata.members[strata.indptr[s] : strata.indptr[s + 1]]
        columns, group_ptr = targets.term[targets.indptr[t] : targets.indptr[t + 1]], targets.group_ptr[t]
        m = columns.shape[0]
        order = _order(columns, group_ptr, t, members, strata, sums)
        beta, without = np.zeros(m), np.zeros((held.shape[0], m))
        chosen[t, s] = _fit_one(
            members, strata, columns[order], group_ptr, t, sums, lam[t, s], starts[t, s, :m][order], settings, beta,
            without,
        )  # fmt: skip
        for i in range(m):
            coef[t, s, order[i]] = beta[i]
            for q in range(held.shape[0]):
                held[q, t, s, order[i]] = without[q, i]
