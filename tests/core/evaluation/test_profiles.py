"""Measures of agreement, against numbers worked out by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from spacetravlr._core.evaluation.energy import energy_distance
from spacetravlr._core.evaluation.matching import compare_pairs, match, mean_of_others, rank_of_own
from spacetravlr._core.evaluation.profiles import agreement, cosine, pearson, sign_agreement, spearman, top_overlap

NAN = np.nan


def test_closed_forms():
    observed = np.array([2.0, -1.0, 0.0, 1.0, NAN])
    predicted = np.array([1.0, -2.0, 1.0, 0.0, 5.0])
    found = agreement(predicted, observed, np.zeros(5), 2)
    assert found["n_genes"] == 4
    # about their means: (1, -2, 1, 0) and (1.5, -1.5, -.5, .5)
    assert found["pearson_delta"] == pytest.approx((1.5 + 3 - 0.5) / np.sqrt(6 * 5))
    assert found["spearman_delta"] == pytest.approx(stats.spearmanr(predicted[:4], observed[:4])[0])
    assert found["cosine"] == pytest.approx((2 + 2) / 6)
    assert found["mae"] == 1.0
    assert found["rmse"] == 1.0
    # largest observed: 2, then -1 (first of two alike); predicted: -2, then 1 (the first gene)
    assert found["sign_agreement"] == 1.0
    assert found["top_overlap"] == 1.0
    assert found["pearson_delta_perturbed"] == found["pearson_delta"]


def test_the_reference_is_subtracted_from_both():
    rng = np.random.default_rng(0)
    shared, own, noise = rng.normal(size=(3, 500))
    shared_only = agreement(5 * shared + noise, 5 * shared + own, 5 * shared, 20)
    assert shared_only["pearson_delta"] > 0.9
    assert abs(shared_only["pearson_delta_perturbed"]) < 0.15
    assert shared_only["pearson_delta_perturbed"] == pytest.approx(stats.pearsonr(noise, own)[0])


@pytest.mark.parametrize("constant", [np.zeros(4), np.full(4, 0.1)])
def test_what_cannot_be_told_is_nan(constant):
    varying = np.array([1.0, 2.0, -1.0, 0.5])
    for pair in [(constant, varying), (varying, constant)]:
        assert np.isnan(pearson(*pair))
        assert np.isnan(spearman(*pair))
    found = agreement(constant, varying, np.full(4, NAN), 2)
    assert np.isnan(found["pearson_delta_perturbed"])
    assert found["mae"] == pytest.approx(np.abs(constant - varying).mean())
    assert np.isnan(pearson(varying[:2], varying[:2]))
    assert np.isnan(cosine(np.zeros(4), varying))
    nothing = agreement(np.full(4, NAN), varying, varying, 2)
    assert nothing.pop("n_genes") == 0
    assert np.isnan(list(nothing.values())).all()


def test_signs_and_the_largest():
    observed = np.array([3.0, -2.0, 1.0, 0.0, 0.0])
    assert sign_agreement(np.zeros(5), observed, 3) == 0.5
    assert sign_agreement(-observed, observed, 5) == 0.0
    assert sign_agreement(np.array([1.0, 0.0, 1.0, 0, 0]), observed, 2) == 0.75
    assert np.isnan(sign_agreement(observed, np.zeros(5), 3))
    assert top_overlap(np.array([0, 0, 0, 1.0, 2.0]), observed, 3) == 0.0
    # no more are called the largest than have changed
    assert top_overlap(observed, observed, 5) == 1.0
    assert top_overlap(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), observed, 3) == pytest.approx(1 / 3)


def test_chance():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 400, 50))
    signs = [sign_agreement(p, q, 10) for p, q in zip(a, b, strict=True)]
    overlaps = [top_overlap(p, q, 10) for p, q in zip(a, b, strict=True)]
    assert np.mean(signs) == pytest.approx(0.5, abs=0.03)
    assert np.mean(overlaps) == pytest.approx(0.2, abs=0.03)
    found = match(compare_pairs(a, b), np.arange(400))
    assert found["discrimination"].mean() == pytest.approx(401 / 800, abs=0.05)
    assert found["centroid_accuracy"].mean() == pytest.approx(0.5, abs=0.05)
    assert found["difference"].mean() == pytest.approx(0, abs=0.03)
    assert found["rank"].mean() == pytest.approx(200.5, abs=20)


def test_pairs_as_one_by_one():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 12)), rng.normal(size=(4, 12))
    a[0, 2] = b[1, 3] = b[2, :5] = NAN
    pairs = compare_pairs(a, b)
    for p, q in np.ndindex(3, 4):
        good = np.isfinite(a[p]) & np.isfinite(b[q])
        x, y = a[p, good], b[q, good]
        assert pairs.correlation[p, q] == pytest.approx(stats.pearsonr(x, y)[0])
        assert pairs.distance_1[p, q] == pytest.approx(np.abs(x - y).mean())
        assert pairs.distance_2[p, q] == pytest.approx(np.sqrt(((x - y) ** 2).mean()))
    pairs = compare_pairs(np.vstack([a, np.ones(12)]), b)
    assert np.isnan(pairs.correlation[3]).all()


def test_perfect_and_exchanged_predictions():
    truth = np.random.default_rng(3).normal(size=(5, 30))
    own = np.arange(5)
    perfect = match(compare_pairs(truth, truth), own)
    assert (perfect["discrimination"] == 1).all()
    assert (perfect["centroid_accuracy"] == 1).all()
    assert (perfect["rank"] == 1).all()
    exchanged = match(compare_pairs(truth[::-1], truth), own)
    assert exchanged["rank"][2] == 1  # the one in the middle stays
    assert exchanged["discrimination"][[0, 1, 3, 4]].max() < 1
    # without others there is nothing to tell
    alone = match(compare_pairs(truth[:1], truth[:1]), own[:1])
    for name in ("discrimination", "centroid_accuracy", "mismatched", "difference", "rank"):
        assert np.isnan(alone[name]).all()


def test_one_prediction_for_all_is_chance():
    """The mean of all predictions finds each perturbation as often as a guess."""
    truth = np.random.default_rng(4).normal(size=(9, 30))
    same = np.repeat(truth.mean(axis=0, keepdims=True), 9, axis=0)
    found = match(compare_pairs(same, truth), np.arange(9))
    assert found["discrimination"].mean() == pytest.approx(10 / 18)
    assert found["centroid_accuracy"].mean() == pytest.approx(0.5)
    assert found["rank"].mean() == pytest.approx(5)


def test_ranks_count_ties_by_half():
    closeness = np.array([[0.5, 0.5, 0.1], [0.5, NAN, 0.9], [NAN, 0.2, 0.1]])
    rank, n = rank_of_own(closeness, np.array([0, 0, 0]))
    np.testing.assert_array_equal(rank, [1.5, 2.0, NAN])
    np.testing.assert_array_equal(n, [3, 2, 2])


def test_mean_of_others():
    values = np.array([[1.0, NAN, 4.0], [3.0, 2.0, NAN], [5.0, 6.0, NAN]])
    np.testing.assert_array_equal(mean_of_others(values), [[4, 4, NAN], [3, 6, 4], [2, 2, 4]])


def test_energy_distance():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(40, 3)), rng.normal(1.0, size=(30, 3))
    spread = [cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    assert energy_distance(x, y) == pytest.approx(2 * cdist(x, y).mean() - sum(spread))
    same = [energy_distance(*rng.normal(size=(2, 30, 3))) for _ in range(200)]
    assert np.mean(same) == pytest.approx(0, abs=0.02)
    assert np.isnan(energy_distance(x[:1], y))
