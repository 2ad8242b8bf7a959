"""Scores over blocks, and the p-values made of them."""

import numpy as np
import pytest
from scipy import stats

from spacetravlr._core.inference.block_scores import block_sums, block_t, cauchy_combination, p_of_t
from spacetravlr._core.inference.inflation import inflation


def test_scores_over_blocks():
    rng = np.random.default_rng(3)
    values, block = rng.normal(size=(60, 2)), rng.integers(0, 5, 60)
    sums = block_sums(values, block)
    np.testing.assert_allclose(sums, [values[block == b].sum(axis=0) for b in range(5)])
    np.testing.assert_allclose(block_sums(values, block, 8), np.vstack([sums, np.zeros((3, 2))]))
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
