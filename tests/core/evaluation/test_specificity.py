"""What is beyond a mean profile, and the null of its signs."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.evaluation.specificity import beyond, share_beyond, sign_flip_p


def test_beyond():
    mean = np.array([1.0, 1.0, 0.0, np.nan])
    values = np.array([3.0, 1.0, 2.0, 7.0])
    np.testing.assert_allclose(beyond(values, mean), [1.0, -1.0, 2.0, np.nan])
    assert share_beyond(values, mean) == pytest.approx(6 / 14)
    assert share_beyond(2 * mean, mean) == pytest.approx(0)
    assert share_beyond(values, np.zeros(4)) == 1
    assert np.isnan(share_beyond(np.zeros(4), mean))


def test_p_is_exact_where_all_signs_can_be_tried():
    a = np.array([1.0, 2.0, 4.0, 0.0, np.nan])
    found = sign_flip_p(a, a, 20_000, np.random.default_rng(0))
    assert found == pytest.approx(1 / 8, abs=0.01)  # of the eight signs of three genes one is as good
    assert sign_flip_p(a, -a, 500, np.random.default_rng(0)) == 1
    assert np.isnan(sign_flip_p(a, np.array([1.0, 0, 0, 5, 5]), 10, np.random.default_rng(0)))


def test_p_is_uniform_where_only_the_support_is_shared():
    """Two screens respond in the same few targets, by as much, with signs of their own: nothing comes again."""
    rng = np.random.default_rng(1)
    p = []
    for _ in range(400):
        support = rng.random(60) < 0.3
        size = rng.gamma(1.0, size=60)
        a, b = (support * size * rng.normal(size=60) for _ in range(2))
        p.append(sign_flip_p(a, b, 200, rng))
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)
