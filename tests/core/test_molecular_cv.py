from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from spacetravlr._core.imputation import group_means, markov_matrices, markov_matrix
from spacetravlr._core.molecular_cv import Problem, Setting, candidates, losses, normalised, smooth

TYPES = np.repeat([0, 1], [50, 30])


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(3.0, (80, 12))


@pytest.fixture
def problem(counts):
    return Problem(TYPES, np.full(80, 50.0), 1.0, lambda values: values[:, :5], 0, 1)


def within(values):
    return values - group_means(values, TYPES)


def test_halves_are_scaled_alike(counts, problem):
    counts = counts.copy()
    counts[3] = 0
    logged = normalised(counts, problem.totals, 1.0)
    assert logged.dtype == np.float32
    np.testing.assert_allclose(np.delete(np.expm1(logged).sum(axis=1), 3), 50, rtol=1e-5)
    np.testing.assert_array_equal(logged[3], 0)
    np.testing.assert_allclose(np.exp2(normalised(counts, problem.totals, np.log(2))) - 1, np.expm1(logged), rtol=1e-4)
    np.testing.assert_allclose(normalised(counts, problem.totals, None), np.expm1(logged), rtol=1e-4)


def test_candidates_are_what_each_setting_alone_makes(counts, problem):
    values = normalised(counts, problem.totals, 1.0)
    found = dict(candidates(values, [4, 9], [1, 3], problem, type_mean=True))
    diffusions = [Setting("diffusion", k, t) for k in (4, 9) for t in (1, 3)]
    assert list(found) == [Setting("type_mean"), Setting("none"), *diffusions]
    for setting, result in found.items():
        np.testing.assert_allclose(smooth(values, setting, problem), result, atol=1e-5)
    assert Setting("type_mean") not in dict(candidates(values, [4], [1], problem, type_mean=False))


def test_loss_is_the_formula(counts, problem):
    first, second = (normalised(half, problem.totals, 1.0) for half in (counts, counts[::-1]))
    setting = Setting("diffusion", 6, 2)
    found = losses((first, second), [6], [2], problem, type_mean=True)
    a, b = (smooth(half, setting, problem) for half in (first, second))
    error = [(within(x - y) ** 2).mean() for x, y in ((a, second), (b, first))]
    assert found[setting] == pytest.approx(np.mean(error) - (within(a - b) ** 2).mean() / 4, rel=1e-5)
    noise = (within(first) ** 2).mean() / 2 + (within(second) ** 2).mean() / 2
    assert found[Setting("type_mean")] == pytest.approx(noise, rel=1e-2)


def test_neighbours_are_searched_once_for_all_numbers():
    embedding = np.random.default_rng(0).normal(size=(80, 4))
    for k, found in zip((3, 8, 70), markov_matrices(embedding, (3, 8, 70), groups=TYPES), strict=True):
        np.testing.assert_array_equal(found.toarray(), markov_matrix(embedding, k, groups=TYPES).toarray())


def test_means_of_groups(counts):
    found = group_means(counts, TYPES + 5)
    np.testing.assert_allclose(found[0], counts[:50].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found[79], counts[50:].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(group_means(sparse.csr_matrix(counts), TYPES), found, rtol=1e-6)
