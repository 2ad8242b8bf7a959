"""Errors and tests of the terms of a hierarchy: closed forms, calibration, and what enlarges them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spacetravlr._core.surfaces.group_ard import GroupArd
from spacetravlr._core.surfaces.inference import (
    LEAST_INFLATION,
    MISATTRIBUTED,
    Groups,
    infer_terms,
    weighted_chi2_sf,
)
from spacetravlr._core.surfaces.model import Part

N, K, TYPES = 400, 30, 2


def fitted(y, x, variance=0.05, noise=1.0, n_steps=0):
    """A model of pooled effects alone."""
    model = GroupArd(y, noise)
    model.add([row[None] for row in x], [variance] * len(x), shared=[0] * len(x))
    posterior = model.learn(n_steps) if n_steps else model.posterior()
    return model, posterior, [(k, Part.POOLED) for k in range(len(x))]


def groups(n=N):
    return Groups.of(np.arange(n) % TYPES, TYPES, np.zeros((n, 0)))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0], [1.0, 0.5, 0.1], [0.9, *([0.05] * 20)]])
def test_sums_of_weighted_chi_squares(weights):
    rng = np.random.default_rng(0)
    drawn = (rng.standard_normal((400_000, len(weights))) ** 2) @ np.array(weights)
    for level in (0.7, 0.3, 0.05, 0.005):
        value = np.quantile(drawn, 1 - level)
        assert weighted_chi2_sf(float(value), np.array(weights)) == pytest.approx(level, rel=0.1)


def test_chi_square_in_the_far_tail_and_at_its_mean():
    assert weighted_chi2_sf(60.0, np.ones(2)) == pytest.approx(stats.chi2.sf(60, 2), rel=1e-9)
    # nearly equal weights go through the approximation
    assert weighted_chi2_sf(60.0, np.array([1.0, 1.0 + 1e-6])) == pytest.approx(stats.chi2.sf(60, 2), rel=0.05)
    weights = np.array([1.0, 0.4, 0.2])
    around = [weighted_chi2_sf(float(weights.sum() + d), weights) for d in (-1e-3, 0.0, 1e-3)]
    assert around[0] > around[1] > around[2]
    assert weighted_chi2_sf(0.0, weights) == 1.0


def test_one_term_is_the_test_of_its_least_squares_estimate():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, N))
    y = 0.2 * x[0] + rng.normal(size=N)
    found = infer_terms(*fitted(y, x, variance=0.01), 1, groups())
    slope, error = float(x[0] @ y / (x[0] @ x[0])), 1 / np.sqrt(x[0] @ x[0])
    error *= np.sqrt(LEAST_INFLATION)
    np.testing.assert_allclose(found.p_group[0], 2 * stats.norm.sf(abs(slope) / error))
    np.testing.assert_allclose(found.p[0], found.p_group[0, 0], rtol=1e-6)
    reach = stats.norm.ppf(0.95) * error
    np.testing.assert_allclose([found.low[0, 0], found.high[0, 0]], [slope - reach, slope + reach])
    assert abs(found.estimate[0, 0]) < abs(slope)  # drawn to zero
    assert np.isnan(found.p_varies[0])


def test_p_values_are_uniform_where_nothing_acts_and_intervals_cover():
    rng = np.random.default_rng(2)
    p, covered = [], []
    for _ in range(30):
        shared = rng.normal(size=(3, N))
        x = rng.normal(size=(K, N)) + rng.normal(size=(K, 3)) @ shared
        x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
        b = np.where(np.arange(K) < K // 2, rng.normal(size=K) * 0.3, 0.0)
        model, posterior, blocks = fitted(b @ x + rng.normal(size=N), x, n_steps=8)
        found = infer_terms(model, posterior, blocks, K, groups())
        p += found.p[K // 2 :].tolist()
        covered += ((found.low[:, -1] <= b) & (b <= found.high[:, -1])).tolist()
    # on the safe side, since half of the terms act, and resemble the others
    assert np.mean(np.array(p) < 0.05) < 0.06
    assert 0.3 < np.mean(np.array(p) < 0.5) < 0.55
    assert 0.86 < np.mean(covered) < 0.99


def test_residuals_that_go_together_enlarge_errors():
    rng = np.random.default_rng(3)
    region = np.repeat(np.arange(40), N // 40)
    # noise and regressors that regions share: cells are no independent observations
    x = rng.normal(size=(4, 40))[:, region] + 0.2 * rng.normal(size=(4, N))
    y = rng.normal(size=40)[region] + 0.2 * rng.normal(size=N)
    model, posterior, blocks = fitted(y, x, noise=float(y.var()))
    plain = infer_terms(model, posterior, blocks, 4, groups())
    scores = model.scores(posterior.mean, region, 40)
    found = infer_terms(model, posterior, blocks, 4, groups(), scores)
    assert found.inflation > 3 > plain.inflation == LEAST_INFLATION
    assert (found.se > plain.se).all()
    assert (found.p >= plain.p).all()


def test_scores_add_up_features_times_residuals():
    rng = np.random.default_rng(4)
    bounds = np.array([0, 150, N])
    model = GroupArd(rng.normal(size=N), 1.0, groups=bounds)
    model.add([rng.normal(size=(2, N)), rng.normal(size=(3, N))], [0.1, 0.1], split=[True, False])
    mean, region = rng.normal(size=model.n_features), rng.integers(0, 5, size=N)
    residual = model.y - mean @ model.features
    expected = np.stack([(model.features * residual)[:, region == b].sum(axis=1) for b in range(5)], axis=1)
    np.testing.assert_allclose(model.scores(mean, region, 5), expected, atol=1e-9)


def test_a_look_alike_of_a_strong_regulator_needs_more_evidence():
    rng = np.random.default_rng(5)
    strong = rng.normal(size=N)
    x = np.stack([strong, 0.9 * strong + np.sqrt(0.19) * rng.normal(size=N), rng.normal(size=N)])
    y = 2.0 * strong + rng.normal(size=N)
    found = infer_terms(*fitted(y, x, variance=1.0), 3, groups())
    assert found.model_error[1] == pytest.approx(MISATTRIBUTED * 0.9 * 2.0, rel=0.15)
    assert found.model_error[2] < 0.1 * found.model_error[1]
    assert found.se[1, -1] > 1.5 * found.se[2, -1]


def test_a_target_that_does_not_vary_claims_nothing():
    x = np.random.default_rng(6).normal(size=(3, N))
    model, posterior, blocks = fitted(np.zeros(N), x, noise=1e-12)
    found = infer_terms(model, posterior, blocks, 3, groups())
    assert (found.p == 1).all()
    assert (found.p_group == 1).all()


def test_departures_are_tested_apart_from_the_mean():
    rng = np.random.default_rng(7)
    space = np.stack([np.cos(np.pi * (b + 1) * np.linspace(0, 1, N)) for b in range(4)], axis=1)
    x = rng.normal(size=(2, N))
    y = 0.5 * x[0] + (0.5 * space[:, 0] + 0.3) * x[1] + rng.normal(size=N)
    model = GroupArd(y, 1.0)
    rows = [x[:1], x[1:], (space * x[0][:, None]).T, (space * x[1][:, None]).T]
    model.add(rows, [0.1, 0.1, 0.05, 0.05])
    blocks = [(0, Part.POOLED), (1, Part.POOLED), (0, Part.SPACE), (1, Part.SPACE)]
    found = infer_terms(model, model.posterior(), blocks, 2, Groups.of(np.arange(N) % TYPES, TYPES, space))
    assert found.p_varies[1] < 1e-3 < 0.05 < found.p_varies[0]
    assert (found.p < 1e-3).all()


def test_units_scale_errors_and_leave_tests_alone():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2, N))
    found = infer_terms(*fitted(x[0] + rng.normal(size=N), x), 2, groups())
    scaled = found.rescaled(np.array([2.0, 10.0]))
    np.testing.assert_allclose(scaled.se, found.se * np.array([[2.0], [10.0]]))
    np.testing.assert_allclose(scaled.low, found.low * np.array([[2.0], [10.0]]))
    np.testing.assert_array_equal(scaled.p, found.p)
