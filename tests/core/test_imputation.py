from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from spacetravlr._core import imputation
from spacetravlr._core.imputation import diffuse, keep_totals, markov_matrix
from spacetravlr._core.space import neighbours


@pytest.fixture
def embedding():
    return np.random.default_rng(0).normal(size=(120, 5))


def markov_twin(embedding, k, groups):
    """Dense, cell by cell."""
    n = len(embedding)
    graph = np.eye(n)
    distance = cdist(embedding, embedding)
    for j in range(n):
        others = [i for i in np.argsort(distance[j], kind="stable") if i != j and groups[i] == groups[j]][:k]
        width = distance[j, others[(len(others) - 1) // 2]] if others else 1.0
        for i in others:
            graph[j, i] = np.exp(-((distance[j, i] / width) ** 2))
    graph = (graph + graph.T) / 2
    return graph / graph.sum(axis=1, keepdims=True)


def test_markov_equals_the_slow_twin(embedding):
    groups = np.repeat([0, 1, 2, 3], [80, 36, 3, 1])
    found = markov_matrix(embedding, 7, groups=groups)
    np.testing.assert_allclose(found.toarray(), markov_twin(embedding, 7, groups), atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert found[119, 119] == 1  # a type of one cell stays as it is


def test_no_step_leaves_the_group(embedding):
    groups = np.arange(120) % 3
    found = markov_matrix(embedding, 10, groups=groups).tocoo()
    assert (groups[found.row] == groups[found.col]).all()


def test_twins_do_not_break_the_graph():
    embedding = np.repeat(np.random.default_rng(0).normal(size=(4, 3)), 10, axis=0)
    found = markov_matrix(embedding, 5)
    assert np.isfinite(found.data).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    block = found.toarray()[:10, 10:]
    assert block.max() == 0  # twins are closest


def test_order_of_cells_does_not_matter(embedding):
    order = np.random.default_rng(1).permutation(120)
    whole = markov_matrix(embedding, 6).toarray()
    np.testing.assert_allclose(markov_matrix(embedding[order], 6).toarray(), whole[np.ix_(order, order)], atol=1e-6)


def test_large_groups_use_approximate_neighbours(embedding, monkeypatch):
    """The search itself takes a minute to compile: an exact one stands in, with its way of listing a cell first."""

    class Search:
        def __init__(self, points, *, n_neighbors, random_state, n_jobs):
            distance = cdist(points, points)
            order = np.argsort(distance, axis=1)[:, :n_neighbors]
            self.neighbor_graph = order, np.take_along_axis(distance, order, axis=1)
            seeds.append(random_state)

    seeds = []
    exact = markov_matrix(embedding, 6, groups=np.repeat([0, 1], [80, 40]))
    monkeypatch.setattr(neighbours, "_EXACT_UP_TO", 50)
    monkeypatch.setitem(sys.modules, "pynndescent", types.SimpleNamespace(NNDescent=Search))
    approximate = markov_matrix(embedding, 6, groups=np.repeat([0, 1], [80, 40]), rng_seed=3)
    assert seeds == [3]  # only the group above the limit
    np.testing.assert_allclose(approximate.toarray(), exact.toarray(), atol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_diffusion_is_a_power_of_the_matrix(embedding, kind, monkeypatch):
    monkeypatch.setattr(imputation, "_CHUNK_BYTES", 4 * 120 * 4)  # four columns at a time
    values = np.random.default_rng(2).poisson(0.7, (120, 9)).astype(np.float32)
    markov = markov_matrix(embedding, 6)
    found = diffuse(markov, kind(values), 3)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, np.linalg.matrix_power(markov.toarray(), 3) @ values, atol=1e-5)


@pytest.mark.parametrize("log1p", [True, False])
def test_totals_are_kept(log1p):
    values = np.random.default_rng(0).gamma(1.0, 1.0, (20, 8)).astype(np.float32)
    values[4] = 0
    totals = np.linspace(1, 100, 20)
    found = keep_totals(values.copy(), totals, log_factor=1.0 if log1p else None)
    sums = (np.expm1(found) if log1p else found).sum(axis=1)
    np.testing.assert_allclose(np.delete(sums, 4), np.delete(totals, 4), rtol=1e-4)
    np.testing.assert_array_equal(found[4], 0)  # nothing to scale, nothing invented
    if not log1p:
        np.testing.assert_allclose(found[0] / found[0].sum(), values[0] / values[0].sum(), rtol=1e-5)
