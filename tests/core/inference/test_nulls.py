"""Exchanges of cells keep what they say."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from spacetravlr._core.inference.nulls import (
    LEAST_SHIFT,
    Sources,
    counts_at_depth,
    draw_shift,
    moved_sources,
    shuffle_sources,
    torus_sources,
)


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


def test_moved_counts_come_from_every_cell_once_however_uneven_types_are(tissue):
    xy, types, field = tissue
    rare = xy[:, 0] < 150  # a type at one edge
    types = np.where(rare, 3, types)
    source, following = moved_sources(xy, np.array([0.4, 0.3]), types)
    np.testing.assert_array_equal(np.sort(source), np.arange(3000))
    np.testing.assert_array_equal(np.sort(following), np.arange(3000))
    np.testing.assert_array_equal(types[source], types)
    np.testing.assert_array_equal(types[following], types)
    assert neighbour_correlation(xy, field[source]) > 0.6
    assert abs(np.corrcoef(field, field[source])[0, 1]) < 0.5
    extent = np.ptp(xy[rare], axis=0)
    assert np.median(np.linalg.norm((xy - xy[source])[rare], axis=1)) > 0.2 * extent.max()
    near = np.linalg.norm(xy[following] - xy, axis=1)
    assert np.median(near) < 60
    # of types that are spread evenly, they are where the cell would be
    wanted = (xy + np.array([0.4, 0.3]) * 1000) % 1000
    distance = np.abs(xy[source] - wanted)
    distance = np.minimum(distance, 1000 - distance)[(types == 1) & (xy[:, 0] > 200)]
    assert np.median(np.linalg.norm(distance, axis=1)) < 250


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_any_number_of_cells_in_any_dimension(n, n_dims):
    rng = np.random.default_rng(0)
    xyz, types = rng.uniform(size=(n, n_dims)), rng.integers(0, 2, n)
    source, following = moved_sources(xyz, np.full(n_dims, 0.5), types, slides=np.arange(n) % 2)
    for found in (source, following):
        np.testing.assert_array_equal(np.sort(found), np.arange(n))
        np.testing.assert_array_equal(types[found], types)
        np.testing.assert_array_equal(found % 2, np.arange(n) % 2)


def test_counts_are_poisson_at_the_depth_of_the_cell_that_gets_them():
    rng = np.random.default_rng(4)
    n = 40_000
    depth = np.exp(rng.normal(0, 0.8, n)) * 20
    rate = np.array([0.02, 0.3])
    counts = rng.poisson(depth[:, None] * rate)
    source = rng.permutation(n)
    found = counts_at_depth(counts, Sources(source, np.roll(np.arange(n), -1)), depth, rng)
    expected = depth[:, None] * rate
    pearson = (found - expected) / np.sqrt(expected)
    np.testing.assert_allclose(pearson.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(pearson.var(axis=0), 1, atol=0.05)
    for of in (depth, depth[source]):  # neither depth says more
        assert np.abs([np.corrcoef(pearson[:, g], np.log(of))[0, 1] for g in range(2)]).max() < 0.02
    # of cells of one depth, the counts are those of the source
    same = counts_at_depth(counts, Sources(source, source), np.full(n, 5.0), rng)
    np.testing.assert_array_equal(same, counts[source])


def test_a_shuffle_keeps_types_and_nothing_else(tissue):
    xy, types, field = tissue
    rng = np.random.default_rng(2)
    source = shuffle_sources(types, rng).source
    np.testing.assert_array_equal(np.sort(source), np.arange(3000))
    np.testing.assert_array_equal(types[source], types)
    assert abs(neighbour_correlation(xy, field[source])) < 0.1
    depth = rng.normal(size=3000)
    source, following = shuffle_sources(types, rng, order_by=depth)
    np.testing.assert_array_equal(types[following], types)
    np.testing.assert_array_equal(types[source], types)
    assert np.corrcoef(depth, depth[source])[0, 1] > 0.95


def test_shifts_are_far():
    rng = np.random.default_rng(3)
    shifts = np.array([draw_shift(2, rng) for _ in range(200)])
    assert shifts.min() >= LEAST_SHIFT
    assert shifts.max() <= 1 - LEAST_SHIFT
