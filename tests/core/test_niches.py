"""Groups of cells, and what tells groups from pieces of a gradient."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from spacetravlr._core.niches import (
    Groups,
    adjusted_rand_index,
    contingency,
    jaccard_of_nearest,
    k_means,
    principal_components,
    separation,
    try_groups,
)


def clouds(n, apart, rng, n_columns=8):
    """Cells in three groups, standardised columns, and the groups."""
    groups = rng.integers(0, 3, n)
    values = apart * rng.normal(size=(3, n_columns))[groups] + rng.normal(size=(n, n_columns))
    return (values - values.mean(axis=0)) / values.std(axis=0), groups


def test_rand_index_is_sklearns():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
        assert adjusted_rand_index(a, b) == pytest.approx(adjusted_rand_score(a, b))
    assert adjusted_rand_index(a, (a + 1) % 4) == 1
    assert adjusted_rand_index(np.zeros(5, int), np.zeros(5, int)) == 1


def test_jaccard_by_hand():
    a, b = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(contingency(a, b), [[2, 1], [0, 3]])
    np.testing.assert_allclose(jaccard_of_nearest(a, b, 3), [2 / 3, 3 / 4, 0])


def test_k_means_is_as_good_as_sklearns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 4))
    ours = k_means(x, 5, rng)
    spread = ((x - ours.centres[ours.labels]) ** 2).sum()
    assert spread < 1.03 * KMeans(5, n_init=10, random_state=0).fit(x).inertia_
    sizes = np.bincount(ours.labels)
    assert (np.diff(sizes) <= 0).all()
    for k in range(5):
        np.testing.assert_allclose(ours.centres[k], x[ours.labels == k].mean(axis=0))
    # cells that are all alike
    assert np.isfinite(k_means(np.ones((10, 2)), 3, rng).centres).all()


def test_components():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6))
    values -= values.mean(axis=0)
    scores = principal_components(values, np.ones(6), 5)
    assert scores.shape == (200, 2)  # there are no more
    np.testing.assert_allclose((scores**2).sum(), (values**2).sum())
    # a weight of two is a column that is there twice
    twice = principal_components(values[:, [0, 0, 1, 2]], np.ones(4), 5)
    weighted = principal_components(values[:, :3], np.array([2.0, 1.0, 1.0]), 5)
    np.testing.assert_allclose(np.abs(twice), np.abs(weighted), atol=1e-8)


@pytest.mark.parametrize(
    ("positions", "low", "high"),
    [
        (np.linspace(-1, 1, 2001), 0.0, 0.05),  # a gradient
        (np.random.default_rng(0).normal(size=2000), 0.0, 0.01),  # one cloud
        (np.cos(np.linspace(0, np.pi, 2001)), 0.1, 0.3),  # half a wave
        (np.r_[np.linspace(-1, -0.8, 500), np.linspace(0.8, 1, 500)], 0.99, 1.0),
    ],
)
def test_separation(positions, low, high):
    x = positions[:, None]
    labels = (positions > 0).astype(int)
    centres = np.array([[positions[labels == k].mean()] for k in (0, 1)])
    assert low <= separation(x, Groups(labels, centres)).min() <= high


def test_planted_groups_come_out_again_and_pieces_of_them_do_not():
    rng = np.random.default_rng(3)
    values, planted = clouds(600, 5.0, rng)
    trials = try_groups(values, np.arange(8) // 2, [2, 3, 4], 10, 8, rng)
    assert adjusted_rand_index(trials[1].groups.labels, planted) > 0.98
    assert trials[1].stability.min() > 0.9
    assert trials[1].separation.min() > 0.8
    assert trials[2].separation.min() < 0.2


def test_noise_has_no_groups():
    rng = np.random.default_rng(4)
    for trial in try_groups(rng.normal(size=(500, 12)), np.arange(12), [2, 3], 10, 8, rng):
        assert trial.stability.min() < 0.7
        assert trial.separation.min() < 0.2


def test_pieces_of_a_gradient_are_stable_and_not_apart():
    """Why stability alone is no evidence of groups."""
    rng = np.random.default_rng(5)
    place = rng.uniform(-1, 1, 800)
    values = np.outer(place, rng.choice([-1.0, 1.0], 10)) + 0.05 * rng.normal(size=(800, 10))
    trial = try_groups(values, np.arange(10), [2], 10, 8, rng)[0]
    assert trial.stability.min() > 0.9
    assert trial.separation.min() < 0.2
