"""Pooled least squares against numpy's."""

from __future__ import annotations

import numpy as np

from spacetravlr._core.least_squares import pooled_least_squares, within_types


def test_as_dummy_variables_give_it():
    rng = np.random.default_rng(0)
    cell_type = rng.integers(0, 3, 200)
    x = rng.normal(size=(200, 4)) * [1, 10, 0.1, 1] + cell_type[:, None]
    y = x @ [1.0, -0.2, 3.0, 0.0] + 5 * cell_type + rng.normal(size=200)
    dummies = (cell_type[:, None] == np.arange(3)).astype(float)
    expected = np.linalg.lstsq(np.hstack([dummies, x]), y, rcond=None)[0][3:]
    np.testing.assert_allclose(pooled_least_squares(x, y, cell_type), expected, rtol=1e-8)


def test_regressors_without_information():
    rng = np.random.default_rng(1)
    cell_type = rng.integers(0, 2, 100)
    a = rng.normal(size=100)
    x = np.stack([a, 2 * a, cell_type * 1.0, np.zeros(100)], axis=1)
    slopes = pooled_least_squares(x, 3 * a, cell_type)
    # of regressors that are alike each gets its part, and one that is the type, or nothing, gets none
    np.testing.assert_allclose(slopes, [1.5, 0.75, 0, 0], atol=1e-8)
    assert not pooled_least_squares(x[:, 2:], a, cell_type).any()


def test_within_types():
    values = np.array([[1.0], [3.0], [10.0]])
    np.testing.assert_array_equal(within_types(values, np.array([0, 0, 2])), [[-1], [1], [0]])
