"""Transition probabilities against numpy, and arrows that a person can check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.space.neighbours import nearest_neighbours
from spacetravlr._core.transitions import grid_arrows, project, transition_probabilities
from spacetravlr._utils import numba_threads


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 3, (40, 12)), rng.normal(size=(40, 12)), rng.uniform(0, 100, (40, 2))


def twin(expression, change, neighbours, temperature):
    out = np.zeros((len(expression),) * 2)
    for j, row in enumerate(neighbours):
        row = row[row >= 0]
        c = np.array([np.corrcoef(change[j], expression[i] - expression[j])[0, 1] for i in row])
        p = np.exp(c / temperature)
        out[j, row] = p / p.sum()
    return out


def test_probabilities_are_softmax_of_pearson_correlations(cells):
    expression, change, embedding = cells
    neighbours = nearest_neighbours(embedding, 7).indices
    expected = twin(expression, change, neighbours, 0.05)
    plain = transition_probabilities(expression, change, neighbours, subtract=None)
    np.testing.assert_allclose(plain.toarray(), expected, atol=1e-4)
    np.testing.assert_allclose(np.asarray(plain.sum(axis=1)).ravel(), 1, atol=1e-5)
    zero = transition_probabilities(expression, change, neighbours, subtract="zero")
    np.testing.assert_allclose(zero.toarray(), np.where(expected > 0, expected - 1 / 7, 0), atol=1e-4)
    warm = transition_probabilities(expression, change, neighbours, temperature=1.0, subtract=None)
    np.testing.assert_allclose(warm.toarray(), twin(expression, change, neighbours, 1.0), atol=1e-5)


def test_shuffling_subtracts_what_a_permutation_of_the_change_gives(cells):
    expression, change, embedding = cells
    neighbours = nearest_neighbours(embedding, 7).indices
    plain = transition_probabilities(expression, change, neighbours, subtract=None)
    first = transition_probabilities(expression, change, neighbours, rng_seed=1, n_shuffles=1)
    np.testing.assert_allclose(np.asarray(first.sum(axis=1)).ravel(), 0, atol=1e-5)
    subtracted = (plain - first).toarray()
    assert subtracted.min() > -1e-5
    assert np.abs(subtracted - plain.toarray()).max() > 0.1
    again = transition_probabilities(expression, change, neighbours, rng_seed=1, n_shuffles=1)
    other = transition_probabilities(expression, change, neighbours, rng_seed=2, n_shuffles=1)
    np.testing.assert_array_equal(first.toarray(), again.toarray())
    assert np.abs((first - other).toarray()).max() > 0.01
    # a change that is the same in all genes but one has as many shuffles as genes: the kernel must hit one of them
    spike = np.zeros_like(change)
    spike[:, 3] = 1.0
    found = transition_probabilities(expression, spike, neighbours, subtract=None)
    found = (found - transition_probabilities(expression, spike, neighbours, rng_seed=5, n_shuffles=1)).toarray()
    shuffles = [
        twin(expression, np.eye(12)[np.full(len(expression), g)], neighbours, 0.05) for g in range(expression.shape[1])
    ]
    distance = np.abs(np.stack(shuffles) - found).max(axis=2)
    assert (distance.min(axis=0) < 1e-3).all()
    assert len(np.unique(distance.argmin(axis=0))) > 5


def test_the_mean_over_all_shuffles_is_approached(cells):
    """A change of one gene has as many shuffles as genes, so that their mean can be written down."""
    expression, _, embedding = cells
    neighbours = nearest_neighbours(embedding, 7).indices
    spike = np.zeros_like(expression)
    spike[:, 3] = 1.0
    every = [twin(expression, np.eye(12)[np.full(len(expression), g)], neighbours, 0.05) for g in range(12)]
    plain = transition_probabilities(expression, spike, neighbours, subtract=None)
    error = []
    for n_shuffles in (4, 400):
        found = plain - transition_probabilities(expression, spike, neighbours, n_shuffles=n_shuffles)
        error.append(np.sqrt(np.mean((found.toarray() - np.mean(every, axis=0)) ** 2)))
    assert error[1] < 0.2 * error[0]
    assert error[1] < 0.01


def test_the_order_of_cells_does_not_matter(cells):
    expression, change, embedding = cells
    keys, order = np.arange(40) * 7 + 1, np.random.default_rng(3).permutation(40)
    first, second = (
        transition_probabilities(
            expression[index], change[index], nearest_neighbours(embedding[index], 7).indices, cell_keys=keys[index]
        ).toarray()
        for index in (np.arange(40), order)
    )
    np.testing.assert_allclose(second, first[np.ix_(order, order)], atol=1e-6)


def test_results_do_not_depend_on_threads(cells):
    expression, change, embedding = cells
    neighbours = nearest_neighbours(embedding, 9).indices
    results = []
    for n_jobs in (1, 2):
        with numba_threads(n_jobs):
            results.append(transition_probabilities(expression, change, neighbours).toarray())
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)  # single precision, in vectors of any alignment


def test_a_cell_moves_towards_the_neighbour_it_comes_to_resemble():
    # one cell in the middle of a cross; its change is the way to the cell on its right
    embedding = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], float)
    rng = np.random.default_rng(1)
    expression = rng.uniform(0, 1, (5, 30))
    change = np.zeros_like(expression)
    change[0] = 0.3 * (expression[1] - expression[0])
    transitions = transition_probabilities(
        expression, change, nearest_neighbours(embedding, 4).indices, subtract="zero"
    )
    arrows = project(transitions, embedding)
    assert arrows[0, 0] > 0.9
    assert abs(arrows[0, 1]) < 0.1
    # cells that do not change have no preference
    np.testing.assert_allclose(transitions[1:].toarray(), 0, atol=1e-6)
    np.testing.assert_allclose(arrows[1:], 0, atol=1e-6)


def test_arrows_turn_with_the_embedding(cells):
    expression, change, embedding = cells
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    neighbours = nearest_neighbours(embedding, 7).indices
    transitions = transition_probabilities(expression, change, neighbours)
    np.testing.assert_allclose(
        project(transitions, embedding @ turn.T + 5), project(transitions, embedding) @ turn.T, atol=1e-5
    )
    # lengths are without unit, so a change of unit changes nothing
    np.testing.assert_allclose(project(transitions, embedding * 10), project(transitions, embedding), atol=1e-5)


def test_grid_arrows_average_what_is_near():
    embedding = np.array([[0, 0], [0.1, 0], [10, 10]], float)
    arrows = np.array([[1, 0], [0, 1], [-1, -1]], float)
    result = grid_arrows(embedding, arrows, n_grid=5)
    near = np.linalg.norm(result.points, axis=1).argmin()
    far = np.linalg.norm(result.points - 10, axis=1).argmin()
    np.testing.assert_allclose(result.arrows[near], [0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(result.arrows[far], [-1, -1], atol=1e-6)
    assert len(result.points) < 25  # nothing is drawn where no cells are
