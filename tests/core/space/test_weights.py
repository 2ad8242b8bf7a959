from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spacetravlr._core.space.cell_list import cell_list
from spacetravlr._core.space.weights import (
    gaussian_kernel_2d,
    gaussian_weights,
    kernel_reach,
    length_scale,
)


def dense_weights(coords, radius, sigma, libraries=None):
    """Slow twin: all pairs."""
    distance = cdist(coords, coords)
    weights = np.where(distance <= radius, np.exp(-(distance**2) / (2 * sigma**2)), 0.0)
    if libraries is not None:
        weights[libraries[:, None] != libraries[None, :]] = 0.0
    return weights


@pytest.fixture(params=[2, 3])
def coords(request):
    rng = np.random.default_rng(request.param)
    return rng.uniform(-300, 500, (250, request.param))


def test_weight_at_the_radius_is_eps():
    sigma = length_scale(200.0, 1e-3)
    assert np.isclose(np.exp(-(200.0**2) / (2 * sigma**2)), 1e-3)
    weights = gaussian_weights(np.array([[0.0, 0.0], [200.0, 0.0], [200.1, 50.0]]), 200.0).toarray()
    np.testing.assert_allclose(weights[0], [1.0, 1e-3, 0.0], rtol=1e-6)


def test_four_cells_by_hand():
    """Cells on a line at 0, 3, 4 and 20; radius 5, sigma 2."""
    coords = np.array([[0.0, 0], [3, 0], [4, 0], [20, 0]])
    weights = gaussian_weights(coords, 5.0, sigma=2.0).toarray()
    a, b, c = np.exp([-9 / 8, -16 / 8, -1 / 8])
    np.testing.assert_allclose(weights, [[1, a, b, 0], [a, 1, c, 0], [b, c, 1, 0], [0, 0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("radius", [1.0, 40.0, 150.0, 2000.0])
def test_equals_the_slow_twin(coords, radius):
    weights = gaussian_weights(coords, radius)
    assert weights.dtype == np.float32
    assert weights.has_sorted_indices
    assert (np.diff(weights.indices) > 0).sum() + len(coords) > weights.nnz - len(coords)
    np.testing.assert_allclose(weights.toarray(), dense_weights(coords, radius, length_scale(radius)), atol=1e-6)
    assert abs(weights - weights.T).max() == 0


def test_rows_are_canonical(coords):
    weights = gaussian_weights(coords, 150.0)
    again = weights.copy()
    again.has_sorted_indices = again.has_canonical_format = False
    again.sum_duplicates()
    np.testing.assert_array_equal(again.indices, weights.indices)
    np.testing.assert_array_equal(again.indptr, weights.indptr)


def test_libraries_are_never_joined(coords):
    libraries = np.arange(len(coords)) % 3
    weights = gaussian_weights(coords, 150.0, libraries=libraries)
    np.testing.assert_allclose(
        weights.toarray(), dense_weights(coords, 150.0, length_scale(150.0), libraries), atol=1e-6
    )
    alone = gaussian_weights(coords[libraries == 1], 150.0)
    np.testing.assert_array_equal(weights[libraries == 1][:, libraries == 1].toarray(), alone.toarray())


def test_autocrine_signal_can_be_switched_off(coords):
    with_own, without = gaussian_weights(coords, 90.0), gaussian_weights(coords, 90.0, autocrine=False)
    np.testing.assert_array_equal(with_own.diagonal(), 1)
    np.testing.assert_array_equal(without.diagonal(), 0)
    assert with_own.nnz - without.nnz == len(coords)
    np.testing.assert_array_equal((with_own - without).toarray(), np.eye(len(coords)))


def test_twins_of_a_cell_keep_their_weight_without_autocrine_signal():
    weights = gaussian_weights(np.zeros((3, 2)), 1.0, autocrine=False)
    np.testing.assert_array_equal(weights.toarray(), 1 - np.eye(3))


def test_untruncated_kernel_of_the_published_code(coords):
    """sigma = radius, no cut."""
    expected = np.exp(-(cdist(coords, coords) ** 2) / (2 * 200.0**2))
    weights = gaussian_weights(coords, 200.0, sigma=200.0, truncate=False)
    np.testing.assert_allclose(weights.toarray(), expected, atol=1e-7)
    assert kernel_reach(200.0, 200.0, truncate=False) > 6 * 200.0


def test_permuting_moving_turning_and_rescaling(coords):
    rng = np.random.default_rng(0)
    expected = gaussian_weights(coords, 120.0).toarray()
    order = rng.permutation(len(coords))
    np.testing.assert_array_equal(gaussian_weights(coords[order], 120.0).toarray(), expected[np.ix_(order, order)])
    turn = np.linalg.qr(rng.normal(size=(coords.shape[1],) * 2))[0]
    np.testing.assert_allclose(gaussian_weights(coords @ turn + 1234.5, 120.0).toarray(), expected, atol=1e-6)
    np.testing.assert_allclose(gaussian_weights(coords * 10, 1200.0).toarray(), expected, atol=1e-6)


def test_flat_tissue_in_three_dimensions_is_the_same(coords):
    flat = coords[:, :2]
    lifted = np.column_stack([flat, np.full(len(flat), 7.0)])
    np.testing.assert_array_equal(gaussian_weights(flat, 80.0).toarray(), gaussian_weights(lifted, 80.0).toarray())


def test_threads_do_not_matter(coords):
    one, two = (gaussian_weights(coords, 120.0, n_jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.indices, two.indices)


def test_neighbours_at_exactly_the_radius_on_a_lattice():
    """Rounding must not lose neighbours that sit on the edges of the bins."""
    x = np.arange(30) * 0.1
    coords = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    radius = 0.1 * (1 + 1e-12)
    assert gaussian_weights(coords, radius).nnz == 900 + 2 * 2 * 30 * 29


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_cells(n):
    assert gaussian_weights(np.zeros((n, 2)), 10.0).shape == (n, n)


def test_a_stray_cell_costs_nothing():
    coords = np.vstack([np.random.default_rng(0).uniform(0, 100, (50, 2)), [[1e9, 1e9]]])
    cells = cell_list(coords, 10.0)
    assert len(cells.start) <= 52
    assert gaussian_weights(coords, 10.0)[50].nnz == 1


def test_absurd_extent_is_an_error():
    with pytest.raises(ValueError, match="microns_per_unit"):
        cell_list(np.array([[0.0, 0, 0], [1e9, 1e9, 1e9]]), 1e-2)


def test_too_many_weights_is_an_error(monkeypatch, coords):
    monkeypatch.setattr("spacetravlr._core.space.weights.MAX_WEIGHTS", 1000)
    with pytest.raises(ValueError, match='pass `method="grid"`'):
        gaussian_weights(coords, 400.0)


def test_expected_pairs_is_about_right():
    coords = np.random.default_rng(1).uniform(0, 1000, (4000, 2))
    expected = cell_list(coords, 50.0).expected_pairs(2)
    assert np.isclose(expected, gaussian_weights(coords, 50.0).nnz, rtol=0.1)


def test_published_kernel_of_one_origin(coords):
    weights = gaussian_kernel_2d(coords[3], coords, 150.0)
    np.testing.assert_allclose(weights, gaussian_weights(coords, 150.0)[3].toarray()[0], atol=1e-6)
    assert weights.dtype == np.float64
    at_edge = gaussian_kernel_2d(np.zeros(2), np.array([[3.0, 4.0]]), 5.0, 0.05)
    np.testing.assert_allclose(at_edge, 0.05)


def test_decay_is_the_exponential_to_float32_precision():
    from spacetravlr._core.space.weights import _decay

    squared = np.concatenate([[0.0], np.geomspace(1e-9, 200.0, 5000)])
    scale, out, power = -0.5, np.empty(len(squared), np.float32), np.empty(len(squared), np.float32)
    _decay(squared, scale, power, out)
    expected = np.exp(scale * squared)
    normal = expected > np.finfo(np.float32).tiny
    np.testing.assert_allclose(out[normal], expected[normal], rtol=3e-7)
    assert (out[~normal] < 2 * np.finfo(np.float32).tiny).all()
    assert out[0] == 1
