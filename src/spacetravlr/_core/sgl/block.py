"""Compiled loops over (target, cell type) of the seed regression; see ``group_lasso`` for what they compute.

Every job gathers a target's own cross products from those of the block, so its cost depends on the number of its terms
and of folds and not on the number of cells. Jobs are independent: results do not depend on the number of threads.

Cross products are centred within each cell type, on the means of the training folds. The seed of several types together
so has one set of slopes and an intercept a type: what differs between types does not pass for regulation within them.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.sgl.descent import descend, group_weights, largest_lambda

_FLAT = 1e-10  # a variance below this part of the mean square is rounding error of float32 input


@kernel
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


@kernel
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


@kernel
def _gather(code, columns, t, x, xx, xy, to_x, to_xx, to_xy):  # type: ignore[no-untyped-def]
    """Copy one target's sums over one group of cells."""
    for i in range(columns.shape[0]):
        to_x[i] = x[code, columns[i]]
        to_xy[i] = xy[code, t, columns[i]]
        row = xx[code, columns[i]]
        for k in range(columns.shape[0]):
            to_xx[i, k] = row[columns[k]]


@kernel
def _add_centred(scale, n, x, y, xx, xy, yy, x_mean, y_mean, to_xx, to_xy):  # type: ignore[no-untyped-def]
    """Add ``scale`` times the products of (x - x_mean) and (y - y_mean) over n cells; returns that of y with itself."""
    for i in range(x.shape[0]):
        along = x[i] - n * x_mean[i]
        for k in range(x.shape[0]):
            to_xx[i, k] += scale * (xx[i, k] - along * x_mean[k] - x_mean[i] * x[k])
        to_xy[i] += scale * (xy[i] - along * y_mean - x_mean[i] * y)
    return scale * (yy - (y - n * y_mean) * y_mean - y_mean * y)


@kernel
def _split_sums(members, folds, n_folds, columns, t, n, x, y, xx, xy, yy, splits):  # type: ignore[no-untyped-def]
    """Training and held-out products with each fold left out in turn (if ``splits``), and with none (the last row).

    Returns cells, xx, xy, yy of the training cells, then the same of the held-out cells.
    """
    m, n_parts = columns.shape[0], folds.shape[0]
    n_left = n_parts if splits else 0
    train_n, train_yy = np.zeros(n_left + 1), np.zeros(n_left + 1)
    train_xx, train_xy = np.zeros((n_left + 1, m, m)), np.zeros((n_left + 1, m))
    out_n, out_yy = np.zeros(n_left), np.zeros(n_left)
    out_xx, out_xy = np.zeros((n_left, m, m)), np.zeros((n_left, m))
    raw, raw_y = np.zeros((n_left + 1, m)), np.zeros(n_left + 1)
    n_kept = max(n_left, 1)
    part_x, part_xx, part_xy = np.empty((n_kept, m)), np.empty((n_kept, m, m)), np.empty((n_kept, m))
    for member in members:
        codes = member * n_folds + folds
        whole_x, whole_xx, whole_xy = np.zeros(m), np.zeros((m, m)), np.zeros(m)
        whole_n, whole_y, whole_yy = 0.0, 0.0, 0.0
        for f in range(n_parts):
            slot = f if splits else 0
            _gather(codes[f], columns, t, x, xx, xy, part_x[slot], part_xx[slot], part_xy[slot])
            whole_x += part_x[slot]
            whole_xx += part_xx[slot]
            whole_xy += part_xy[slot]
            whole_n += n[codes[f]]
            whole_y += y[codes[f], t]
            whole_yy += yy[codes[f], t]
        for q in range(n_left + 1):
            left = whole_n - (n[codes[q]] if q < n_left else 0.0)
            if left == 0.0:
                continue  # a type without training cells has no mean to predict from
            x_mean = (whole_x - part_x[q]) / left if q < n_left else whole_x / left
            y_mean = (whole_y - (y[codes[q], t] if q < n_left else 0.0)) / left
            train_n[q] += left
            train_yy[q] += _add_centred(
                1.0, whole_n, whole_x, whole_y, whole_xx, whole_xy, whole_yy, x_mean, y_mean, train_xx[q], train_xy[q]
            )
            raw_y[q] += whole_yy
            for i in range(m):
                raw[q, i] += whole_xx[i, i]
            if q < n_left and n[codes[q]] > 0.0:
                args = (n[codes[q]], part_x[q], y[codes[q], t], part_xx[q], part_xy[q], yy[codes[q], t], x_mean, y_mean)
                out_n[q] += n[codes[q]]
                out_yy[q] += _add_centred(1.0, *args, out_xx[q], out_xy[q])
                train_yy[q] += _add_centred(-1.0, *args, train_xx[q], train_xy[q])
    for q in range(n_left + 1):
        if train_yy[q] <= _FLAT * raw_y[q]:
            train_yy[q] = 0.0
        for i in range(m):
            if train_xx[q, i, i] <= _FLAT * raw[q, i]:
                train_xx[q, i, :] = 0.0
                train_xx[q, :, i] = 0.0
    return train_n, train_xx, train_xy, train_yy, out_n, out_xx, out_xy, out_yy


@kernel
def _original_units(b, sd, beta):  # type: ignore[no-untyped-def]
    """Fill ``beta`` with coefficients in the units of the input."""
    for i in range(b.shape[0]):
        beta[i] = b[i] / sd[i] if b[i] != 0.0 else 0.0


@kernel
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


@kernel
def _fit_one(  # type: ignore[no-untyped-def]
    members, folds, n_folds, columns, ptr, t, n, x, y, xx, xy, yy, lam, start, alpha, l1_ratio, path, patience, one_se,
    tols, max_sweeps, beta, held, out,
):  # fmt: skip
    """Fit one target in one stratum; fills ``beta`` (original units) and ``out`` (lambda, R2 in training and folds).

    At a given ``lam`` from ``start`` (original units), unless that is zero. With rows in ``held`` (folds x terms) also
    the coefficients with each fold left out, at the same lambda.
    """
    m = columns.shape[0]
    beta[:] = 0.0
    held[:] = 0.0
    out[:] = np.nan
    splits = lam < 0.0 or held.shape[0] > 0
    train_n, train_xx, train_xy, train_yy, out_n, out_xx, out_xy, out_yy = _split_sums(
        members, folds, n_folds, columns, t, n, x, y, xx, xy, yy, splits
    )
    last = out_n.shape[0]
    cells = train_n[last]
    if cells < 2.0 or train_yy[last] == 0.0 or m == 0:
        return
    zero = np.zeros(m)
    grams, rs, sds = np.empty((last + 1, m, m)), np.zeros((last + 1, m)), np.empty((last + 1, m))
    weights, variance, mean = np.empty((last + 1, ptr.shape[0] - 1)), np.zeros(last + 1), np.empty(m)
    for q in range(last + 1):
        if train_n[q] > 0.0:
            variance[q] = standardise(
                train_n[q], zero, 0.0, train_xx[q], train_xy[q], train_yy[q], grams[q], rs[q], mean, sds[q]
            )[1]
            weights[q] = group_weights(np.diag(grams[q]), ptr)
    top = largest_lambda(rs[last], ptr, weights[last], alpha, l1_ratio)
    if top == 0.0:
        return

    lambdas = top * path
    chosen = 0
    used = np.flatnonzero(out_n)
    coefficients, left = np.zeros(m), rs[last].copy()
    n_saved = lambdas.shape[0] if lam < 0.0 else 0
    saved, saved_residual = np.empty((n_saved, last, m)), np.empty((n_saved, last, m))
    if lam >= 0.0:
        for i in range(m):
            coefficients[i] = start[i] * sds[last, i]
        way = lambdas[lambdas > lam]  # down to the wanted value
        lambdas = np.append(way[:0] if np.any(coefficients) else way, lam)
        chosen = lambdas.shape[0] - 1
    elif used.shape[0] > 0:
        b, residual = np.zeros((last, m)), rs[:last].copy()
        errors = np.zeros((lambdas.shape[0], used.shape[0]))
        best, best_error, tried = 0, math.inf, 0
        for i in range(lambdas.shape[0]):
            l1 = alpha if alpha >= 0.0 else l1_ratio * lambdas[i]
            for u in range(used.shape[0]):
                q = used[u]
                if variance[q] > 0.0:
                    descend(grams[q], rs[q], variance[q], ptr, weights[q], lambdas[i], l1, b[q], residual[q], tols[0],
                            max_sweeps)  # fmt: skip
                _original_units(b[q], sds[q], beta)
                errors[i, u] = squared_error(0.0, beta, out_n[q], zero, 0.0, out_xx[q], out_xy[q], out_yy[q])
            saved[i], saved_residual[i] = b, residual
            tried = i + 1
            if errors[i].sum() < best_error:
                best, best_error = i, errors[i].sum()
            if i - best >= patience:
                break
        chosen = _choose(errors, out_n[used], tried, one_se)
        if out_yy.sum() > 0.0:
            out[2] = 1.0 - errors[chosen].sum() / out_yy.sum()
        for u in range(used.shape[0]):  # where all cells together lead is near to where the folds have led
            coefficients += saved[chosen, used[u]] / used.shape[0]
    if lambdas[chosen] >= top:  # all is zero there; whether a descent onto the border gets there is up to rounding
        coefficients[:] = 0.0
    else:
        first = chosen if np.any(coefficients) else 0
        for j in np.flatnonzero(coefficients):
            left -= coefficients[j] * grams[last, j]
        for i in range(first, chosen + 1):
            l1 = alpha if alpha >= 0.0 else l1_ratio * lambdas[i]
            tol = tols[1] if i == chosen else tols[0]
            descend(grams[last], rs[last], variance[last], ptr, weights[last], lambdas[i], l1, coefficients, left, tol,
                    max_sweeps)  # fmt: skip
    _original_units(coefficients, sds[last], beta)
    out[0] = lambdas[chosen]
    error = squared_error(0.0, beta, cells, zero, 0.0, train_xx[last], train_xy[last], train_yy[last])
    out[1] = 1.0 - error / train_yy[last]

    for q in range(held.shape[0]):
        if out_n[q] == 0.0:
            held[q] = beta
            continue
        if variance[q] == 0.0:
            continue
        if n_saved > 0:
            down = lambdas[chosen : chosen + 1]
            coefficients[:], left[:] = saved[chosen, q], saved_residual[chosen, q]
        else:
            down = largest_lambda(rs[q], ptr, weights[q], alpha, l1_ratio) * path
            down = np.append(down[down > lam], lam)
            coefficients[:], left[:] = 0.0, rs[q]
        for i in range(down.shape[0]):
            l1 = alpha if alpha >= 0.0 else l1_ratio * down[i]
            tol = tols[1] if i == down.shape[0] - 1 else tols[0]
            descend(grams[q], rs[q], variance[q], ptr, weights[q], down[i], l1, coefficients, left, tol, max_sweeps)
        _original_units(coefficients, sds[q], held[q])


@parallel_kernel
def fit_block(  # type: ignore[no-untyped-def]
    strata_ptr, strata, folds, n_folds, indptr, term, ptrs, n, x, y, xx, xy, yy, lam, starts, alpha, l1_ratio, path,
    patience, one_se, tols, max_sweeps, coef, held, out,
):  # fmt: skip
    """Fit every target in every stratum, ``starts`` of the shape of ``coef``.

    Fills ``coef`` (T, S, widest), ``held`` (folds or none, T, S, widest) and ``out`` (T, S, 3).
    """
    n_strata = strata_ptr.shape[0] - 1
    for job in nb.prange(coef.shape[0] * n_strata):
        t, s = job // n_strata, job % n_strata
        columns = term[indptr[t] : indptr[t + 1]]
        beta, without = np.zeros(columns.shape[0]), np.zeros((held.shape[0], columns.shape[0]))
        result = np.empty(3)
        _fit_one(
            strata[strata_ptr[s] : strata_ptr[s + 1]], folds, n_folds, columns, ptrs[t], t, n, x, y, xx, xy, yy,
            lam[t, s], starts[t, s], alpha, l1_ratio, path, patience, one_se, tols, max_sweeps, beta, without, result,
        )  # fmt: skip
        coef[t, s, : columns.shape[0]] = beta
        held[:, t, s, : columns.shape[0]] = without
        out[t, s] = result


@parallel_kernel
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
            code = codes[s, q]
            _gather(code, columns, t, x, xx, xy, to_x, to_xx, to_xy)
            errors[t, s, q] = squared_error(coef[t, s, 0], beta, n[code], to_x, y[code, t], to_xx, to_xy, yy[code, t])
