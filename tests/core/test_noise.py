"""Variance beyond counting noise: closed forms, and what simulated counts of known spread give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from spacetravlr._core.noise import excess_variance


def test_by_hand():
    counts = np.array([[2.0, 8.0], [4.0, 6.0], [1.0, 9.0], [3.0, 7.0]])
    rate = counts[:, 0].mean() / 10 * 10
    square = ((counts[:, 0] - rate) ** 2).sum()
    share, z = excess_variance(counts, np.zeros(4, dtype=int), 1)
    assert share[0] == pytest.approx((square - 4 * rate) / square)
    assert z[0] == pytest.approx((square - 4 * rate) / np.sqrt(2 * 4 * rate**2))


def test_noise_alone_is_no_excess_and_spread_is():
    rng = np.random.default_rng(0)
    n, cell_type = 3000, np.arange(3000) % 3
    depth = rng.lognormal(0, 0.4, n)
    mean = np.array([1.0, 3.0, 0.3])[cell_type] * depth  # types and depths differ: not within a type
    quiet = rng.poisson(mean[:, None], size=(n, 40))
    spread = rng.poisson(mean[:, None] * rng.gamma(4, 1 / 4, size=(n, 40)))
    counts = sparse.csr_matrix(np.hstack([quiet, spread, rng.poisson(60 * depth, n)[:, None]]))
    share, z = excess_variance(counts, cell_type, 3)
    assert abs(z[:40].mean()) < 0.5
    assert 0.7 < z[:40].std() < 1.4
    assert (z[40:80] > 5).all()
    expected = (mean**2 / 4).sum() / (mean**2 / 4 + mean).sum()
    assert share[40:80].mean() == pytest.approx(expected, abs=0.05)


def test_genes_without_counts_are_unknown_and_empty_types_are_passed_over():
    share, z = excess_variance(np.array([[0.0, 5.0, 2.0], [0.0, 4.0, 6.0]]), np.array([0, 0]), 3)
    assert np.isnan(share[0])
    assert np.isnan(z[0])
    assert np.isfinite(share[1])
