"""The Bayesian linear model in blocks, against formulas that work with cells x cells matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from spacetravlr._core.linalg.block_arrow import arrow_factor
from spacetravlr._core.surfaces.group_ard import GroupArd


@pytest.fixture
def problem():
    """60 cells, three blocks of 2, 1 and 4 features, of which the second has no effect."""
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(60, m)) for m in (2, 1, 4)]
    y = blocks[0] @ [1.0, -0.5] + blocks[2] @ [0.3, 0.0, 0.2, -0.4] + rng.normal(scale=0.5, size=60)
    return y, blocks, np.array([0.5, 0.1, 0.2])


def _model(y, blocks, variances, noise=0.25):
    model = GroupArd(y, noise)
    model.add([b.T for b in blocks], variances)
    return model


def _marginal(y, blocks, variances, noise):
    """Log density of ``y``: normal, with the covariance that the prior of the weights gives it."""
    covariance = noise * np.eye(len(y)) + sum(v * b @ b.T for b, v in zip(blocks, variances, strict=True))
    return multivariate_normal.logpdf(y, np.zeros(len(y)), covariance)


def test_posterior_is_that_of_bayesian_linear_regression(problem):
    y, blocks, variances = problem
    posterior = _model(y, blocks, variances).posterior()
    features, prior = np.hstack(blocks), np.repeat(variances, [2, 1, 4])
    # the same posterior through the covariance of y, from the conditional of a joint normal distribution
    gain = np.diag(prior) @ features.T @ np.linalg.inv(features @ np.diag(prior) @ features.T + 0.25 * np.eye(60))
    np.testing.assert_allclose(posterior.mean, gain @ y, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        posterior.covariance, np.diag(prior) - gain @ features @ np.diag(prior), rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("noise", [0.05, 0.25, 2.0])
def test_log_evidence_differs_from_the_log_density_by_a_constant_of_n(problem, noise):
    y, blocks, variances = problem
    constant = 0.5 * len(y) * np.log(2 * np.pi)
    for used in ([0], [0, 2], [0, 1, 2]):
        mine = [blocks[i] for i in used]
        found = _model(y, mine, variances[used], noise).posterior().log_evidence
        assert found - constant == pytest.approx(_marginal(y, mine, variances[used], noise), rel=1e-9)


@pytest.mark.parametrize("removed", [[0], [1], [2], [0, 1], [0, 2]])
def test_bayes_factor_is_the_difference_of_evidence_to_a_refit_without_the_blocks(problem, removed):
    y, blocks, variances = problem
    model = _model(y, blocks, variances)
    posterior = model.posterior()
    rest = [i for i in range(3) if i not in removed]
    without = _model(y, [blocks[i] for i in rest], variances[rest]).posterior()
    factor = model.log_bayes_factors(posterior, [removed])[0]
    assert factor == pytest.approx(posterior.log_evidence - without.log_evidence, rel=1e-8)


def test_bayes_factors_tell_the_block_without_effect(problem):
    y, blocks, variances = problem
    model = _model(y, blocks, variances)
    factors = model.log_bayes_factors(model.posterior(), [[0], [1], [2]])
    assert factors[0] > 10
    assert factors[1] < 1
    assert factors[2] > 5


def test_adding_and_keeping_blocks_is_the_same_as_starting_with_them(problem):
    y, blocks, variances = problem
    model = GroupArd(y, 0.25)
    model.add([blocks[1].T], variances[1:2])
    model.add([blocks[0].T, blocks[2].T], variances[[0, 2]])
    model.add([blocks[1].T], [3.0])
    model.keep(np.array([False, True, True, False]))
    fresh = _model(y, [blocks[0], blocks[2]], variances[[0, 2]])
    assert len(model) == 2
    np.testing.assert_array_equal(model.sizes, [2, 4])
    np.testing.assert_array_equal(model.block(0), [0, 1])
    np.testing.assert_array_equal(model.block(1), [2, 3, 4, 5])
    found, expected = model.posterior(), fresh.posterior()
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9, atol=1e-14)
    assert found.log_evidence == pytest.approx(expected.log_evidence, rel=1e-12)


def test_keeping_all_changes_nothing(problem):
    y, blocks, variances = problem
    model = _model(y, blocks, variances)
    before = model.posterior()
    model.keep(np.ones(3, dtype=bool))
    np.testing.assert_array_equal(model.posterior().mean, before.mean)


def test_learning_raises_the_evidence_to_a_maximum(problem):
    y, blocks, variances = problem
    model = _model(y, blocks, variances, noise=2.0)
    start = model.posterior().log_evidence
    best = model.learn(200).log_evidence
    assert best > start + 5
    learned, noise = model.variances.copy(), model.noise
    assert noise == pytest.approx(0.25, rel=0.5)
    for block in (0, 2):
        for factor in (0.8, 1.25):
            other = learned.copy()
            other[block] *= factor
            assert _model(y, blocks, other, noise).posterior().log_evidence < best
    for factor in (0.9, 1.1):
        assert _model(y, blocks, learned, noise * factor).posterior().log_evidence < best


def test_what_is_learned_is_the_maximum_that_an_optimiser_finds(problem):
    y, blocks, variances = problem
    used = [blocks[0], blocks[2]]
    best = minimize(lambda v: -_marginal(y, used, np.exp(v[:2]), np.exp(v[2])), np.log([0.5, 0.5, 0.5]), tol=1e-10)
    model = _model(y, used, variances[[0, 2]])
    model.learn(500)
    np.testing.assert_allclose([*model.variances, model.noise], np.exp(best.x), rtol=1e-3)


def test_a_block_without_effect_loses_its_variance():
    rng = np.random.default_rng(3)
    useful, useless = rng.normal(size=(300, 3)), rng.normal(size=(300, 5))
    y = useful @ [1.0, -1.0, 0.5] + rng.normal(scale=0.3, size=300)
    model = _model(y, [useful, useless], [1.0, 1.0], noise=1.0)
    model.learn(100)
    assert model.variances[1] < 1e-3 < 0.1 < model.variances[0]
    assert model.noise == pytest.approx(0.09, rel=0.2)


def test_units_of_the_response_scale_the_weights(problem):
    y, blocks, variances = problem
    base, scaled = _model(y, blocks, variances), _model(10 * y, blocks, 100 * variances, noise=25.0)
    np.testing.assert_allclose(scaled.learn(5).mean, 10 * base.learn(5).mean, rtol=1e-9)
    assert scaled.noise == pytest.approx(100 * base.noise)


def test_features_that_are_almost_the_same_in_single_precision():
    """Rounded products of collinear features are not positive definite; with little noise the prior does not help."""
    rng = np.random.default_rng(0)
    n, n_features = 3000, 120
    few = rng.normal(size=(6, n))
    features = (rng.normal(size=(n_features, 6)) @ few + 1e-6 * rng.normal(size=(n_features, n))).astype(np.float32)
    y = few.sum(axis=0)
    model = GroupArd(y, 1e-7, dtype=np.float32)
    model.add([features[i : i + 4] for i in range(0, n_features, 4)], [1e3] * (n_features // 4))
    with pytest.raises(np.linalg.LinAlgError):
        arrow_factor(*model._precision())
    posterior = model.learn(2)
    assert np.isfinite(posterior.log_evidence)
    assert np.isfinite(model.log_bayes_factors(posterior, [[0], [1, 2]])).all()
    assert np.var(model.residual(posterior.mean)) < 1e-3 * np.var(y)
