"""What is expected of a gene given what was counted: its noise, its slope, and what must not inform it."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.calibration import calibrate
from spacetravlr._core.noise import counting_scale, log1p_moments
from spacetravlr._core.scores import centred_by_type
from spacetravlr._core.surfaces.gp_basis import spatial_basis

N, TYPES, GENES = 3000, 3, 20


@pytest.mark.parametrize("rate", [0.02, 0.5, 3.0, 30.0, 900.0])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_moments_of_log_normalised_counts(rate, scale):
    draws = np.log1p(scale * np.random.default_rng(0).poisson(rate, size=400_000))
    mean, variance = log1p_moments(np.array([[rate]]), np.array([scale]), np.zeros(1))
    assert mean[0, 0] == pytest.approx(draws.mean(), rel=0.02)
    assert variance[0, 0] == pytest.approx(draws.var(), rel=0.02)


def test_variance_is_averaged_over_an_uncertain_mean():
    rng = np.random.default_rng(1)
    rate, dispersion = 4.0, 0.3
    means = rate * rng.lognormal(-0.5 * np.log1p(dispersion), np.sqrt(np.log1p(dispersion)), size=400)
    given = [np.log1p(rng.poisson(m, size=4000)).var() for m in means]
    found = log1p_moments(np.array([[rate]]), np.ones(1), np.array([dispersion]))[1][0, 0]
    assert found == pytest.approx(np.mean(given), rel=0.05)


def test_scale_is_found_again_and_other_values_are_refused():
    rng = np.random.default_rng(2)
    counts, scale = rng.poisson(2.0, size=(50, 8)), rng.uniform(0.2, 5, size=50)
    counts[7] = 0
    found = counting_scale(np.log1p(counts * scale[:, None]).astype(np.float32), counts)
    assert np.isnan(found[7])
    np.testing.assert_allclose(np.delete(found, 7), np.delete(scale, 7), rtol=1e-5)
    with pytest.raises(ValueError, match="not the log1p of the counts"):
        counting_scale(np.log1p(counts * scale[:, None]) + 0.1 * rng.random(counts.shape), counts)


@pytest.fixture(scope="module")
def tissue():
    """Genes that share two programs and have smooth fields, and counts of them."""
    rng = np.random.default_rng(3)
    coordinates = rng.uniform(0, 1000, size=(N, 2))
    cell_type = rng.integers(0, TYPES, size=N)
    functions = spatial_basis(coordinates, 0.2).evaluate(coordinates)
    field = functions[:, :8] @ rng.normal(size=(8, GENES)) * 0.3
    loadings = rng.normal(size=(2, GENES))
    programs = rng.normal(size=(N, 2)) @ (loadings / np.linalg.norm(loadings, axis=0))
    level = rng.uniform(0.8, 1.6, size=(TYPES, GENES))
    own = np.sqrt(0.5) * programs + np.sqrt(0.5) * rng.normal(size=(N, GENES))
    meant = np.maximum(level[cell_type] + field + 0.4 * own, 0.0)
    sizes = rng.lognormal(0, 0.3, size=N)
    counts = rng.poisson(sizes[:, None] * np.expm1(meant))
    measured = np.log1p(counts / sizes[:, None])
    return meant, measured, 1 / sizes, cell_type, functions


def slope_and_correlation(estimate, truth, cell_type):
    a, b = (centred_by_type(v, cell_type, TYPES).astype(float) for v in (estimate, truth))
    product, square = (a * b).sum(axis=0), (a**2).sum(axis=0)
    return (product / square).mean(), (product / np.sqrt(square * (b**2).sum(axis=0))).mean()


def test_what_is_expected_has_slope_one_and_is_closer_to_what_is_meant(tissue):
    meant, measured, scale, cell_type, functions = tissue
    calibration = calibrate(measured, scale, cell_type, TYPES, functions, np.arange(GENES))
    expected = calibration.expected(np.arange(GENES))
    raw, better = (slope_and_correlation(v, meant, cell_type) for v in (measured, expected))
    assert raw[0] < 0.65
    assert better[0] == pytest.approx(1.0, abs=0.06)
    assert better[1] > raw[1] + 0.08
    excess = centred_by_type(measured, cell_type, TYPES).var(axis=0) - centred_by_type(meant, cell_type, TYPES).var(
        axis=0
    )
    np.testing.assert_allclose(calibration.noise.mean(axis=0), excess, rtol=0.25)


def test_units_of_the_logarithm_do_not_matter(tissue):
    _, measured, scale, cell_type, functions = tissue
    natural, binary = (
        calibrate(measured / unit, scale, cell_type, TYPES, functions, np.arange(GENES), unit)
        for unit in (1.0, np.log(2.0))
    )
    np.testing.assert_allclose(
        binary.expected(np.arange(4)) * np.log(2.0), natural.expected(np.arange(4)), rtol=1e-3, atol=1e-4
    )


def test_a_gene_that_is_left_out_informs_no_other(tissue):
    _, measured, scale, cell_type, functions = tissue
    calibration = calibrate(measured, scale, cell_type, TYPES, functions, np.arange(GENES))
    changed = calibration.residual.copy()
    changed[:, 5] += np.random.default_rng(4).normal(size=N)
    object.__setattr__(calibration, "residual", changed)
    with_it = calibration.expected(np.array([0, 1]))
    without = calibration.expected(np.array([0, 1]), without=5)
    object.__setattr__(calibration, "residual", np.where(np.arange(GENES) == 5, 0.0, changed).astype(np.float32))
    np.testing.assert_array_equal(calibration.expected(np.array([0, 1]), without=5), without)
    assert np.abs(with_it - without).max() > 0.01


def test_a_gene_that_only_noise_moves_is_its_mean_and_field():
    rng = np.random.default_rng(5)
    cell_type = rng.integers(0, TYPES, size=N)
    counts = rng.poisson(np.array([1.0, 3.0, 6.0])[cell_type][:, None] * np.ones(4))
    coordinates = rng.uniform(0, 1, size=(N, 2))
    functions = spatial_basis(coordinates, 0.3).evaluate(coordinates)
    calibration = calibrate(np.log1p(counts), np.ones(N), cell_type, TYPES, functions, np.arange(4))
    expected = centred_by_type(calibration.expected(np.arange(4)), cell_type, TYPES)
    assert (expected.var(axis=0) < 0.05 * centred_by_type(np.log1p(counts), cell_type, TYPES).var(axis=0)).all()


def test_depth_makes_no_genes_go_along_with_one_another():
    rng = np.random.default_rng(7)
    cell_type = rng.integers(0, TYPES, size=N)
    sizes = rng.lognormal(0, 1.0, size=N)
    level = rng.uniform(1.0, 4.0, size=(TYPES, 6))
    measured = np.log1p(rng.poisson(sizes[:, None] * level[cell_type]) / sizes[:, None])
    coordinates = rng.uniform(0, 1, size=(N, 2))
    functions = spatial_basis(coordinates, 0.3).evaluate(coordinates)
    calibration = calibrate(measured, 1 / sizes, cell_type, TYPES, functions, np.arange(6))
    off_diagonal = ~np.eye(6, dtype=bool)
    raw = np.corrcoef(centred_by_type(measured, cell_type, TYPES).T)[off_diagonal]
    clean = np.corrcoef(calibration.residual.T)[off_diagonal]
    assert raw.mean() > 0.05
    assert abs(clean.mean()) < 0.01
