"""One hierarchy of shrinkage: what it finds, what it leaves at zero, and the same predictions in other units."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, spatial_basis
from spacetravlr._core.surfaces.group_ard import GroupArd
from spacetravlr._core.surfaces.model import CellFunctions, Part
from spacetravlr._core.surfaces.pooled import Hierarchy, PooledOptions, rescaled, uncentred

N, TYPES, TERMS = 1500, 3, 12


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    coordinates = rng.uniform(0, 1000, size=(N, 2))
    cell_type = np.sort(rng.integers(0, TYPES, size=N))
    space = tuple(spatial_basis(coordinates, share).evaluate(coordinates) for share in LENGTH_SCALES)
    return CellFunctions(cell_type, np.zeros((N, 0)), space, TYPES), coordinates


def centred(values, cell_type):
    means = np.stack([values[..., cell_type == c].mean(axis=-1) for c in range(TYPES)], axis=-1)
    return values - means[..., cell_type]


@pytest.fixture(scope="module")
def problem(cells):
    functions, coordinates = cells
    rng = np.random.default_rng(1)
    x = centred(rng.normal(size=(TERMS, N)), functions.cell_type)
    x = (x / x.std(axis=1, keepdims=True)).astype(np.float32)
    b = np.zeros((TERMS, N))
    b[0], b[1] = 0.4, -0.3
    b[2] = 0.3 * np.sin(2 * np.pi * coordinates[:, 0] / 1000) + 0.2
    b[3] = np.array([0.4, -0.2, 0.1])[functions.cell_type]
    field = np.cos(3 * np.pi * coordinates[:, 1] / 1000)
    y = centred((b * x).sum(axis=0) + field + 0.8 * rng.normal(size=N), functions.cell_type)
    return x, b, y


KIND = np.repeat([0, 1], TERMS // 2)
FOLD = np.random.default_rng(9).integers(0, 3, size=N)


def hierarchy(x, y, functions, kind=KIND):
    return Hierarchy(x, kind, y, functions, [np.flatnonzero(f == FOLD) for f in range(3)])


def coefficients(fit, functions):
    return fit.coefficients(functions)[:, :-1].T


def test_finds_pooled_type_and_spatial_effects(cells, problem):
    functions, _ = cells
    x, b, y = problem
    model = hierarchy(x, y, functions)
    found = model.search([0, 1, 2])
    assert found.full.log_evidence > found.smooth.log_evidence + 100
    fit = model.refit([0, 1, 2], evidence=True).full
    values = coefficients(fit, functions)
    np.testing.assert_allclose(values[:2].mean(axis=1), [0.4, -0.3], atol=0.08)
    assert np.corrcoef(values[2], b[2])[0, 1] > 0.8
    assert np.corrcoef(values[3], b[3])[0, 1] > 0.8
    assert np.abs(values[4:]).max() < 0.15
    assert (fit.evidence[:4] > np.log(9)).all()
    assert (fit.evidence[4:-1] < np.log(9)).all()


def test_a_fit_to_some_folds_knows_nothing_of_the_others(cells, problem):
    functions, _ = cells
    x, _, y = problem
    changed = np.where(FOLD == 2, 5 * np.random.default_rng(4).normal(size=N), y)
    left, right = (hierarchy(x, v, functions) for v in (y, changed))
    for one, other in zip(left.search([0, 1])[:2], right.search([0, 1])[:2], strict=True):
        for a, b in zip(one.weights, other.weights, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)


def test_terms_by_type_have_no_map_and_take_none_from_others(cells, problem):
    functions, _ = cells
    x, _, y = problem
    by_type = np.arange(TERMS) == 3
    folds = [np.flatnonzero(f == FOLD) for f in range(3)]
    options = PooledOptions(max_features=(TERMS - 1) * functions.space[0].shape[1])  # enough for the others
    model = Hierarchy(x, KIND, y, functions, folds, options, by_type=by_type)
    assert set(model.search([0, 1, 2]).full.blocks) >= {(k, Part.SPACE) for k in range(TERMS) if k != 3}
    for fit in (model.refit([0, 1, 2]).full, model.refit([0, 1], blind=True).full):
        assert (3, Part.SPACE) not in fit.blocks
        assert {(3, Part.POOLED), (3, Part.TYPE), (0, Part.SPACE)} <= set(fit.blocks)
    # as a term like any other, it costs them half of their maps
    parts = Hierarchy(x, KIND, y, functions, folds, options).search([0, 1, 2]).full.blocks
    assert sum(part == Part.SPACE for _, part in parts) < TERMS - 1


@pytest.mark.parametrize("shape", ["nothing", "smooth", "domains"])
def test_terms_get_no_credit_for_a_field_of_the_target(cells, shape):
    functions, coordinates = cells
    gains, sizes = [], []
    for seed in range(6):
        rng = np.random.default_rng(10 + seed)
        # regulators are smooth in part, as the target is
        fields = functions.space[2][:, :10] @ rng.normal(size=(10, TERMS))
        x = centred((fields / fields.std(axis=0) + rng.normal(size=(N, TERMS))).T, functions.cell_type)
        x = (x / x.std(axis=1, keepdims=True)).astype(np.float32)
        y = rng.normal(size=N)
        if shape == "smooth":
            y += functions.space[1][:, :10] @ rng.normal(size=10)
        if shape == "domains":
            y += 1.5 * rng.normal(size=9)[(coordinates // 334).astype(int) @ [3, 1]]
        fits = hierarchy(x, centred(y, functions.cell_type), functions).search([0, 1, 2])
        gains.append(fits.full.log_evidence - fits.smooth.log_evidence)
        sizes.append(np.abs(coefficients(fits.full, functions)).max())
    assert max(gains) < 10
    assert np.median(sizes) < 0.1


def test_the_same_predictions_from_terms_in_other_units(cells, problem):
    functions, _ = cells
    x, _, y = problem
    fit = hierarchy(x, y, functions).search([0, 1, 2]).full
    rng = np.random.default_rng(2)
    offsets, units = rng.normal(size=(TYPES, TERMS)), rng.uniform(0.5, 2, size=TERMS)
    other = uncentred(rescaled(fit, units), offsets)
    moved = x.T / units + offsets[functions.cell_type]
    np.testing.assert_allclose(other.prediction(moved, functions), fit.prediction(x.T, functions), atol=1e-5)
    np.testing.assert_allclose(
        other.standard_deviations(functions)[:, 0], fit.standard_deviations(functions)[:, 0] * units[0], rtol=1e-5
    )
    # the intercept at the mean of the terms is what it was
    row = np.append(offsets[functions.cell_type[0]], 1.0)
    np.testing.assert_allclose(
        other.deviation_of(row, functions.take(np.array([0]))),
        fit.deviation_of(np.append(np.zeros(TERMS), 1.0), functions.take(np.array([0]))),
        rtol=1e-4,
    )


def test_without_terms_there_is_the_smooth_intercept(cells):
    functions, coordinates = cells
    y = centred(np.cos(2 * np.pi * coordinates[:, 0] / 1000), functions.cell_type)
    model = hierarchy(np.zeros((0, N), np.float32), y, functions, np.zeros(0, int))
    fits = model.search([0, 1, 2])
    assert model.refit([0, 1]).full.blocks == fits.full.blocks
    assert fits.full is fits.smooth
    assert np.corrcoef(fits.smooth.prediction(np.zeros((N, 0)), functions), y)[0, 1] > 0.99


def test_a_shared_variance_is_that_of_one_large_block():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(6, 400))
    y = 0.3 * rows.sum(axis=0) + rng.normal(size=400)
    apart, together = GroupArd(y, 1.0), GroupArd(y, 1.0)
    apart.add([rows[:2], rows[2:]], [0.1, 0.1], shared=[0, 0])
    together.add([rows], [0.1])
    left, right = apart.learn(5), together.learn(5)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-8)
    assert left.log_evidence == pytest.approx(right.log_evidence, rel=1e-10)
    assert apart.variances[0] == apart.variances[1]


def test_parts_put_together_are_the_model_of_all_cells():
    rng = np.random.default_rng(6)
    rows, y = rng.normal(size=(5, 300)), rng.normal(size=300)
    groups = np.repeat([0, 1], 150)
    cells = [np.flatnonzero(np.arange(300) % 3 == f) for f in range(3)]
    parts = [GroupArd(y[c], 1.0, groups=np.searchsorted(groups[c], [0, 1, 2])) for c in cells]
    whole = GroupArd(y, 1.0, groups=np.array([0, 150, 300]))
    for c, part in zip([*cells, np.arange(300)], [*parts, whole], strict=True):
        part.add([rows[:2, c], rows[2:, c]], [0.1, 0.2], split=[True, False])
    together = GroupArd.combined(parts, 1.0)
    left, right = whole.learn(3), together.learn(3)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-8)
    assert left.log_evidence == pytest.approx(right.log_evidence)
    kept = np.array([True, False])
    together.keep(kept)
    whole.keep(kept)
    np.testing.assert_allclose(together.learn(2).mean, whole.learn(2).mean, rtol=1e-8)
