"""Tests of the signals of one target."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg

from spacetravlr._core.design import Kind, Terms
from spacetravlr._core.inference.inflation import inflation
from spacetravlr._core.inference.partial import (
    Ridge,
    block_sums,
    block_t,
    cauchy_combination,
    learned_ridge,
    p_of_t,
    remaining,
)
from spacetravlr.models.signals._inputs import unit_variance

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.signals._inputs import SignalInputs

_MOST_VARYING = 480  # columns of effects that vary; those of the regulators that go along with the target most
_FEWEST = 50  # cells of a type that it has an estimate of its own from


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


class _Columns(NamedTuple):
    values: Floats
    """Cells x columns, float32: the rest of the regression, then each signal alone, then the products."""
    group: Ints
    free: Bools
    signals: Ints
    """Signals, in order."""
    products: Terms
    local: Floats
    """What each product multiplies its signal with, of variance one, cells x products."""
    level: Floats
    """Mean of what each product multiplies its signal with, in units of its standard deviation."""

    @property
    def first(self) -> int:
        """First column that holds a signal."""
        return self.values.shape[1] - len(self.signals) - len(self.products)

    def of_signal(self, s: int) -> tuple[Ints, Ints]:
        """Columns of signal ``s``, itself first, and its products."""
        rows = np.flatnonzero(self.products.signal == self.signals[s])
        return np.concatenate([[self.first + s], self.first + len(self.signals) + rows]), rows

    def direction(self, rows: Ints, spread: Floats) -> Floats:
        """Products of a signal with regulators in their whole size, from the columns of the signal.

        A signal times a regulator is the signal times the regulator's mean and the signal times what is left.
        """
        return np.vstack([self.level[rows], np.diag(spread)])


def check_target(inputs: SignalInputs, t: int) -> TargetTests:
    """Test every signal of target ``t``, and all together."""
    fit = inputs.fit
    own = int(fit.targets.gene[t])
    terms = fit.terms.take(np.sort(fit.targets.terms_of(t)))
    y = _response(inputs, own)
    columns = _columns(inputs, terms, own, y)
    products, signals, a = columns.products, columns.signals, columns.values
    gram = (a.T @ a).astype(np.float64)
    cross = (a.T @ y).astype(np.float64)
    square = float(np.vdot(y, y))
    ridge = learned_ridge(gram, cross, square, fit.n_cells, columns.group, columns.free)
    spread = _signal_columns(inputs, columns, inputs.signals)[1]
    scale = inflation(np.concatenate([np.zeros(0), *_shifted(inputs, columns, ridge, y)]))

    t_values, effect = np.zeros(len(products)), np.zeros(len(products))
    type_effect = np.full((len(products), fit.n_types), np.nan)
    type_error = type_effect.copy()
    gain, p, best = np.zeros(len(signals)), np.ones(len(signals)), np.zeros(len(signals), dtype=np.int64)
    for s in range(len(signals)):
        mine, rows = columns.of_signal(s)
        direction = columns.direction(rows, spread[rows])
        size = np.sqrt(
            np.maximum((direction * (gram[np.ix_(mine, mine)] @ direction)).sum(axis=0) / fit.n_cells, 1e-12)
        )
        out = ridge.without(mine)
        both = a @ np.column_stack([ridge.weights - out @ ridge.weights[mine], out @ direction / size]).astype(
            np.float32
        )
        e, x = y.astype(np.float64) - both[:, 0], both[:, 1:].astype(np.float64)
        left = remaining(ridge, out, mine, a, x)
        t_values[rows] = block_t(block_sums(x * e[:, None], inputs.block)) / np.sqrt(left) / scale
        squares = (x**2).sum(axis=0)
        effect[rows] = np.where(squares > 1e-9, (x * e[:, None]).sum(axis=0) / np.maximum(squares, 1e-9), 0.0)
        type_effect[rows], type_error[rows] = _by_type(inputs, e, x, scale)
        gain[s] = _held_out_gain(inputs, e, x, np.zeros(x.shape[1])) / square
        of_products = p_of_t(t_values[rows], inputs.n_blocks - 1)
        p[s], best[s] = cauchy_combination(of_products), rows[np.argmin(of_products)]
    all_gain = np.nan
    if len(signals):
        every = np.arange(columns.first, a.shape[1])
        out = ridge.without(every)
        both = a @ np.column_stack([ridge.weights - out @ ridge.weights[every], out]).astype(np.float32)
        penalty = ridge.noise / ridge.variance[columns.group[every]]
        all_gain = _held_out_gain(inputs, y - both[:, 0], both[:, 1:].astype(np.float64), penalty) / square
    return TargetTests(
        products, signals, gain, p, best, effect, p_of_t(t_values, inputs.n_blocks - 1), type_effect, type_error,
        all_gain, cauchy_combination(p), scale,
    )  # fmt: skip


def _response(inputs: SignalInputs, gene: int) -> Floats:
    fit = inputs.fit
    y = fit.expression[:, [gene]].astype(np.float64)
    if fit.calibration is not None:  # what the depth of a cell does to its measured value
        y = y - fit.calibration.offset[:, [gene]]
    return np.asarray(inputs.standard(y)[:, 0])


def _columns(inputs: SignalInputs, terms: Terms, own: int, y: Floats) -> _Columns:
    """All that may act beside signals, then the signals."""
    fit = inputs.fit
    genes = np.unique(terms.gene)
    calibration = fit.calibration
    if calibration is not None and calibration.factors[own].any():
        expected = calibration.expected(genes, without=own)
    else:
        expected = fit.expected_regulators[:, np.searchsorted(fit.regulators, genes)]
    deviations, spread = inputs.deviations(expected)
    level = expected.mean(axis=0, dtype=np.float64) / np.maximum(spread, 1e-9)
    is_tf = np.isin(genes, terms.gene[np.isin(terms.kind, [Kind.TF, Kind.TFL])])
    of_type = np.eye(fit.n_types, dtype=np.float32)[fit.cell_type][:, 1:]
    most = max(1, _MOST_VARYING // (inputs.varying.shape[1] + of_type.shape[1]))
    varies = np.zeros(len(genes), dtype=bool)
    varies[np.argsort(-np.abs(deviations.T @ y), kind="stable")[:most]] = True
    groups = (deviations[:, varies & is_tf], deviations[:, varies & ~is_tf])
    products = terms.take(np.flatnonzero(terms.signal >= 0))
    senders = np.unique(products.signal)
    parts: list[tuple[Floats, bool]] = [(inputs.standard(expected), True), (inputs.own[:, senders], False)]
    parts += [(functions, False) for functions in inputs.smooth]
    parts += [(inputs.composition, False)]
    n_types = fit.n_types
    for group in groups:
        for functions in (inputs.varying[:, :-n_types], inputs.varying[:, -n_types:], of_type):
            parts.append((_times(group, functions), False))
    position = np.searchsorted(genes, products.gene)
    parts.append((inputs.signals[:, senders], False))
    local = deviations[:, position]
    parts.append((inputs.standard(inputs.signals[:, products.signal] * local), False))
    widths = [values.shape[1] for values, _ in parts]
    filled = [i for i, width in enumerate(widths) if width]
    return _Columns(
        values=np.hstack([parts[i][0] for i in filled]).astype(np.float32),
        group=np.repeat(np.arange(len(filled)), [widths[i] for i in filled]),
        free=np.repeat([parts[i][1] for i in filled], [widths[i] for i in filled]),
        signals=senders,
        products=products,
        local=local,
        level=level[position],
    )


def _times(values: Floats, functions: Floats) -> Floats:
    """Each column of one with each of the other, cells x (columns x functions)."""
    return np.asarray((values[:, :, None] * functions[:, None, :]).reshape(len(values), -1))


def _signal_columns(inputs: SignalInputs, columns: _Columns, signals: Floats) -> tuple[Floats, Floats]:
    """Signals by themselves and their products, cells x columns, and the standard deviation of each product."""
    products = inputs.within(signals[:, columns.products.signal] * columns.local)
    spread = np.sqrt((products.astype(np.float64) ** 2).mean(axis=0))
    return np.hstack([signals[:, columns.signals], unit_variance(products)]), spread


def _shifted(inputs: SignalInputs, columns: _Columns, ridge: Ridge, y: Floats) -> list[Floats]:
    """T values of the products with signals that were moved over the section."""
    found: list[Floats] = []
    a = columns.values
    for source in inputs.sources:
        moved, spread = _signal_columns(inputs, columns, inputs.standard(inputs.signals[source]))
        weights = ridge.inverse @ (a.T @ moved).astype(np.float64)
        for s in range(len(columns.signals)):
            mine, rows = columns.of_signal(s)
            direction = columns.direction(rows, spread[rows])
            there = mine - columns.first
            out = ridge.without(mine)
            without = np.column_stack([ridge.weights, weights[:, there] @ direction])
            both = a @ (without - out @ without[mine]).astype(np.float32)
            x = moved[:, there] @ direction - both[:, 1:]
            left = remaining(ridge, out, mine, a, x)
            found.append(block_t(block_sums(x * (y - both[:, 0])[:, None], inputs.block)) / np.sqrt(left))
    return found


def _held_out_gain(inputs: SignalInputs, e: Floats, x: Floats, penalty: Floats) -> float:
    """What coefficients of other folds take off the sum of squares of each fold, added up."""
    gain = 0.0
    folds = np.unique(inputs.fit.fold)
    products = {f: (x[rows].T @ x[rows], x[rows].T @ e[rows]) for f in folds for rows in [inputs.fit.fold == f]}
    grams, crosses = (sum(part[i] for part in products.values()) for i in (0, 1))
    small = 1e-6 * np.maximum(np.diag(grams), 1e-12)
    for gram, cross in products.values():
        weights = linalg.solve(grams - gram + np.diag(penalty + small), crosses - cross, assume_a="pos")
        gain += float(2 * weights @ cross - weights @ gram @ weights)
    return gain


def _by_type(inputs: SignalInputs, e: Floats, x: Floats, scale: float) -> tuple[Floats, Floats]:
    """Slope of each product in each type and its standard error from blocks, products x types; NaN where few cells."""
    fit = inputs.fit
    slopes = np.full((x.shape[1], fit.n_types), np.nan)
    errors = slopes.copy()
    for c in range(fit.n_types):
        rows = np.flatnonzero(fit.cell_type == c)
        squares = (x[rows] ** 2).sum(axis=0)
        if len(rows) < _FEWEST or (squares <= 1e-9).any():
            continue
        slopes[:, c] = (x[rows] * e[rows, None]).sum(axis=0) / squares
        left = e[rows, None] - x[rows] * slopes[:, c]
        sums = block_sums(x[rows] * left, inputs.block[rows])
        errors[:, c] = scale * np.sqrt((sums**2).sum(axis=0)) / squares
    return slopes, errors
