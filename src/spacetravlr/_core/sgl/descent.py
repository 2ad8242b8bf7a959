r"""Compiled coordinate descent for the sparse group lasso on a Gram matrix.

With standardised columns, :math:`R = X^T X / n`, :math:`r = X^T y / n` and :math:`v = y^T y / n`, the seed is
(how-it-works, section 3)

.. math:: \min_b \tfrac12 (v - 2 r^T b + b^T R b) + \lambda \sum_g w_g ||b_g||_2 + \alpha ||b||_1,
          \qquad w_g = \sqrt{|g|}

A group that is zero stays zero while :math:`||S(c_g, \alpha)||_2 \le \lambda w_g`, with :math:`c_g` the correlation of
the group with the residual that leaves it out and :math:`S` soft thresholding. Within a group that is not zero the
group norm is smooth, so coordinate descent converges; each coordinate solves

.. math:: R_{jj} b + \lambda w_g b / \sqrt{b^2 + s} = |c_j| - \alpha, \qquad s = \sum_{i \in g, i \ne j} b_i^2

by Newton steps, which the concavity of the left side makes monotone. Between two such sweeps over all columns come
cheap ones over the support, with a quadratic bound in place of the group norm. The duality gap decides when to stop.
Columns are ordered by group; ``ptr`` are the group borders; a column without variance has a row of zeros in R.
"""

from __future__ import annotations

import math

import numpy as np

from spacetravlr._core.kernels import kernel

_ACTIVE_SWEEPS = 30  # sweeps over the support between two sweeps over all columns
_MEMORY = 6  # iterates that an Anderson step combines
_NEWTON = 30
_CLEARLY = 1 + 1e-9  # a group that rounding alone brings out of zero hardly moves, which passes for convergence
_SINGLE = 1e-5  # changes of a coefficient down to which single precision will do


@kernel
def soft_norm(values, start, stop, threshold):
    """Euclidean norm of soft-thresholded values."""
    total = 0.0
    for j in range(start, stop):
        excess = abs(values[j]) - threshold
        if excess > 0.0:
            total += excess * excess
    return math.sqrt(total)


@kernel
def group_weights(diagonal, ptr):
    """Square roots of the numbers of columns that vary, one per group."""
    weights = np.zeros(ptr.shape[0] - 1)
    for g in range(weights.shape[0]):
        count = 0
        for j in range(ptr[g], ptr[g + 1]):
            count += diagonal[j] > 0.0
        weights[g] = math.sqrt(count)
    return weights


@kernel
def largest_lambda(r, ptr, weights, alpha, l1_ratio):
    """Smallest lambda at which all is zero; ``alpha`` below zero stands for ``l1_ratio * lambda``."""
    largest = 0.0
    for g in range(weights.shape[0]):
        if weights[g] == 0.0:
            continue
        if alpha >= 0.0:
            largest = max(largest, soft_norm(r, ptr[g], ptr[g + 1], alpha) / weights[g])
            continue
        low, high = 0.0, soft_norm(r, ptr[g], ptr[g + 1], 0.0) / weights[g]
        for _ in range(100):
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            if soft_norm(r, ptr[g], ptr[g + 1], l1_ratio * middle) <= middle * weights[g]:
                high = middle
            else:
                low = middle
        largest = max(largest, high)
    return largest


@kernel
def _coordinate(c, curvature, alpha, kappa, others, old):
    """Minimiser of one coordinate; ``others`` is the sum of squares of its group without it, ``old`` a first guess."""
    d = abs(c) - alpha
    if d <= 0.0:
        return 0.0
    low = max((d - kappa) / curvature, 0.0)
    if others == 0.0 or kappa == 0.0:
        return math.copysign(low, c)
    low = max(low, d / (curvature + kappa / math.sqrt(others)))
    b = max(old, low) if c > 0.0 else max(-old, low)
    for _ in range(_NEWTON):
        norm2 = b * b + others
        norm = math.sqrt(norm2)
        # the tangent of a concave function meets zero at or before the function does, from either side
        new = max(b + (d - b * (curvature + kappa / norm)) / (curvature + kappa * others / (norm * norm2)), low)
        change = abs(new - b)
        b = new
        if change <= 1e-8 * b:  # quadratic convergence: what is left is rounding
            break
    return math.copysign(b, c)


@kernel
def _move(gram, residual, b, j, value):
    """Set one coefficient and keep the correlations with the residual up to date."""
    change = value - b[j]
    b[j] = value
    row, by = gram[j], residual.dtype.type(change)
    for i in range(np.uint64(residual.shape[0])):  # numba does not look for negative indices then
        residual[i] -= by * row[i]
    return abs(change)


@kernel
def _leave_zero(gram, residual, b, start, stop, alpha, kappa):
    """One proximal step of a group that is zero and should not be; the trace bounds its largest eigenvalue."""
    step = 1.0 / max(stop - start, 1)
    shrink = step * (1.0 - kappa / soft_norm(residual, start, stop, alpha))
    largest = 0.0
    wanted = np.zeros(stop - start)
    for j in range(start, stop):
        excess = abs(residual[j]) - alpha
        if excess > 0.0:
            wanted[j - start] = math.copysign(shrink * excess, residual[j])
    for j in range(start, stop):
        if wanted[j - start] != 0.0:
            largest = max(largest, _move(gram, residual, b, j, wanted[j - start]))
    return largest


@kernel
def _should_be_zero(gram, residual, b, start, stop, alpha, kappa):
    """Whether the best value of a whole group, the others kept, is zero."""
    without = residual[start:stop].copy()
    for j in range(start, stop):
        if b[j] != 0.0:
            row = gram[j, start:stop]
            for i in range(np.uint64(stop - start)):
                without[i] += b[j] * row[i]
    return soft_norm(without, 0, stop - start, alpha) <= kappa


@kernel
def _squares(b, start, stop):
    total = 0.0
    for j in range(start, stop):
        total += b[j] * b[j]
    return total


@kernel
def _sweep(gram, residual, b, ptr, weights, lam, alpha):
    """One exact pass over all columns; returns the largest change."""
    largest = 0.0
    for g in range(weights.shape[0]):
        start, stop = ptr[g], ptr[g + 1]
        kappa = lam * weights[g]
        if _squares(b, start, stop) == 0.0:
            if soft_norm(residual, start, stop, alpha) <= kappa * _CLEARLY:
                continue
            largest = max(largest, _leave_zero(gram, residual, b, start, stop, alpha, kappa))
        elif kappa > 0.0 and _should_be_zero(gram, residual, b, start, stop, alpha, kappa):
            for j in range(start, stop):
                if b[j] != 0.0:
                    largest = max(largest, _move(gram, residual, b, j, 0.0))
            continue
        norm2 = _squares(b, start, stop)
        for j in range(start, stop):
            old = b[j]
            curvature = gram[j, j]
            if curvature == 0.0:
                continue
            others = max(norm2 - old * old, 0.0)
            if others <= 1e-15 * norm2:
                others = 0.0  # what is left of a difference of equal numbers
            new = _coordinate(residual[j] + curvature * old, curvature, alpha, kappa, others, old)
            if new != old:
                largest = max(largest, _move(gram, residual, b, j, new))
                norm2 = others + new * new
    return largest


@kernel
def _sweep_bounded(gram, residual, b, ptr, weights, lam, alpha):
    r"""One cheap pass, the norm replaced by its bound :math:`||b_g|| \le (||b_g||^2 / c + c) / 2`, c as it was."""
    largest = 0.0
    for g in range(weights.shape[0]):
        start, stop = ptr[g], ptr[g + 1]
        norm2 = _squares(b, start, stop)
        if norm2 == 0.0:
            continue
        added = lam * weights[g] / math.sqrt(norm2)
        for j in range(start, stop):
            old = b[j]
            c = residual[j] + gram[j, j] * old
            excess = abs(c) - alpha
            new = math.copysign(excess / (gram[j, j] + added), c) if excess > 0.0 else 0.0
            if new != old:
                largest = max(largest, _move(gram, residual, b, j, new))
    return largest


@kernel
def duality_gap(r, residual, b, variance, ptr, weights, lam, alpha):
    r"""Primal minus dual objective, the dual at the residual scaled until it is feasible.

    The scale :math:`s \le 1` of a group solves :math:`||S(s c_g, \alpha)|| = \lambda w_g`. The left side is convex
    in s: Newton steps come from above, and the chord to zero then ends at a feasible value.
    """
    scale = 1.0
    penalty = 0.0
    for g in range(weights.shape[0]):
        start, stop = ptr[g], ptr[g + 1]
        kappa = lam * weights[g]
        norm2 = 0.0
        for j in range(start, stop):
            norm2 += b[j] * b[j]
            penalty += alpha * abs(b[j])
        penalty += kappa * math.sqrt(norm2)
        if kappa == 0.0:
            top = 0.0
            for j in range(start, stop):
                top = max(top, abs(residual[j]))
            if top * scale > alpha:
                scale = alpha / top
            continue
        s = scale
        for _ in range(8):
            norm2, slope = 0.0, 0.0
            for j in range(start, stop):
                size = abs(residual[j])
                excess = s * size - alpha
                if excess > 0.0:
                    norm2 += excess * excess
                    slope += excess * size
            norm = math.sqrt(norm2)
            excess_norm = norm - kappa
            if excess_norm <= 1e-15 * kappa:
                break
            s -= excess_norm * norm / slope
        over = soft_norm(s * residual[start:stop], 0, stop - start, alpha) - kappa
        if over > 0.0:
            s *= kappa / (kappa + over)
        scale = min(scale, s)
    fitted = 0.0  # r^T b
    inner = 0.0  # residual^T X b / n
    for j in range(b.shape[0]):
        fitted += r[j] * b[j]
        inner += residual[j] * b[j]
    y_residual = variance - fitted  # y^T residual / n
    squared = max(y_residual - inner, 0.0)  # residual^T residual / n
    return 0.5 * squared + penalty - (scale * y_residual - 0.5 * scale * scale * squared)


@kernel
def _objective(b, residual, r, ptr, weights, lam, alpha):
    """Minimised function without the constant, from ``residual = r - gram @ b``."""
    value = 0.0
    for g in range(weights.shape[0]):
        norm2 = 0.0
        for j in range(ptr[g], ptr[g + 1]):
            norm2 += b[j] * b[j]
            value += alpha * abs(b[j]) - 0.5 * b[j] * (r[j] + residual[j])
        value += lam * weights[g] * math.sqrt(norm2)
    return value


@kernel
def _extrapolate(past, past_residuals, values, residual, r, ptr, weights, lam, alpha):
    """Anderson step: the affine combination of iterates whose steps cancel best, if it lowers the objective."""
    k, n = past.shape[0] - 1, past.shape[1]
    products = np.zeros((k, k))
    for i in range(k):  # loops, not BLAS, whose own threads would compete with the caller's
        for j in range(i + 1):
            for a in range(n):
                products[i, j] += (past[i + 1, a] - past[i, a]) * (past[j + 1, a] - past[j, a])
            products[j, i] = products[i, j]
    scale = np.trace(products)
    if scale == 0.0:
        return
    share = np.linalg.solve(products + 1e-10 * scale * np.eye(k), np.ones(k))
    share /= share.sum()
    new, new_residual = np.zeros(n), np.zeros(n)
    for i in range(k):
        new += share[i] * past[i + 1]
        new_residual += share[i] * past_residuals[i + 1]
    if _objective(new, new_residual, r, ptr, weights, lam, alpha) < _objective(
        values, residual, r, ptr, weights, lam, alpha
    ):
        values[:] = new
        residual[:] = new_residual


@kernel
def _sweep_support(small, residual, values, r, ptr, weights, lam, alpha, accuracy):
    """Sweeps over a small problem in place, in the precision of its arrays; returns their number."""
    past, past_residuals = np.empty((_MEMORY, len(r)), r.dtype), np.empty((_MEMORY, len(r)), r.dtype)
    sweeps = 0
    while sweeps < _ACTIVE_SWEEPS:
        change = _sweep_bounded(small, residual, values, ptr, weights, lam, alpha)
        past[sweeps % _MEMORY] = values
        past_residuals[sweeps % _MEMORY] = residual
        sweeps += 1
        if change <= accuracy:
            break
        if sweeps % _MEMORY == 0:
            _extrapolate(past, past_residuals, values, residual, r, ptr, weights, lam, alpha)
    return sweeps


@kernel
def _take(values, index, to):
    """Fill ``to`` with the values at ``index``."""
    for a in range(np.uint64(index.shape[0])):
        to[a] = values[index[a]]


@kernel
def _on_support(support, gram, residual, r, b, ptr, weights, lam, alpha, accuracy, small):
    """Sweeps over the support in the precision of ``small`` (overwritten), then taken over; returns their number."""
    n = support.shape[0]
    places = support.astype(np.uint64)  # numba does not look for negative indices then
    own_residual, values = np.empty(n, small.dtype), np.empty(n, small.dtype)
    start, own_r = np.empty(n, small.dtype), np.empty(n, small.dtype)
    for a in range(n):
        _take(gram[support[a]], places, small[a])
    _take(residual, places, own_residual)
    _take(b, places, values)
    _take(r, places, own_r)
    start[:] = values
    sweeps = _sweep_support(
        small, own_residual, values, own_r, np.searchsorted(support, ptr), weights, lam, alpha, accuracy
    )
    for a in range(n):
        if values[a] != start[a]:
            _move(gram, residual, b, support[a], np.float64(values[a]))
    return sweeps


@kernel
def _descend_support(gram, residual, r, b, ptr, weights, lam, alpha, accuracy):
    """Sweeps over the support alone, on its own small Gram matrix; returns their number.

    They are in single precision while that is finer than what is asked of them: only where they lead is taken over, and
    what it does to the residual is computed in double precision.
    """
    support = np.flatnonzero(b)
    n = support.shape[0]
    if n == 0:
        return 0
    if accuracy > _SINGLE:
        small = np.empty((n, n), np.float32)
        return _on_support(support, gram, residual, r, b, ptr, weights, lam, alpha, accuracy, small)
    return _on_support(support, gram, residual, r, b, ptr, weights, lam, alpha, accuracy, np.empty((n, n)))


@kernel
def descend(gram, r, variance, ptr, weights, lam, alpha, b, residual, tol, max_sweeps):
    """Minimise in place from ``b`` with ``residual = r - gram @ b``; stops at a gap of ``tol * variance / 2``.

    Returns the gap reached and the sweeps used.
    """
    sweeps = 0
    gap = math.inf
    while sweeps < max_sweeps:
        largest = _sweep(gram, residual, b, ptr, weights, lam, alpha)
        sweeps += 1
        gap = duality_gap(r, residual, b, variance, ptr, weights, lam, alpha)
        if gap <= 0.5 * tol * variance or largest * largest <= 1e-28 * variance:
            break
        sweeps += _descend_support(gram, residual, r, b, ptr, weights, lam, alpha, 1e-2 * largest)
    return gap, sweeps
