"""Coefficient surfaces: known fields are found, absent modulators are exactly zero, intervals cover the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spacetravlr._core.surfaces.fit import fit_surface, refit_surface
from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, spatial_basis
from spacetravlr._core.surfaces.group_ard import GroupArd
from spacetravlr._core.surfaces.model import CellFunctions, Part
from spacetravlr._core.surfaces.search import Problem, Search, SurfaceOptions

N_TYPES = 3


def _functions(n: int, rng: np.random.Generator, n_niche: int = 2) -> tuple[CellFunctions, np.ndarray]:
    coordinates = rng.uniform(0, 1000, (n, 2))
    niche = rng.normal(size=(n, n_niche)) / np.sqrt(max(n_niche, 1))
    space = tuple(spatial_basis(coordinates, share).evaluate(coordinates) for share in LENGTH_SCALES)
    return CellFunctions(rng.integers(0, N_TYPES, n), niche, space, N_TYPES), coordinates / 1000


def _wave(unit: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * unit[:, 0]) * np.cos(np.pi * unit[:, 1])


class Simulation:
    """Eight modulators: a field, a constant, a type effect, a niche effect, four absent; and an intercept field."""

    def __init__(self, n: int = 400, seed: int = 0, noise: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        self.functions, unit = _functions(n, rng)
        self.x = rng.normal(size=(n, 8))
        types = self.functions.cell_type
        self.truth = np.zeros((n, 9))
        self.truth[:, 0] = 0.8 * _wave(unit)
        self.truth[:, 1] = -0.5
        self.truth[:, 2] = np.array([0.9, 0.1, -0.6])[types]
        self.truth[:, 3] = 0.6 * self.functions.niche[:, 0]
        self.truth[:, 8] = 0.4 * unit[:, 1] + np.array([0.3, 0.0, -0.3])[types]
        self.clean = (self.truth[:, :-1] * self.x).sum(axis=1) + self.truth[:, -1]
        self.y = self.clean + rng.normal(scale=noise, size=n)


@pytest.fixture(scope="module")
def simulation():
    return Simulation()


@pytest.fixture(scope="module")
def fit(simulation):
    return fit_surface(simulation.x, simulation.y, simulation.functions)


def test_recovers_fields_of_every_kind(simulation, fit):
    found = fit.coefficients(simulation.functions)
    assert found.shape == (400, 9)
    for k in (0, 2, 3, 8):
        assert np.corrcoef(found[:, k], simulation.truth[:, k])[0, 1] > 0.9, k
    np.testing.assert_allclose(found[:, 1], -0.5, atol=0.2)
    assert np.sqrt(np.mean((found[:, :4] - simulation.truth[:, :4]) ** 2)) < 0.12
    assert fit.noise == pytest.approx(0.09, rel=0.35)


def test_absent_modulators_are_exactly_zero(simulation, fit):
    assert np.all(fit.coefficients(simulation.functions)[:, 4:8] == 0)
    assert np.all(np.isneginf(fit.evidence[4:8]))
    assert np.all(fit.evidence[:4] > SurfaceOptions().keep_threshold)
    assert {k for k, _ in fit.blocks} == {0, 1, 2, 3, 8}


def test_parts_are_those_of_the_truth(fit):
    parts = {k: {Part(p) for other, p in fit.blocks if other == k} for k in range(4)}
    assert Part.SPACE in parts[0]
    assert Part.POOLED in parts[1]
    assert Part.TYPE in parts[2]
    assert Part.NICHE in parts[3]
    assert all(p != Part.TYPE_SPACE for k, p in fit.blocks if k != 8)


def test_coefficients_explain_cells_that_took_no_part():
    sim = Simulation(n=500, seed=1)
    seen = np.arange(500) < 350
    fit = fit_surface(sim.x[seen], sim.y[seen], sim.functions.take(seen))
    b = fit.coefficients(sim.functions.take(~seen))
    predicted = (b[:, :-1] * sim.x[~seen]).sum(axis=1) + b[:, -1]
    assert 1 - np.mean((predicted - sim.clean[~seen]) ** 2) / sim.clean[~seen].var() > 0.85


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_activates_nothing(seed):
    rng = np.random.default_rng(seed)
    functions, _ = _functions(300, rng)
    fit = fit_surface(rng.normal(size=(300, 15)), rng.normal(size=300), functions)
    assert np.all(np.isneginf(fit.evidence[:-1]))
    assert np.all(fit.coefficients(functions)[:, :-1] == 0)


def test_intervals_cover_the_truth():
    inside, spread = [], []
    for seed in range(6):
        sim = Simulation(n=250, seed=10 + seed)
        fit = fit_surface(sim.x, sim.y, sim.functions)
        error = np.abs(fit.coefficients(sim.functions) - sim.truth)
        sd = fit.standard_deviations(sim.functions)
        active = sorted({k for k, _ in fit.blocks})
        assert np.all(sd[:, active] > 0)
        assert np.all(np.delete(sd, active, axis=1) == 0)
        inside.append((error <= 1.96 * sd)[:, active].mean())
        spread.append(sd[:, 0].mean())
    assert 0.8 < np.mean(inside) < 1.0
    assert np.mean(spread) < 0.4  # and they are not wide for nothing


def _assert_deviations_are_those_of_draws(fit, functions):
    """Against draws of the weights from their posterior."""
    rng = np.random.default_rng(0)
    weights = np.concatenate(fit.weights)
    draws = rng.multivariate_normal(weights, fit.factor.T @ fit.factor, size=400, method="cholesky")
    cuts = np.cumsum([len(w) for w in fit.weights])[:-1]
    few = functions.take(np.arange(20))
    values = [replace(fit, weights=np.split(draw, cuts)).coefficients(few) for draw in draws]
    expected, found = fit.standard_deviations(few), np.std(values, axis=0)
    active = expected.max(axis=0) > 0
    np.testing.assert_allclose(found[:, active] / expected[:, active], 1.0, atol=0.2)
    assert not found[:, ~active].any()


def test_standard_deviations_are_those_of_the_weights(simulation, fit):
    assert np.all(fit.amplitudes == 1)
    _assert_deviations_are_those_of_draws(fit, simulation.functions)


def test_the_deviation_of_a_sum_knows_that_coefficients_go_together(simulation, fit):
    rng = np.random.default_rng(0)
    combination = rng.normal(size=fit.amplitudes.shape[1])
    few = simulation.functions.take(np.arange(20))
    draws = rng.multivariate_normal(np.concatenate(fit.weights), fit.factor.T @ fit.factor, size=400, method="cholesky")
    cuts = np.cumsum([len(w) for w in fit.weights])[:-1]
    values = [replace(fit, weights=np.split(d, cuts)).coefficients(few) @ combination for d in draws]
    expected = fit.deviation_of(combination, few)
    np.testing.assert_allclose(np.std(values, axis=0), expected, atol=0.15 * expected.max())
    alone = np.eye(fit.amplitudes.shape[1])
    found = np.stack([fit.deviation_of(one, few) for one in alone], axis=1)
    np.testing.assert_allclose(found, fit.standard_deviations(few), atol=1e-10)


def _amplitude_problem(seed: int):
    rng = np.random.default_rng(seed)
    functions, unit = _functions(500, rng, n_niche=0)
    x = rng.normal(size=(500, 5))
    amplitude = np.array([2.0, 0.8, 0.2])
    truth = np.zeros((500, 6))
    truth[:, 0] = amplitude[functions.cell_type] * (0.6 + 0.5 * _wave(unit))
    truth[:, 1] = 0.4 * _wave(unit[:, ::-1])
    y = (truth[:, :5] * x[:, :5]).sum(axis=1) + rng.normal(scale=0.3, size=500)
    return x, y, functions, truth, amplitude


def test_amplitudes_of_cell_types_are_found():
    x, y, functions, truth, amplitude = _amplitude_problem(0)
    fit = fit_surface(x, y, functions)
    assert not np.allclose(fit.amplitudes[:, 0], 1.0)
    assert np.corrcoef(fit.coefficients(functions)[:, 0], truth[:, 0])[0, 1] > 0.95
    within = [np.corrcoef(*(b[functions.cell_type == c, 0] for b in (fit.coefficients(functions), truth)))[0, 1]
              for c in range(2)]  # fmt: skip
    assert min(within) > 0.9
    assert np.all(np.diff(fit.amplitudes[:, 0]) < 0)
    assert np.all(fit.amplitudes[:, -1] == 1)
    plain = fit_surface(x, y, functions, SurfaceOptions(amplitudes=False))
    assert np.all(plain.amplitudes == 1)
    assert fit.log_evidence > plain.log_evidence + 1
    assert np.mean((fit.coefficients(functions) - truth) ** 2) < np.mean((plain.coefficients(functions) - truth) ** 2)


def test_standard_deviations_follow_the_amplitudes():
    x, y, functions, _, _ = _amplitude_problem(0)
    fit = fit_surface(x, y, functions)
    assert np.ptp(fit.amplitudes[:, 0]) > 0.5
    _assert_deviations_are_those_of_draws(fit, functions)


@pytest.mark.parametrize("size", [0.02, 0.2])
def test_gain_of_a_pooled_part_is_near_the_true_gain_of_evidence(size):
    """The approximation takes the other parts as fixed; for a regressor that stands alone it is exact."""
    rng = np.random.default_rng(1)
    functions, _ = _functions(300, rng)
    x = np.column_stack([rng.normal(size=(300, 4)), np.ones(300)])
    x[:, :4] -= x[:, :4].mean(axis=0)
    y = size * x[:, 0] + rng.normal(size=300)
    y -= y.mean()
    problem = Problem.of(x[:, :4], y, functions, SurfaceOptions())
    search = Search(problem, np.ones((N_TYPES, 5)), 1)
    search.model.variances[:] = 1e-6
    gain, variance = search.gains(problem.y / search.model.noise)
    base = search.model.posterior().log_evidence
    for k in range(4):
        model = GroupArd(y, search.model.noise)
        model.add([x[:, 4:].T, x[:, k : k + 1].T], [1e-6, variance[k, Part.POOLED]])
        assert gain[k, Part.POOLED] == pytest.approx(model.posterior().log_evidence - base, abs=0.02)


def test_refit_keeps_parts_scale_and_amplitudes(simulation, fit):
    again = Simulation(seed=5)
    refit = refit_surface(fit, again.x, again.y, again.functions, search=False)
    assert refit.blocks == fit.blocks
    assert refit.scale == fit.scale
    np.testing.assert_array_equal(refit.amplitudes, fit.amplitudes)
    found = refit.coefficients(again.functions)
    assert np.corrcoef(found[:, 0], again.truth[:, 0])[0, 1] > 0.85
    assert np.all(found[:, 4:8] == 0)


def test_refit_with_a_search_may_drop_parts(simulation, fit):
    rng = np.random.default_rng(0)
    refit = refit_surface(fit, simulation.x, rng.normal(size=400), simulation.functions, search=True)
    assert np.all(refit.coefficients(simulation.functions)[:, :-1] == 0)
    again = refit_surface(fit, simulation.x, simulation.y, simulation.functions, search=True)
    assert {k for k, _ in again.blocks} == {0, 1, 2, 3, 8}
    assert again.scale == fit.scale


def test_order_of_cells_does_not_matter(simulation, fit):
    order = np.random.default_rng(0).permutation(400)
    shuffled = fit_surface(simulation.x[order], simulation.y[order], simulation.functions.take(order))
    assert set(shuffled.blocks) == set(fit.blocks)
    np.testing.assert_allclose(
        shuffled.coefficients(simulation.functions), fit.coefficients(simulation.functions), atol=1e-5
    )


def test_order_of_modulators_does_not_matter(simulation, fit):
    order = np.array([5, 3, 0, 7, 2, 1, 6, 4])
    shuffled = fit_surface(simulation.x[:, order], simulation.y, simulation.functions)
    np.testing.assert_allclose(
        shuffled.coefficients(simulation.functions)[:, :-1],
        fit.coefficients(simulation.functions)[:, order],
        atol=1e-4,
    )


def test_no_modulators_one_type_one_scale():
    rng = np.random.default_rng(0)
    functions, unit = _functions(200, rng, n_niche=0)
    alone = CellFunctions(np.zeros(200, dtype=int), functions.niche, functions.space[2:3], 1)
    y = _wave(unit) + rng.normal(scale=0.2, size=200)
    fit = fit_surface(np.empty((200, 0)), y, alone)
    assert np.corrcoef(fit.coefficients(alone)[:, 0], _wave(unit))[0, 1] > 0.9


def test_a_type_without_training_cells_gets_what_is_shared():
    sim = Simulation(seed=2)
    seen = sim.functions.cell_type != 2
    fit = fit_surface(sim.x[seen], sim.y[seen], sim.functions.take(seen))
    found = fit.coefficients(sim.functions)
    assert np.isfinite(found).all()
    assert np.corrcoef(found[~seen, 0], sim.truth[~seen, 0])[0, 1] > 0.85


def test_a_constant_response_is_no_error():
    sim = Simulation(n=100)
    fit = fit_surface(sim.x, np.zeros(100), sim.functions)
    np.testing.assert_allclose(fit.coefficients(sim.functions), 0, atol=1e-6)


def test_features_stay_within_their_limit(simulation):
    functions = simulation.functions
    one_scale = CellFunctions(functions.cell_type, functions.niche, functions.space[:1], N_TYPES)
    sizes = [
        sum(len(w) for w in fit_surface(simulation.x, simulation.y, one_scale, SurfaceOptions(max_features=m)).weights)
        for m in (20, 500)
    ]
    assert sizes[0] <= 20 < sizes[1]


@pytest.fixture
def search(simulation):
    """A search that has begun: the overall mean alone."""
    problem = Problem.of(simulation.x, simulation.y, simulation.functions, SurfaceOptions())
    return Search(problem, np.ones((N_TYPES, 9)), 1)


def test_parts_that_have_lost_their_support_leave(simulation):
    """A surface of the intercept in each type where the truth has none; no threshold for modulators ends it."""
    y = simulation.y - simulation.truth[:, 8]
    problem = Problem.of(simulation.x, y, simulation.functions, SurfaceOptions())
    search = Search(problem, np.ones((N_TYPES, 9)), 1)
    search._add([(8, Part.TYPE_SPACE)], [0.3])
    fit = search.run()
    assert (8, Part.TYPE_SPACE) not in fit.blocks
    assert {(0, Part.SPACE), (8, Part.POOLED)} < set(fit.blocks)


@pytest.mark.parametrize(("times", "returns"), [(0, True), (1, True), (2, False)])
def test_a_part_that_was_dropped_twice_does_not_return(search, times, returns):
    search.dropped = {(0, part): times for part in Part}
    posterior = search.model.learn(2)
    assert search._try_best(search.model.residual(posterior.mean) / search.model.noise, 0.0)
    assert ({k for k, _ in search.blocks} >= {0}) == returns
    assert {k for k, _ in search.blocks} > {8}


@pytest.mark.parametrize("min_share", [0.0, 0.02])
def test_a_modulator_has_its_share_of_the_evidence(min_share):
    """Cells that repeat one another, as after imputation, lend evidence to every modulator."""
    rng = np.random.default_rng(0)
    functions, _ = _functions(300, rng)
    programs = rng.normal(size=(300, 5))
    x = programs @ rng.normal(size=(5, 20)) + 0.3 * rng.normal(size=(300, 20))
    y = programs @ rng.normal(size=5) + 0.02 * rng.normal(size=300)
    x, y = x / x.std(axis=0), (y - y.mean()) / y.std()
    fit = fit_surface(x, y, functions, SurfaceOptions(min_share=min_share, amplitudes=False))
    needed = 0.02 * (fit.log_evidence - Problem.of(x, y, functions, SurfaceOptions()).null_evidence)
    found = fit.evidence[:-1][np.isfinite(fit.evidence[:-1])]
    assert len(found) > 3
    assert needed > 2 * SurfaceOptions().keep_threshold
    assert (found.min() > 0.99 * needed) == (min_share > 0)
