from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.space.neighbours import nearest_neighbours


@pytest.mark.parametrize("n_dims", [2, 3, 8])
def test_the_nearest_other_cells_of_the_same_group(n_dims):
    points = np.random.default_rng(0).uniform(0, 100, (40, n_dims))
    groups = np.repeat([0, 1], [37, 3])
    indices, distances = nearest_neighbours(points, 5, groups=groups)
    for j in range(40):
        same = np.flatnonzero((groups == groups[j]) & (np.arange(40) != j))
        distance = np.linalg.norm(points[same] - points[j], axis=1)
        order = np.argsort(distance)[:5]
        np.testing.assert_array_equal(indices[j][indices[j] >= 0], same[order])
        np.testing.assert_allclose(distances[j][: len(order)], distance[order], rtol=1e-6)
    assert (indices[37:, 2:] == -1).all()
    assert np.isinf(distances[37:, 2:]).all()


@pytest.mark.parametrize("n_dims", [2, 8])
def test_cells_at_one_place(n_dims):
    indices, distances = nearest_neighbours(np.zeros((6, n_dims)), 3)
    assert (indices != np.arange(6)[:, None]).all()
    assert all(len(set(row)) == 3 for row in indices)
    assert not distances.any()
    assert (nearest_neighbours(np.zeros((1, n_dims)), 3).indices == -1).all()


@pytest.mark.parametrize("n_neighbors", [2, 4, 5, 9, 30])
@pytest.mark.parametrize("angle, origin", [(0.0, 0.0), (0.3, 1e7)])
def test_of_spots_at_the_same_distance_the_same_are_taken_in_every_order(n_neighbors, angle, origin):
    row, column = np.mgrid[0:12, 0:12]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.c_[column.ravel() + 0.5 * (row.ravel() % 2), row.ravel() * np.sqrt(3) / 2] * 100.0 @ turn + origin
    expected = nearest_neighbours(points, n_neighbors).indices
    order = np.random.default_rng(0).permutation(len(points))
    found = order[nearest_neighbours(points[order], n_neighbors).indices]
    back = np.argsort(order)
    np.testing.assert_array_equal(np.sort(found[back], axis=1), np.sort(expected, axis=1))
