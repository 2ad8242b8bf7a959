"""Partialling out against least squares and against regressions that are fitted again."""

import numpy as np
import pytest

from spacetravlr._core.inference.partial import LeftOut, learned_ridge


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
    left_out = LeftOut(ridge, [tested])
    x, left = left_out.residuals(a, a[:, tested], np.zeros(2, dtype=int))
    e = y - a @ left_out.of_response()[:, 0]
    rest = np.delete(a, tested, axis=1)
    for found, column in ((x, a[:, tested]), (e, y)):
        expected = column - rest @ np.linalg.lstsq(rest, column, rcond=None)[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # Frisch and Waugh: the slopes of residuals on residuals are those of the whole regression
    slopes = np.linalg.lstsq(x, e, rcond=None)[0]
    np.testing.assert_allclose(slopes, np.linalg.lstsq(a, y, rcond=None)[0][tested], atol=1e-4)
    np.testing.assert_allclose(left, 1, atol=1e-4)
    np.testing.assert_allclose(a @ ridge.without(tested), x, atol=1e-8)


def fitted_again(a, penalty, columns, x):
    """Residuals of a regression without some columns."""
    rest = np.setdiff1d(np.arange(a.shape[1]), columns)
    kept = a[:, rest]
    return x - kept @ np.linalg.solve(kept.T @ kept + np.diag(penalty[rest]), kept.T @ x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_leaving_out_many_sets_at_once_is_fitting_again_without_each(dtype):
    rng = np.random.default_rng(5)
    a = rng.normal(size=(150, 60)).astype(dtype)
    a[:, 40:] += 0.8 * a[:, :20]
    a[:, 3] = a[:, 0] + a[:, 1] + 0.1 * a[:, 3]  # hardly more than others have
    y = (a[:, :5].sum(axis=1) + a[:, 45] + rng.normal(size=150)).astype(dtype)
    exact = a.astype(np.float64)
    group, free = np.repeat([0, 1, 2], [5, 35, 20]), np.arange(60) < 5
    ridge = fitted(exact, y.astype(np.float64), group, free)
    sets = [np.array([40, 46, 47]), np.array([41, 48]), np.array([42]), np.array([45, 59])]
    of = np.array([0, 0, 0, 1, 1, 3, 3])
    # columns of the sets, products of them, and columns that are in no regression
    own = exact[:, [40, 46, 47, 41, 48, 45, 59]]
    for x in (own, own + 0.5 * own[:, [1, 2, 0, 4, 3, 6, 5]], rng.normal(size=(150, 7))):
        left_out = LeftOut(ridge, sets)
        found, left = left_out.residuals(a, x.astype(dtype), of)
        e = y[:, None] - a @ left_out.of_response().astype(dtype)
        assert found.dtype == dtype
        for k, s in enumerate(of):
            expected = fitted_again(exact, ridge.penalty, sets[s], x[:, k])
            np.testing.assert_allclose(found[:, k], expected, atol=1e-4 if dtype == np.float32 else 1e-9)
            again = fitted_again(exact, ridge.penalty, sets[s], expected)
            assert left[k] == pytest.approx(expected @ again / (expected @ expected), abs=1e-4)
        for s, columns in enumerate(sets):
            expected = fitted_again(exact, ridge.penalty, columns, y.astype(np.float64))
            np.testing.assert_allclose(e[:, s], expected, atol=1e-4 if dtype == np.float32 else 1e-9)


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
        left_out = LeftOut(ridge, [tested])
        x, left = left_out.residuals(a, a[:, tested], np.array([0]))
        e = y - a @ left_out.of_response()[:, 0]
        expected = ridge.noise * (x**2).sum(axis=0) * left
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
