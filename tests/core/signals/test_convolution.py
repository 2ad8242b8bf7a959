"""Convolutions by matrix products against sums over all pairs of grid points; sums of rows against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.signals import gather_scatter, grid
from spacetravlr._core.signals.convolution import convolve, make_waves, worthwhile
from spacetravlr._core.signals.gather_scatter import RUN
from spacetravlr._core.signals.operators import make_operator

SIGMA = 3.0  # grid points


def _problem(extent: tuple[int, ...], n_columns: int):
    """A grid, its waves and its convolution with a Gaussian, each pair of points added up."""
    reach = 14
    period = tuple(n + reach if n > 1 else 1 for n in extent)
    squared = np.zeros(())
    for axis, length in enumerate(period):
        steps = np.minimum(np.arange(length), length - np.arange(length))
        squared = squared + steps.reshape([-1 if a == axis else 1 for a in range(3)]) ** 2.0
    kernel = np.exp(-0.5 * squared / SIGMA**2)
    waves = make_waves(extent, period, np.fft.rfftn(kernel).real)
    values = np.random.default_rng(0).normal(size=(*extent, n_columns)).astype(np.float32)
    points = np.indices(extent).reshape(3, -1).T
    far = ((points[:, None] - points) ** 2.0).sum(axis=2)
    expected = np.exp(-0.5 * far / SIGMA**2) @ values.reshape(-1, n_columns).astype(float)
    return values, waves, expected.reshape(values.shape)


@pytest.mark.parametrize("extent", [(20, 1, 31), (9, 1, 5), (7, 8, 6)])
@pytest.mark.parametrize("n_columns", [1, 8, 40])
def test_against_all_pairs(extent, n_columns):
    values, waves, expected = _problem(extent, n_columns)
    convolve(values, waves)
    # this Gaussian has waves of its own up to where they fade out
    assert np.sqrt(np.mean((values - expected) ** 2)) < 2e-3 * np.sqrt(np.mean(expected**2))


def test_columns_are_the_same_bits_whatever_stands_beside():
    values, waves, _ = _problem((12, 1, 15), 40)
    few = np.ascontiguousarray(values[..., 8:16])
    convolve(values, waves)
    convolve(few, waves)
    np.testing.assert_array_equal(few, values[..., 8:16])


@pytest.mark.parametrize("shape", ["square", "strip", "volume", "two slides"])
def test_grids_of_both_kinds_receive_the_same(shape, monkeypatch):
    rng = np.random.default_rng(1)
    size = {"square": (900, 900), "strip": (2500, 120), "volume": (400, 400, 300), "two slides": (700, 700)}[shape]
    coords = rng.uniform(0, size, (1500, len(size)))
    slides = rng.integers(2, size=1500) if shape == "two slides" else None
    values = rng.gamma(1.0, size=(1500, 11)).astype(np.float32)
    exact = make_operator(coords, 200.0, libraries=slides, method="sparse").apply(values)
    found = []
    for small in (True, False):
        monkeypatch.setattr(grid, "worthwhile", lambda *_, small=small: small)
        found.append(make_operator(coords, 200.0, libraries=slides, method="grid").apply(values))
        error = np.sqrt(np.mean((found[-1] - exact) ** 2) / np.mean(exact**2))
        assert error < 1e-3
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=2e-3 * exact.max())


def test_small_grids_alone_are_worth_it():
    assert worthwhile((60, 1, 60), (75, 1, 75))
    assert not worthwhile((2000, 1, 2000), (2015, 1, 2015))


# both ways to do the same: the second where this version of llvmlite cannot do the first
WAYS = ["in_registers", "plainly"]


def _runs(n_rows: int):
    """Places, the rows that their runs cover, and a weight of each of these."""
    rng = np.random.default_rng(1)
    places = rng.integers(n_rows - RUN, size=6)
    covered = (places[:, None] + np.arange(RUN)).ravel()
    return places, covered, rng.normal(size=len(covered)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 7, 8, 33, 40, 75])
@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_sums_of_rows(width, runs, way):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(15, 80)).astype(np.float32)
    places, covered, weights = _runs(len(rows))
    out = np.full(width + 4, np.nan, np.float32)
    if runs:
        function = getattr(gather_scatter, f"_sum_runs_{way}")
        function(weights, places, len(places), rows.ravel(), rows.shape[1], width, out, 2)
        expected = weights.astype(float) @ rows[covered, :width]
    else:
        function = getattr(gather_scatter, f"_sum_rows_exactly_{way}")
        function(weights[: len(places)], places, 0, len(places), rows.ravel(), rows.shape[1], 1, width, out, 2)
        expected = weights[: len(places)].astype(float) @ rows[places, 1 : 1 + width]
    np.testing.assert_allclose(out[2:-2], expected, rtol=1e-4 if runs else 1e-6, atol=1e-5)
    assert np.isnan(out[:2]).all()
    assert np.isnan(out[-2:]).all()


@pytest.mark.parametrize("width", [1, 8, 41])
@pytest.mark.parametrize("way", WAYS)
def test_rows_that_are_added_to(width, way):
    rng = np.random.default_rng(0)
    rows, values = rng.normal(size=(15, 60)).astype(np.float32), rng.normal(size=70).astype(np.float32)
    places, covered, weights = _runs(len(rows))
    expected = rows.astype(float)
    for weight, row in zip(weights, covered, strict=True):
        expected[row, :width] += weight * values[3 : 3 + width]
    function = getattr(gather_scatter, f"_add_to_runs_{way}")
    function(weights, places, len(places), rows.reshape(-1), rows.shape[1], width, values, 3)
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-5)
