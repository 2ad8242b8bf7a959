"""Spatial functions: their inner products are a squared-exponential kernel, on each slide alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, spatial_basis


def _tissue(n=250, n_dims=2, seed=0):
    return np.random.default_rng(seed).uniform(0, 1000, (n, n_dims)) * np.array([1.0, 0.7, 0.4])[:n_dims]


def _products(coordinates, share, slides=None, **options):
    phi = spatial_basis(coordinates, share, slides, **options).evaluate(coordinates, slides)
    return phi @ phi.T


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_inner_products_are_the_kernel(share, n_dims):
    coordinates = _tissue(n_dims=n_dims)
    scale = spatial_basis(coordinates, share).length_scales[0]
    kernel = np.exp(-cdist(coordinates, coordinates, "sqeuclidean") / (2 * scale**2))
    assert np.abs(_products(coordinates, share) - kernel).max() < 0.08
    exact = _products(coordinates, share, n_landmarks=250, max_functions=250, energy=1 - 1e-9)
    assert np.abs(exact - kernel).max() < 1e-3


def test_shorter_scales_need_more_functions_up_to_the_limit():
    counts = [spatial_basis(_tissue(), share).n_functions for share in LENGTH_SCALES]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] <= 80
    assert spatial_basis(_tissue(), LENGTH_SCALES[-1], max_functions=20).n_functions == 20


def test_evaluates_where_no_cell_was():
    coordinates = _tissue()
    basis = spatial_basis(coordinates, 0.35)
    new = _tissue(40, seed=5)
    both = basis.evaluate(np.vstack([coordinates, new]))
    np.testing.assert_allclose(both[250:], basis.evaluate(new), rtol=1e-12)
    (scale,) = basis.length_scales
    kernel = np.exp(-cdist(new, coordinates, "sqeuclidean") / (2 * scale**2))
    assert np.abs(basis.evaluate(new) @ both[:250].T - kernel).max() < 0.1


def test_far_from_all_cells_functions_fade():
    basis = spatial_basis(_tissue(), 0.12)
    assert np.abs(basis.evaluate(np.array([[1e5, 1e5]]))).max() < 1e-12


def test_length_scales_are_shares_of_the_longest_direction():
    line = np.linspace(0, 900, 301)
    for coordinates in (np.column_stack([line, 0.2 * line]), np.column_stack([0.1 * line[::-1], line])):
        (scale,) = spatial_basis(coordinates, 0.5).length_scales
        assert scale == pytest.approx(0.5 * np.linalg.norm(np.ptp(coordinates, axis=0)), rel=0.01)


def test_moving_and_scaling_the_tissue_changes_nothing():
    coordinates = _tissue(120)  # every cell is a landmark
    base = _products(coordinates, 0.25)
    np.testing.assert_allclose(_products(coordinates + [5e3, -2e3], 0.25), base, atol=1e-6)
    np.testing.assert_allclose(_products(0.1 * coordinates, 0.25), base, atol=1e-6)


@pytest.mark.parametrize("angle", [0.3, 0.8, np.pi / 2])
def test_turning_the_tissue_changes_nothing(angle):
    coordinates = _tissue(120)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(_products(coordinates @ turn.T, 0.25), _products(coordinates, 0.25), atol=1e-6)


def test_permuting_cells_permutes_rows():
    coordinates = _tissue(100)
    order = np.random.default_rng(1).permutation(100)
    np.testing.assert_allclose(
        _products(coordinates[order], 0.25), _products(coordinates, 0.25)[np.ix_(order, order)], atol=1e-6
    )


def test_slides_have_functions_of_their_own():
    coordinates = np.vstack([_tissue(150), _tissue(100, seed=1)])
    slides = np.repeat([0, 1], [150, 100])
    products = _products(coordinates, 0.35, slides)
    assert np.all(products[:150, 150:] == 0)
    alone = _products(coordinates[:150], 0.35, max_functions=40)
    np.testing.assert_allclose(products[:150, :150], alone, atol=1e-8)
    assert spatial_basis(coordinates, 0.08, slides).n_functions <= 80


def test_cells_at_one_place_do_not_break_it():
    basis = spatial_basis(np.zeros((30, 2)), 0.25)
    values = basis.evaluate(np.zeros((30, 2)))
    assert basis.n_functions == 1
    np.testing.assert_allclose(values, 1.0)
