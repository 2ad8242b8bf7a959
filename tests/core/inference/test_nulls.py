"""Exchanges of cells keep what they say."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from spacetravlr._core.inference.nulls import LEAST_SHIFT, draw_shift, shuffle_sources, torus_sources


@pytest.fixture
def tissue():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, size=(3000, 2))
    field = np.sin(xy[:, 0] / 60) + np.cos(xy[:, 1] / 80)
    return xy, rng.integers(0, 3, 3000), field


def neighbour_correlation(xy, values):
    nearest = cKDTree(xy).query(xy, k=2)[1][:, 1]
    return np.corrcoef(values, values[nearest])[0, 1]


def test_a_shift_keeps_types_and_autocorrelation(tissue):
    xy, types, field = tissue
    source = torus_sources(xy, np.array([0.4, 0.3]), types)
    np.testing.assert_array_equal(types[source], types)
    moved = field[source]
    before = neighbour_correlation(xy, field)
    assert neighbour_correlation(xy, moved) > before - 0.1
    assert before > 0.9
    assert abs(np.corrcoef(field, moved)[0, 1]) < 0.5
    # where it came from is where the cell would be
    wanted = (xy + np.array([0.4, 0.3]) * np.ptp(xy, axis=0) - xy.min(axis=0)) % np.ptp(xy, axis=0) + xy.min(axis=0)
    assert np.median(np.linalg.norm(xy[source] - wanted, axis=1)) < 30


def test_slides_do_not_mix(tissue):
    xy, types, _ = tissue
    slides = (np.arange(3000) % 2).astype(int)
    np.testing.assert_array_equal(slides[torus_sources(xy, np.array([0.5, 0.5]), types, slides)], slides)


def test_depth_stays(tissue):
    xy, types, _ = tissue
    depth = np.random.default_rng(1).normal(size=3000)
    source = torus_sources(xy, np.array([0.5, 0.5]), types, extra=1000 * depth[:, None])
    assert np.corrcoef(depth, depth[source])[0, 1] > 0.95


def test_a_shuffle_keeps_types_and_nothing_else(tissue):
    xy, types, field = tissue
    rng = np.random.default_rng(2)
    source = shuffle_sources(types, rng)
    np.testing.assert_array_equal(np.sort(source), np.arange(3000))
    np.testing.assert_array_equal(types[source], types)
    assert abs(neighbour_correlation(xy, field[source])) < 0.1
    depth = rng.normal(size=3000)
    source = shuffle_sources(types, rng, order_by=depth)
    np.testing.assert_array_equal(types[source], types)
    assert np.corrcoef(depth, depth[source])[0, 1] > 0.95


def test_shifts_are_far():
    rng = np.random.default_rng(3)
    shifts = np.array([draw_shift(2, rng) for _ in range(200)])
    assert shifts.min() >= LEAST_SHIFT
    assert shifts.max() <= 1 - LEAST_SHIFT
