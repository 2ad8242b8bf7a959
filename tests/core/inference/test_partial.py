"""Partialling out against least squares, and the statistics made of it."""

import numpy as np
import pytest
from scipy import stats

from spacetravlr._core.inference.inflation import inflation
from spacetravlr._core.inference.partial import (
    block_sums,
    block_t,
    cauchy_combination,
    learned_ridge,
    p_of_t,
    remaining,
)


def fitted(a, y, group, free):
    return learned_ridge(a.T @ a, a.T @ y, float(y @ y), len(y), group, free)


@pytest.fixture
def design():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 9))
    a[:, 7:] += a[:, :2]
    y = a[:, :3].sum(axis=1) + 0.5 * a[:, 8] + rng.normal(size=400)
    return a, y


def test_free_columns_are_partialled_out_by_least_squares(design):
    a, y = design
    tested = np.array([7, 8])
    ridge = fitted(a, y, np.zeros(9, dtype=int), np.ones(9, dtype=bool))
    out = ridge.without(tested)
    x, e = a @ out, y - a @ (ridge.weights - out @ ridge.weights[tested])
    rest = np.delete(a, tested, axis=1)
    for found, column in ((x, a[:, tested]), (e, y)):
        expected = column - rest @ np.linalg.lstsq(rest, column, rcond=None)[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # Frisch and Waugh: the slopes of residuals on residuals are those of the whole regression
    slopes = np.linalg.lstsq(x, e, rcond=None)[0]
    np.testing.assert_allclose(slopes, np.linalg.lstsq(a, y, rcond=None)[0][tested], atol=1e-4)
    np.testing.assert_allclose(remaining(ridge, out, tested, a, x), 1, atol=1e-4)


def test_a_penalty_leaves_the_variance_that_it_says():
    rng = np.random.default_rng(1)
    n, tested = 120, np.array([30])
    a = rng.normal(size=(n, 31))
    a[:, 30] += a[:, :30] @ rng.normal(size=30) * 0.3
    group = np.array([0] * 30 + [1])
    variance, scores = 0.05, []
    for _ in range(300):
        y = a[:, :30] @ rng.normal(size=30) * np.sqrt(variance) + rng.normal(size=n)
        ridge = fitted(a, y, group, np.zeros(31, dtype=bool))
        out = ridge.without(tested)
        x, e = a @ out, y - a @ (ridge.weights - out @ ridge.weights[tested])
        expected = ridge.noise * (x**2).sum(axis=0) * remaining(ridge, out, tested, a, x)
        scores.append(float((x[:, 0] @ e) / np.sqrt(expected[0])))
    assert np.var(scores) == pytest.approx(1, abs=0.25)


def test_variances_are_learned():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(4000, 80))
    group = np.repeat([0, 1], 40)
    weights = np.concatenate([rng.normal(0, 0.3, 40), np.zeros(40)])
    y = a @ weights + rng.normal(0, 0.7, 4000)
    ridge = fitted(a, y, group, np.zeros(80, dtype=bool))
    assert ridge.variance[0] == pytest.approx((weights[:40] ** 2).mean(), rel=0.1)
    assert ridge.variance[1] < 1e-3
    assert float(ridge.noise) == pytest.approx(0.49, rel=0.1)
    penalty = ridge.noise / ridge.variance[group]
    # the learning stops where it hardly changes any more
    np.testing.assert_allclose(ridge.weights, np.linalg.solve(a.T @ a + np.diag(penalty), a.T @ y), atol=1e-3)


def test_scores_over_blocks():
    rng = np.random.default_rng(3)
    values, block = rng.normal(size=(60, 2)), rng.integers(0, 5, 60)
    sums = block_sums(values, block)
    np.testing.assert_allclose(sums, [values[block == b].sum(axis=0) for b in range(5)])
    np.testing.assert_allclose(block_t(sums), values.sum(axis=0) / np.sqrt((sums**2).sum(axis=0)))
    assert block_t(np.zeros((4, 1)))[0] == 0
    np.testing.assert_allclose(p_of_t(np.array([-2.0, 2.0]), 10), 2 * stats.t.sf(2.0, 10))


def test_combination_of_p_values():
    assert cauchy_combination(np.array([0.03])) == pytest.approx(0.03)
    assert cauchy_combination(np.array([0.2, np.nan, 0.2])) == pytest.approx(0.2)
    assert np.isnan(cauchy_combination(np.zeros(0)))
    assert 0 < cauchy_combination(np.array([0.0, 0.5])) < 1e-12
    p = np.random.default_rng(4).uniform(size=(1500, 3))
    p[:, 1] = p[:, 0]  # whatever depends on what
    found = [cauchy_combination(row) for row in p]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_inflation():
    t = np.random.default_rng(5).normal(size=5000)
    assert inflation(2 * t) == pytest.approx(2, rel=0.05)
    assert inflation(0.5 * t) == 1
    assert inflation(np.zeros(0)) == 1
    assert inflation(np.array([3.0])) < 1.1
