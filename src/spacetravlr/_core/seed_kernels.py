"""Compiled loops over (target, cell type) of the seed regression; see ``group_lasso`` for what they compute.

Every job gathers a target's own cross products from those of the block, so its cost depends on the number of its terms
and of folds and not on the number of cells. Jobs are independent: results do not depend on the number of threads.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from spacetravlr._core.sgl import descend, group_weights, largest_lambda

_FLAT = 1e-10  # a variance below this part of the mean square is rounding error of float32 input


@nb.njit(cache=True, nogil=True)
def standardise(n, x, y, xx, xy, yy, gram, r, mean, sd):  # type: ignore[no-untyped-def]
    """Fill correlations ``gram``, ``r``, ``mean`` and ``sd`` from sums; returns mean and variance of the target."""
    m = x.shape[0]
    y_mean = y / n
    variance = yy / n - y_mean * y_mean
    if variance <= _FLAT * yy / n:
        variance = 0.0
    for i in range(m):
        mean[i] = x[i] / n
        square = xx[i, i] / n
        spread = square - mean[i] * mean[i]
        sd[i] = math.sqrt(spread) if spread > _FLAT * square else 0.0
        r[i] = (xy[i] / n - mean[i] * y_mean) / sd[i] if sd[i] > 0.0 and variance > 0.0 else 0.0
    for i in range(m):
        for k in range(i):
            scale = sd[i] * sd[k]
            value = (xx[i, k] / n - mean[i] * mean[k]) / scale if scale > 0.0 else 0.0
            gram[i, k] = value
            gram[k, i] = value
        gram[i, i] = 1.0 if sd[i] > 0.0 else 0.0
    return y_mean, variance


@nb.njit(cache=True, nogil=True)
def squared_error(intercept, beta, n, x, y, xx, xy, yy):  # type: ignore[no-untyped-def]
    """Sum of squared errors of a linear prediction over the cells that the sums were taken over."""
    error = yy + n * intercept * intercept - 2.0 * intercept * y
    support = np.flatnonzero(beta)
    for a in range(support.shape[0]):
        i = support[a]
        along = 2.0 * (intercept * x[i] - xy[i])
        for c in range(support.shape[0]):
            along += beta[support[c]] * xx[i, support[c]]
        error += beta[i] * along
    return max(error, 0.0)


@nb.njit(cache=True, nogil=True)
def _gather(members, fold, n_folds, columns, t, n, x, y, xx, xy, yy, to_x, to_xx, to_xy):  # type: ignore[no-untyped-def]
    """Add up one target's sums over the types of a stratum in one fold; returns cells, sum and squares of y."""
    cells, y_sum, y_square = 0.0, 0.0, 0.0
    to_x[:] = 0.0
    to_xx[:] = 0.0
    to_xy[:] = 0.0
    for q in range(members.shape[0]):
        code = members[q] * n_folds + fold
        if n[code] == 0.0:
            continue
        cells += n[code]
        y_sum += y[code, t]
        y_square += yy[code, t]
        for i in range(columns.shape[0]):
            to_x[i] += x[code, columns[i]]
            to_xy[i] += xy[code, t, columns[i]]
            row = xx[code, columns[i]]
            for k in range(columns.shape[0]):
                to_xx[i, k] += row[columns[k]]
    return cells, y_sum, y_square


@nb.njit(cache=True, nogil=True)
def _original_units(b, mean, sd, y_mean, beta):  # type: ignore[no-untyped-def]
    """Fill ``beta`` with coefficients in the units of the input; returns the intercept."""
    intercept = y_mean
    for i in range(b.shape[0]):
        beta[i] = b[i] / sd[i] if b[i] != 0.0 else 0.0
        intercept -= beta[i] * mean[i]
    return intercept


@nb.njit(cache=True, nogil=True)
def _choose(errors, cells, n_tried, one_se):  # type: ignore[no-untyped-def]
    """Index of the lambda with the least held-out error, or the largest within one standard error of it."""
    total = np.zeros(n_tried)
    for i in range(n_tried):
        total[i] = errors[i].sum()
    best = int(np.argmin(total))
    if not one_se:
        return best
    means = errors[best] / cells
    overall = total[best] / cells.sum()
    spread = np.sum(cells * (means - overall) ** 2) / cells.sum()
    limit = overall + math.sqrt(spread / max(cells.shape[0] - 1, 1))
    for i in range(best):
        if total[i] / cells.sum() <= limit:
            return i
    return best


@nb.njit(cache=True, nogil=True)
def _fit_one(  # type: ignore[no-untyped-def]
    members, folds, n_folds, columns, ptr, t, n, x, y, xx, xy, yy, lam, alpha, l1_ratio, path, patience, one_se, tols,
    max_sweeps, beta, out,
):  # fmt: skip
    """Fit one target in one stratum; fills ``beta`` and ``out`` (intercept, lambda, R2 in training and folds, mean)."""
    m, n_parts = columns.shape[0], folds.shape[0]
    part_x, part_xx, part_xy = np.empty((n_parts, m)), np.empty((n_parts, m, m)), np.empty((n_parts, m))
    part_n, part_y, part_yy = np.empty(n_parts), np.empty(n_parts), np.empty(n_parts)
    for f in range(n_parts):
        part_n[f], part_y[f], part_yy[f] = _gather(
            members, folds[f], n_folds, columns, t, n, x, y, xx, xy, yy, part_x[f], part_xx[f], part_xy[f]
        )
    cells = part_n.sum()
    beta[:] = 0.0
    out[:] = np.nan
    out[0] = 0.0
    if cells == 0.0:
        return
    whole_x, whole_xx, whole_xy = np.zeros(m), np.zeros((m, m)), np.zeros(m)
    for f in range(n_parts):
        whole_x += part_x[f]
        whole_xx += part_xx[f]
        whole_xy += part_xy[f]
    whole_y, whole_yy = part_y.sum(), part_yy.sum()
    gram, r, mean, sd = np.empty((m, m)), np.empty(m), np.empty(m), np.empty(m)
    y_mean, variance = standardise(cells, whole_x, whole_y, whole_xx, whole_xy, whole_yy, gram, r, mean, sd)
    out[0] = y_mean
    out[4] = y_mean
    if cells < 2.0 or variance == 0.0 or m == 0:
        return
    weights = group_weights(np.diag(gram), ptr)
    top = largest_lambda(r, ptr, weights, alpha, l1_ratio)
    if top == 0.0:
        return

    lambdas = top * path
    chosen = 0
    used = np.flatnonzero(part_n)
    n_used = used.shape[0]
    if lam >= 0.0:
        lambdas = lambdas[lambdas > lam]  # the way down to the wanted value
        lambdas = np.append(lambdas, lam)
        chosen = lambdas.shape[0] - 1
    elif n_used > 1:
        grams, rs = np.empty((n_used, m, m)), np.empty((n_used, m))
        means, sds = np.empty((n_used, m)), np.empty((n_used, m))
        fold_mean, fold_variance = np.empty(n_used), np.empty(n_used)
        fold_weights = np.empty((n_used, weights.shape[0]))
        for q in range(n_used):
            f = used[q]
            fold_mean[q], fold_variance[q] = standardise(
                cells - part_n[f], whole_x - part_x[f], whole_y - part_y[f], whole_xx - part_xx[f],
                whole_xy - part_xy[f], whole_yy - part_yy[f], grams[q], rs[q], means[q], sds[q],
            )  # fmt: skip
            fold_weights[q] = group_weights(np.diag(grams[q]), ptr)
        b, residual = np.zeros((n_used, m)), rs.copy()
        errors = np.zeros((lambdas.shape[0], n_used))
        scratch = np.empty(m)
        best, best_error, tried = 0, math.inf, 0
        for i in range(lambdas.shape[0]):
            l1 = alpha if alpha >= 0.0 else l1_ratio * lambdas[i]
            for q in range(n_used):
                if fold_variance[q] > 0.0:
                    descend(grams[q], rs[q], fold_variance[q], ptr, fold_weights[q], lambdas[i], l1, b[q], residual[q],
                            tols[0], max_sweeps)  # fmt: skip
                f = used[q]
                intercept = _original_units(b[q], means[q], sds[q], fold_mean[q], scratch)
                errors[i, q] = squared_error(
                    intercept, scratch, part_n[f], part_x[f], part_y[f], part_xx[f], part_xy[f], part_yy[f]
                )
            tried = i + 1
            if errors[i].sum() < best_error:
                best, best_error = i, errors[i].sum()
            if i - best >= patience:
                break
        chosen = _choose(errors, part_n[used], tried, one_se)
        null = 0.0
        for q in range(n_used):
            f = used[q]
            null += part_yy[f] - 2.0 * fold_mean[q] * part_y[f] + part_n[f] * fold_mean[q] ** 2
        if null > 0.0:
            out[3] = 1.0 - errors[chosen].sum() / null

    coefficients, left = np.zeros(m), r.copy()
    for i in range(chosen + 1):
        l1 = alpha if alpha >= 0.0 else l1_ratio * lambdas[i]
        tol = tols[1] if i == chosen else tols[0]
        descend(gram, r, variance, ptr, weights, lambdas[i], l1, coefficients, left, tol, max_sweeps)
    out[0] = _original_units(coefficients, mean, sd, y_mean, beta)
    out[1] = lambdas[chosen]
    out[2] = 1.0 - squared_error(out[0], beta, cells, whole_x, whole_y, whole_xx, whole_xy, whole_yy) / (
        cells * variance
    )


@nb.njit(cache=True, nogil=True, parallel=True)
def fit_block(  # type: ignore[no-untyped-def]
    strata_ptr, strata, folds, n_folds, indptr, term, ptrs, n, x, y, xx, xy, yy, lam, alpha, l1_ratio, path, patience,
    one_se, tols, max_sweeps, coef, out,
):  # fmt: skip
    """Fit every target in every stratum; ``coef`` (T, S, 1 + widest) and ``out`` (T, S, 5) are filled."""
    n_strata = strata_ptr.shape[0] - 1
    for job in nb.prange(coef.shape[0] * n_strata):
        t, s = job // n_strata, job % n_strata
        columns = term[indptr[t] : indptr[t + 1]]
        beta = np.zeros(columns.shape[0])
        result = np.empty(5)
        _fit_one(
            strata[strata_ptr[s] : strata_ptr[s + 1]], folds, n_folds, columns, ptrs[t], t, n, x, y, xx, xy, yy,
            lam[t, s], alpha, l1_ratio, path, patience, one_se, tols, max_sweeps, beta, result,
        )  # fmt: skip
        coef[t, s, 0] = result[0]
        coef[t, s, 1 : 1 + columns.shape[0]] = beta
        out[t, s] = result


@nb.njit(cache=True, nogil=True, parallel=True)
def error_block(codes, indptr, term, n, x, y, xx, xy, yy, coef, errors):  # type: ignore[no-untyped-def]
    """Squared errors of given coefficients; ``codes`` (S, F) are groups, ``coef`` in the shifted frame of the sums."""
    for job in nb.prange(coef.shape[0] * codes.shape[0]):
        t, s = job // codes.shape[0], job % codes.shape[0]
        start, stop = indptr[t], indptr[t + 1]
        support = np.flatnonzero(coef[t, s, 1 : 1 + stop - start])
        m = support.shape[0]
        columns = term[start + support]
        beta = coef[t, s, 1 + support]
        to_x, to_xx, to_xy = np.empty(m), np.empty((m, m)), np.empty(m)
        for q in range(codes.shape[1]):
            cells, y_sum, y_square = _gather(
                codes[s, q : q + 1], 0, 1, columns, t, n, x, y, xx, xy, yy, to_x, to_xx, to_xy
            )
            errors[t, s, q] = squared_error(coef[t, s, 0], beta, cells, to_x, y_sum, to_xx, to_xy, y_square)
