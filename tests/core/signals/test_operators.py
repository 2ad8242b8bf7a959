from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.signals import operators as module
from spacetravlr._core.signals.grid import MAX_CLIFF, GridKernel, grid_supports
from spacetravlr._core.signals.operators import GridOperator, LigandField, SparseOperator, choose_method, make_operator
from spacetravlr._core.space.weights import gaussian_weights

# What the docs promise: root-mean-square difference of the engines, relative to the root mean square of the signal.
GRID_ERROR = 1e-3


def rms_error(found, expected):
    return np.sqrt(((found - expected) ** 2).mean(axis=0) / (expected**2).mean(axis=0)).max()


@pytest.fixture(scope="module", params=[2, 3])
def tissue(request):
    """Coordinates, values of 11 ligands (several chunks of the grid), radius; turned so that nothing is aligned."""
    rng = np.random.default_rng(request.param)
    n, side, radius = (1500, 900.0, 200.0) if request.param == 2 else (1500, 260.0, 90.0)
    turn = np.linalg.qr(rng.normal(size=(request.param,) * 2))[0]
    coords = rng.uniform(0, side, (n, request.param)) @ turn
    return coords, rng.gamma(0.3, 1.0, (n, 11)).astype(np.float32), radius


def test_two_cells_by_hand():
    coords = np.array([[0.0, 0.0], [5.0, 0.0]])
    w = np.exp(-25 / 8)
    operator = make_operator(coords, 10.0, sigma=2.0, method="sparse")
    np.testing.assert_allclose(operator.apply(np.array([[1.0, 0], [0, 2]])), [[1, 2 * w], [w, 2]], rtol=1e-6)
    mean = make_operator(coords, 10.0, sigma=2.0, method="sparse", normalize="mean")
    np.testing.assert_allclose(mean.apply(np.array([[1.0, 0], [0, 2]])), [[0.5, w], [w / 2, 1]], rtol=1e-6)
    row = make_operator(coords, 10.0, sigma=2.0, method="sparse", normalize="row", autocrine=False)
    np.testing.assert_allclose(row.apply(np.array([[1.0, 0], [0, 2]])), [[0, 2], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("normalize", ["sum", "mean", "row"])
def test_sparse_equals_the_slow_twin(tissue, normalize):
    coords, values, radius = tissue
    libraries = (coords[:, 0] > coords[:, 0].mean()).astype(int)
    weights = gaussian_weights(coords, radius, libraries=libraries)
    dense = weights.toarray().astype(np.float64)
    expected = dense @ values
    if normalize == "mean":
        expected /= np.bincount(libraries)[libraries][:, None]
    if normalize == "row":
        expected /= dense.sum(axis=1, keepdims=True)
    operator = SparseOperator(weights, normalize=normalize, libraries=libraries)
    found = operator.apply(values)
    assert found.dtype == np.float32
    assert operator.n_cells == len(coords)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mean_over_all_cells_without_libraries(tissue):
    coords, values, radius = tissue
    weights = gaussian_weights(coords, radius)
    np.testing.assert_allclose(
        SparseOperator(weights, normalize="mean").apply(values), weights @ values / len(coords), rtol=1e-5
    )


@pytest.mark.parametrize("options", [{}, {"autocrine": False}, {"truncate": False}, {"normalize": "row"}])
def test_grid_agrees_with_sparse(tissue, options):
    coords, values, radius = tissue
    sparse_engine = make_operator(coords, radius, method="sparse", **options)
    grid_engine = make_operator(coords, radius, method="grid", **options)
    assert isinstance(grid_engine, GridOperator)
    assert rms_error(grid_engine.apply(values), sparse_engine.apply(values)) < GRID_ERROR


@pytest.mark.parametrize("side", [1000, 3000, 6000])
@pytest.mark.parametrize("normalize", ["sum", "row"])
def test_grid_agrees_in_thin_tissue_without_autocrine_signal(side, normalize):
    """From hundreds of neighbours per cell to none: what the grid leaves of a cell's own signal must not show."""
    rng = np.random.default_rng(side)
    coords, values = rng.uniform(0, side, (600, 2)), rng.gamma(0.3, 1.0, (600, 4)).astype(np.float32)
    libraries = np.arange(600) % 2
    exact, grid = (
        make_operator(coords, 200.0, autocrine=False, normalize=normalize, libraries=libraries, method=method).apply(
            values
        )
        for method in ("sparse", "grid")
    )
    assert rms_error(grid, exact) < GRID_ERROR


def test_grid_reproduces_the_weights_of_a_single_sender(tissue):
    """Harder than sums over many cells, where errors cancel."""
    coords, values, radius = tissue
    one = np.zeros((len(coords), 3), dtype=np.float32)
    one[[7, 20, 300], [0, 1, 2]] = 1.0
    expected = gaussian_weights(coords, radius)[:, [7, 20, 300]].toarray()
    found = GridOperator(coords, radius).apply(one)
    assert np.abs(found - expected).max() < 2e-3
    assert rms_error(found, expected) < 2e-3


def test_grid_keeps_slides_apart(tissue):
    """Slides on top of each other."""
    coords, values, radius = tissue
    libraries = np.arange(len(coords)) % 2
    together = GridOperator(coords, radius, libraries=libraries, normalize="mean").apply(values)
    for code in (0, 1):
        mine = libraries == code
        alone = GridOperator(coords[mine], radius, normalize="mean").apply(values[mine])
        np.testing.assert_array_equal(together[mine], alone)


def test_grid_does_not_wrap_around():
    """A sender at one end of a strip is not heard at the other."""
    coords = np.column_stack([np.linspace(0, 3000, 400), np.zeros(400)])
    values = np.zeros((400, 1), dtype=np.float32)
    values[0] = 1
    received = GridOperator(coords, 200.0).apply(values)[:, 0]
    assert np.abs(received[coords[:, 0] > 202]).max() < 1e-3  # the cliff at the radius is not perfectly sharp
    assert np.abs(received[coords[:, 0] > 500]).max() < 1e-5


@pytest.mark.parametrize("method", ["sparse", "grid"])
def test_columns_are_independent_and_linear(tissue, method):
    """So that a change in few ligands can be received on its own."""
    coords, values, radius = tissue
    operator = make_operator(coords, radius, method=method)
    full = operator.apply(values)
    np.testing.assert_allclose(operator.apply(values[:, [4]])[:, 0], full[:, 4], rtol=1e-5, atol=1e-6 * full.max())
    np.testing.assert_allclose(
        operator.apply(values[:, 2:5] - 3 * values[:, 5:8]),
        full[:, 2:5] - 3 * full[:, 5:8],
        atol=1e-5 * full.max(),
    )
    assert operator.apply(values[:, :0]).shape == (len(coords), 0)


@pytest.mark.parametrize("method", ["sparse", "grid"])
def test_threads_do_not_matter(tissue, method):
    coords, values, radius = tissue
    one, two = (make_operator(coords, radius, method=method, n_jobs=n).apply(values) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", ["sparse", "grid"])
def test_order_position_orientation_and_units_do_not_matter(tissue, method):
    coords, values, radius = tissue
    rng = np.random.default_rng(0)
    expected = make_operator(coords, radius, method="sparse").apply(values)
    order = rng.permutation(len(coords))
    turn = np.linalg.qr(rng.normal(size=(coords.shape[1],) * 2))[0]
    for moved, r in ((coords @ turn - 77.7, radius), (coords * 0.1, radius * 0.1)):
        found = make_operator(moved[order], r, method=method).apply(values[order])
        assert rms_error(found, expected[order]) < (GRID_ERROR if method == "grid" else 1e-6)


def test_values_of_other_cells_are_an_error(tissue):
    coords, values, radius = tissue
    for operator in (make_operator(coords, radius, method=m) for m in ("sparse", "grid")):
        with pytest.raises(ValueError, match="Expected `values` to be an array of"):
            operator.apply(values[:-1])


def test_grid_refuses_a_kernel_with_a_cliff():
    coords = np.random.default_rng(0).uniform(0, 1000, (50, 2))
    assert not grid_supports(200.0, 200.0)
    assert grid_supports(200.0, 200.0, truncate=False)
    assert MAX_CLIFF < 0.05
    with pytest.raises(ValueError, match="weight at the radius"):
        GridKernel(coords, 200.0, sigma=200.0)


def test_grid_refuses_tissue_that_needs_too_large_a_grid():
    with pytest.raises(ValueError, match="very large for this radius"):
        GridKernel(np.array([[0.0, 0.0], [1e7, 1e7]]), 30.0)


@pytest.mark.parametrize("call", [GridOperator, make_operator])
def test_unknown_normalisation(call):
    with pytest.raises(ValueError, match="Expected `normalize` to be one of"):
        call(np.zeros((2, 2)), 1.0, normalize="max")


def test_auto_picks_by_cost(monkeypatch):
    rng = np.random.default_rng(0)
    coords = rng.uniform(0, 2000, (20_000, 2))
    assert choose_method(coords, 30.0) == "sparse"
    assert choose_method(coords, 300.0) == "grid"
    assert choose_method(coords, 300.0, sigma=300.0) == "sparse"  # no grid for a cliff
    assert choose_method(coords[:500], 300.0) == "sparse"  # exact where it is instant
    monkeypatch.setattr(module, "MAX_GRID_POINTS", 10)
    assert choose_method(coords, 300.0) == "sparse"


def test_field_sends_each_signal_through_its_range(tissue):
    coords, values, radius = tissue
    secreted = make_operator(coords, radius, method="sparse")
    contact = make_operator(coords, radius / 5, method="sparse")
    field = LigandField(secreted, contact)
    far, near = secreted.apply(values), contact.apply(values)
    mask = np.arange(values.shape[1]) % 3 == 0
    np.testing.assert_array_equal(field.apply(values, mask), np.where(mask, near, far))
    np.testing.assert_array_equal(field.apply(values, ~mask & False), far)
    np.testing.assert_array_equal(field.apply(values, mask | True), near)
    unpacked = (*field,)
    assert unpacked == (secreted, contact)


def test_rows_without_neighbours_receive_zero():
    coords = np.array([[0.0, 0.0], [1000.0, 1000.0], [1010.0, 1000.0]])
    for method in ("sparse", "grid"):
        operator = make_operator(coords, 100.0, autocrine=False, normalize="row", method=method)
        found = operator.apply(np.ones((3, 1)))[:, 0]
        np.testing.assert_allclose(found, [0, 1, 1], atol=1e-4)
