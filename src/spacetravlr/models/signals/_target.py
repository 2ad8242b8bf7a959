"""Tests of the signals of one target."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.design import Terms
from spacetravlr._core.inference.block_scores import block_sums, block_t, cauchy_combination, p_of_t
from spacetravlr._core.inference.inflation import inflation
from spacetravlr._core.inference.partial import LeftOut, Ridge, learned_ridge
from spacetravlr.models.signals._columns import response, target_columns
from spacetravlr.models.signals._slopes import held_out_gain, slopes_by_type

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.signals._columns import Columns
    from spacetravlr.models.signals._inputs import SignalInputs


class TargetTests(NamedTuple):
    """What was found of one target; ``products`` are its terms with a signal, in the order of ``terms``."""

    terms: Terms
    """The products."""
    signals: Ints
    """Signals, in order."""
    gain: Floats
    """Share of the target's variance within types that each signal adds in blocks that its coefficient is not from."""
    p: Floats
    """Of each signal."""
    best: Ints
    """Product with the smallest p-value of each signal."""
    effect: Floats
    """Of each product: standard deviations of the target per standard deviation of the product."""
    product_p: Floats
    type_effect: Floats
    """Products x types."""
    type_error: Floats
    """Standard errors of ``type_effect``."""
    all_gain: float
    all_p: float
    inflation: float
    """Standard deviation of the t values of shifted signals, at least one."""


def check_target(inputs: SignalInputs, t: int) -> TargetTests:
    """Test every signal of target ``t``, and all together."""
    fit = inputs.fit
    own = int(fit.targets.gene[t])
    y = response(inputs, own)
    columns = target_columns(inputs, fit.terms.take(np.sort(fit.targets.terms_of(t))), own, y)
    a, products, n_signals = columns.values, columns.products, len(columns.signals)
    gram, cross = (a.T @ a).astype(np.float64), (a.T @ y).astype(np.float64)
    square = float(np.vdot(y, y))
    ridge = learned_ridge(gram, cross, square, fit.n_cells, columns.group, columns.free)
    del gram
    left_out = LeftOut(ridge, columns.sets())
    e = y[:, None] - a @ left_out.of_response().astype(np.float32)
    scale = inflation(_shifted(inputs, columns, left_out, e))

    t_values, effect = np.zeros(len(products)), np.zeros(len(products))
    type_effect, type_error = np.empty((2, len(products), fit.n_types))
    gain, p, best = np.zeros(n_signals), np.ones(n_signals), np.zeros(n_signals, dtype=np.int64)
    folds = inputs.folds()
    signals = inputs.signals[:, columns.signals]
    for rows in columns.chunks():
        of = columns.of[rows]
        x, left = left_out.residuals(a, columns.whole(inputs, signals, rows), of)
        x = x.astype(np.float64)
        xe, xx = x * e[:, of], x**2
        t_values[rows] = block_t(block_sums(xe, inputs.block)) / np.sqrt(left) / scale
        squares = xx.sum(axis=0)
        effect[rows] = np.where(squares > 1e-9, xe.sum(axis=0) / np.maximum(squares, 1e-9), 0.0)
        type_effect[rows], type_error[rows] = slopes_by_type(inputs, xe, xx)
        for s in np.unique(of):
            gain[s] = held_out_gain(folds, e[:, s].astype(np.float64), x[:, of == s]) / square
    product_p = p_of_t(t_values, inputs.n_blocks - 1)
    for s in range(n_signals):
        mine = np.flatnonzero(columns.of == s)
        p[s], best[s] = cauchy_combination(product_p[mine]), mine[np.argmin(product_p[mine])]
    return TargetTests(
        products, columns.signals, gain, p, best, effect, product_p, type_effect, scale * type_error,
        _gain_of_all(inputs, columns, ridge, y) / square, cauchy_combination(p), scale,
    )  # fmt: skip


def _shifted(inputs: SignalInputs, columns: Columns, left_out: LeftOut, e: Floats) -> Floats:
    """T values of the products with signals that were moved over the section."""
    found = [np.zeros(0)]
    for source in inputs.sources:
        moved = inputs.standard(inputs.signals[source][:, columns.signals])
        for rows in columns.chunks():
            of = columns.of[rows]
            x, left = left_out.residuals(columns.values, columns.whole(inputs, moved, rows), of)
            found.append(block_t(block_sums(x.astype(np.float64) * e[:, of], inputs.block)) / np.sqrt(left))
    return np.concatenate(found)


def _gain_of_all(inputs: SignalInputs, columns: Columns, ridge: Ridge, y: Floats) -> float:
    """Reduction of the sum of squares of held-out blocks by all signals together; NaN without any."""
    if not len(columns.signals):
        return np.nan
    every = np.arange(columns.first, columns.values.shape[1])
    out = ridge.without(every)
    both = columns.values @ np.column_stack([ridge.weights - out @ ridge.weights[every], out]).astype(np.float32)
    penalty = ridge.noise / ridge.variance[columns.group[every]]
    return held_out_gain(inputs.folds(), y - both[:, 0], both[:, 1:].astype(np.float64), penalty)
