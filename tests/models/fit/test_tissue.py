"""The fit of a block of targets: what is held out, what is chosen, and what is delivered."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr._anndata._fit import read_fit_data
from spacetravlr._core.design import term_values
from spacetravlr._core.sgl.reference import solve_reference
from spacetravlr._core.standardise import departure_to_original
from spacetravlr._core.surfaces.search import SurfaceOptions
from spacetravlr.models.bodies._base import BodyResult
from spacetravlr.models.bodies._inputs import BodyOptions
from spacetravlr.models.bodies._network import target_rng_seed
from spacetravlr.models.bodies._registry import BODY_NAMES
from spacetravlr.models.bodies._seed import fit_seed
from spacetravlr.models.fit import _block
from spacetravlr.models.fit._tissue import fit_inputs, fit_tissue

TYPES = ["T/NK", "B", "stroma"]


@pytest.fixture(scope="module")
def base():
    adata = st.datasets.simulated_tissue(
        n_cells=300, n_cell_types=3, n_targets=4, n_tfs=6, n_active_tfs=3, n_pairs=5, n_active_pairs=2,
        n_contact_pairs=1, n_ligand_tf=2, fields="position", rng=0,
    )  # fmt: skip
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(TYPES)
    st.pp.spatial_weights(adata)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    # some tests compare to the last digits, which solvers agree on less where a pair and its receptor nearly coincide
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, cluster_key="cell_type", main_effects=False)
    return adata


def _inputs(adata, **options):
    tissue = read_fit_data(adata, modulators_key="modulators", **options)
    return tissue, fit_inputs(tissue, n_folds=3, rng_seed=0, n_jobs=1)


@pytest.fixture(scope="module")
def inputs(base):
    return _inputs(base)[1]


@pytest.fixture(scope="module")
def surface(inputs):
    return _block.fit_targets(inputs, BodyOptions(body="surface"), np.arange(4))


@pytest.fixture(scope="module")
def seed(inputs):
    return _block.fit_targets(inputs, BodyOptions(body="seed"), np.arange(4))


def _with_targets(inputs, change):
    """The same inputs after ``change`` of a copy of the targets' expression (cells x targets)."""
    expression = inputs.expression.copy()
    expression[:, inputs.targets.gene] = change(expression[:, inputs.targets.gene].copy())
    return replace(inputs, expression=expression)


def _columns(inputs, t):
    return inputs.targets.columns_of(t)


# scores


# the reference gives up a little before its tolerance; what is compared is wider than that
@pytest.mark.filterwarnings("ignore:The FISTA iterations did not converge")
def test_seed_scores_by_hand(inputs):
    """A seed of each type, fitted on its choosing cells, predicts the reporting cells."""
    lam = 0.02
    scores = _block.fit_targets(inputs, BodyOptions(body="seed", group_penalty=lam, min_cells=0), np.arange(4)).scores
    report = inputs.fold == 3
    assert 0.15 < report.mean() < 0.35
    for t in range(4):
        terms = inputs.terms.take(inputs.targets.terms_of(t))
        x = term_values(inputs.expression, inputs.received, terms)
        y = inputs.expression[:, inputs.targets.gene[t]].astype(float)
        for c in range(3):
            row = scores[(scores["target"] == inputs.target_names[t]) & (scores["cell_type"] == c)].iloc[0]
            mine = inputs.cell_type == c
            fitted, held = mine & ~report, mine & report
            by_hand = solve_reference(x[fitted], y[fitted], terms.kind, lam=lam)
            squares = np.sum((y[held] - y[held].mean()) ** 2)
            r2 = 1 - np.sum((y[held] - by_hand.intercept - x[held] @ by_hand.coef) ** 2) / squares
            assert row["r2_seed"] == pytest.approx(r2, abs=0.02)
            assert row["r2_zero"] == pytest.approx(1 - np.sum((y[held] - y[fitted].mean()) ** 2) / squares, abs=1e-5)
            assert row["sst_report"] == pytest.approx(squares, rel=1e-4)
            assert (row["n_cells"], row["n_report"]) == (mine.sum(), held.sum())
            train = 1 - np.mean((y[fitted] - by_hand.intercept - x[fitted] @ by_hand.coef) ** 2) / y[fitted].var()
            assert row["r2_train_seed"] == pytest.approx(train, abs=0.02)


def test_surface_scores_by_hand(inputs):
    from spacetravlr._core.surfaces.fit import fit_surface

    scores = _block.fit_targets(inputs, BodyOptions(body="surface"), np.array([1])).scores
    block, functions = inputs.design(np.array([1])), inputs.functions()
    choose, report = ~inputs.report, inputs.report
    x = (block.values[:, block.columns(0)] - block.mean[block.columns(0)]) / block.spread[block.columns(0)]
    y = (block.y[:, 0] - block.y_mean[0]) / block.y_spread[0]
    fit = fit_surface(x[choose], y[choose], functions.take(choose))
    b = fit.coefficients(functions.take(report))
    squared = (y[report] - (b[:, :-1] * x[report]).sum(axis=1) - b[:, -1]) ** 2
    for c in range(3):
        mine = inputs.cell_type[report] == c
        expected = 1 - squared[mine].sum() / np.sum((y[report][mine] - y[report][mine].mean()) ** 2)
        assert scores["r2_surface"].iloc[c] == pytest.approx(expected, abs=1e-4)


def test_score_of_what_was_kept(surface):
    scores = surface.scores
    for _, row in scores.iterrows():
        assert row["r2_kept"] == row[f"r2_{row['kept']}"]
    assert scores["r2_network"].isna().all()
    assert "r2_kept_raw" not in scores


def test_standardisation_comes_from_choosing_cells(inputs):
    block = inputs.design(np.arange(2))
    np.testing.assert_allclose(block.mean, block.values[~inputs.report].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(block.y_spread, block.y[~inputs.report].std(axis=0), rtol=1e-5)
    rng = np.random.default_rng(0)
    b = rng.normal(size=(5, len(block.columns(1)) + 1))
    original = departure_to_original(b, *block.scaling(1))
    original[:, 0] += block.y_mean[1]
    np.testing.assert_allclose(block.to_standard(1, original), b, atol=1e-6)
    x = block.values[:5, block.columns(1)].astype(float)
    z = (x - block.mean[block.columns(1)]) / block.spread[block.columns(1)]
    np.testing.assert_allclose(
        original[:, 0] + (original[:, 1:] * x).sum(axis=1),
        block.y_mean[1] + block.y_spread[1] * (b[:, 0] + (b[:, 1:] * z).sum(axis=1)),
        atol=1e-5,
    )


# reporting cells take no part


@pytest.fixture(scope="module")
def disturbed(inputs):
    """Targets at reporting cells replaced by large noise."""
    noise = np.random.default_rng(1).gamma(1.0, 5.0, (300, 4)).astype(np.float32)
    return _with_targets(inputs, lambda y: np.where(inputs.report[:, None], noise, y))


def test_reporting_cells_choose_nothing_in_a_surface(inputs, disturbed, surface):
    other = _block.fit_targets(disturbed, BodyOptions(body="surface"), np.arange(4))
    assert other.scores["kept"].tolist() == surface.scores["kept"].tolist()
    np.testing.assert_allclose(other.terms["evidence"], surface.terms["evidence"], rtol=1e-6)
    np.testing.assert_array_equal(other.terms["active"], surface.terms["active"])
    for name in ("r2_train_seed", "r2_train_surface"):
        np.testing.assert_allclose(other.scores[name], surface.scores[name], rtol=1e-6)
    # what is reported and what is delivered do see them
    assert not np.allclose(other.scores["r2_surface"], surface.scores["r2_surface"])
    assert not np.allclose(other.betas, surface.betas)


def test_reporting_cells_choose_no_penalty(inputs, disturbed):
    settings = BodyOptions(body="seed")
    (body, seeds), (other_body, other) = (fit_seed(i.design(np.arange(4)), i, settings, 1) for i in (inputs, disturbed))
    np.testing.assert_allclose(other.choosing, seeds.choosing, atol=1e-5)
    np.testing.assert_allclose(np.stack(other.held), np.stack(seeds.held), atol=1e-5)
    np.testing.assert_allclose(other_body.prediction, body.prediction, atol=1e-5)
    assert not np.allclose(other.final, seeds.final)


def test_reporting_cells_neither_train_nor_stop_a_network(inputs, disturbed):
    settings = BodyOptions(body="cnn", network=st.nn.NetworkConfig(n_epochs=3, batch_size=128, device="cpu"))
    first, other = (_block.fit_targets(i, settings, np.arange(2)) for i in (inputs, disturbed))
    pd.testing.assert_frame_equal(first.training, other.training)
    assert first.scores["kept"].tolist() == other.scores["kept"].tolist()
    # predictions of all cells are one product, whose rounding may depend on what is in its other rows
    np.testing.assert_allclose(first.scores["r2_train_network"], other.scores["r2_train_network"], rtol=1e-6)


def test_each_cell_is_predicted_without_itself(inputs):
    """Another value at one cell changes the prediction of other folds' cells, never its own fold's."""
    settings = BodyOptions(body="seed", group_penalty=0.01)
    where = int(np.flatnonzero(inputs.fold == 0)[0])

    def change(y):
        y[where] += 3.0
        return y

    bodies = [fit_seed(i.design(np.arange(2)), i, settings, 1)[0] for i in (inputs, _with_targets(inputs, change))]
    changed = ~np.isclose(bodies[0].prediction, bodies[1].prediction, atol=1e-6).all(axis=1)
    assert not changed[inputs.fold == 0].any()
    same_type = inputs.cell_type == inputs.cell_type[where]
    assert changed[(inputs.fold == 1) & same_type].any()


# choices


def _choose(y, predictions, fold, cell_type, threshold=0.01):
    block = SimpleNamespace(y=y[:, None])
    block_len = type("Block", (), {"__len__": lambda _: 1, "y": block.y})()
    inputs = SimpleNamespace(
        fold=fold, n_folds=2, n_types=int(cell_type.max()) + 1, cell_type=cell_type, report=fold == 2
    )
    bodies = {name: BodyResult(p[:, None], p[:, None]) for name, p in predictions.items()}
    return [BODY_NAMES[code] for code in _block.choose_bodies(block_len, inputs, bodies, threshold)[0]]


@pytest.fixture
def contest():
    """Cells in two types, the truth, and a direction in which predictions are off."""
    rng = np.random.default_rng(0)
    y, off = rng.normal(size=1800), rng.normal(size=1800)
    cell_type, fold = np.repeat([0, 1], 900), np.tile([0, 1, 2], 600)
    return y, off, cell_type, fold


def test_each_type_keeps_the_best_body(contest):
    y, off, cell_type, fold = contest
    first = cell_type == 0
    predictions = {
        "zero": np.zeros(1800),
        "seed": y + 0.5 * off,
        "surface": y + np.where(first, 0.2, 0.9) * off,
        "network": y + np.where(first, 0.4, 0.1) * off,
    }
    assert _choose(y, predictions, fold, cell_type) == ["surface", "network"]
    del predictions["network"]
    assert _choose(y, predictions, fold, cell_type) == ["surface", "seed"]


def test_nothing_is_kept_below_the_threshold(contest):
    y, _, cell_type, fold = contest
    slight = 0.01 * y  # explains about two percent
    assert _choose(y, {"zero": 0 * y, "seed": slight}, fold, cell_type, threshold=0.01) == ["seed", "seed"]
    assert _choose(y, {"zero": 0 * y, "seed": slight}, fold, cell_type, threshold=0.05) == ["zero", "zero"]


def test_the_network_is_judged_on_the_fold_that_did_not_train_it(contest):
    y, off, cell_type, fold = contest
    trained = fold == 0
    network = np.where(trained, np.nan, y + 0.3 * off)
    seed = y + np.where(trained, 0.01, 0.6) * off
    assert _choose(y, {"zero": 0 * y, "seed": seed, "network": network}, fold, cell_type) == ["network", "network"]


def test_reporting_cells_decide_nothing(contest):
    y, off, cell_type, fold = contest
    seed = np.where(fold == 2, 100.0, y + 0.3 * off)
    surface = np.where(fold == 2, y, y + 0.4 * off)
    assert _choose(y, {"zero": 0 * y, "seed": seed, "surface": surface}, fold, cell_type) == ["seed", "seed"]


def test_a_tie_keeps_the_simpler_body(contest):
    y, off, cell_type, fold = contest
    seed = y + 0.5 * off
    network = seed + 1e-9 * (y - seed)
    assert _choose(y, {"zero": 0 * y, "seed": seed, "network": network}, fold, cell_type) == ["seed", "seed"]


@pytest.mark.parametrize("body", ["seed", "surface", "network"])
def test_less_than_a_thousandth_of_the_variance_is_a_tie(contest, body):
    y, off, cell_type, fold = contest
    before = {"seed": "zero", "surface": "seed", "network": "seed"}[body]
    predictions = {"zero": 0 * y, "seed": y + 0.5 * off} if body != "seed" else {"zero": 0 * y}
    error = y - predictions[before]

    def keeps(gain):
        return _choose(y, {**predictions, body: y - np.sqrt(1 - gain) * error}, fold, cell_type, threshold=0)

    size = np.mean(y**2) / np.mean(error**2)
    assert keeps(0.0005 * size) == [before, before]
    assert keeps(0.005 * size) == [body, body]


def test_a_network_that_was_asked_for_is_judged_over_all_types_together(contest):
    y, off, _, fold = contest
    cell_type = np.where(np.arange(1800) < 1780, 0, 1)  # twenty cells in the second type
    network = y + np.where(cell_type == 0, 0.3, 0.55) * off
    predictions = {"zero": 0 * y, "seed": y + 0.5 * off, "network": network}
    assert _choose(y, predictions, fold, cell_type) == ["network", "network"]
    worse = y + np.where(cell_type == 0, 0.3, 3.0) * off
    assert _choose(y, {**predictions, "network": worse}, fold, cell_type) == ["network", "seed"]
    # and not when it wins nothing
    same = y + np.where(cell_type == 0, 0.5, 0.499) * off
    assert _choose(y, {**predictions, "network": same}, fold, cell_type) == ["seed", "seed"]


def test_where_a_target_does_not_vary_nothing_is_kept(contest):
    y, off, cell_type, fold = contest
    y = np.where(cell_type == 0, y, 0.0)
    assert _choose(y, {"zero": 0 * y, "seed": y + 0.1 * off}, fold, cell_type) == ["seed", "zero"]


def test_types_with_few_cells_follow_the_others():
    rng = np.random.default_rng(0)
    y, off = rng.normal(size=306), rng.normal(size=306)
    cell_type, fold = np.repeat([0, 1], [300, 6]), np.tile([0, 1, 2], 102)
    seed = y + np.where(cell_type == 0, 0.3, 1.3) * off  # worse than nothing in the four cells of the small type
    assert _choose(y, {"zero": 0 * y, "seed": seed}, fold, cell_type) == ["seed", "seed"]
    assert _choose(y, {"zero": 0 * y, "seed": np.where(cell_type == 0, 3 * y, y)}, fold, cell_type) == ["zero", "zero"]


# what is delivered


def test_coefficients_of_a_type_come_from_the_body_it_keeps(inputs, seed, surface, monkeypatch):
    zero, seed_code, surface_code = (BODY_NAMES.index(name) for name in ("zero", "seed", "surface"))
    kept = np.array([zero, seed_code, surface_code])[np.array([[0, 1, 2], [2, 2, 1], [0, 0, 0], [1, 1, 1]])]

    def all_of(code):
        monkeypatch.setattr(_block, "choose_bodies", lambda *_: np.full((4, 3), code))
        return _block.fit_targets(inputs, BodyOptions(body="surface"), np.arange(4))

    whole = {code: all_of(code).betas for code in (zero, seed_code, surface_code)}
    monkeypatch.setattr(_block, "choose_bodies", lambda block, *_: kept[block.index])
    mixed = _block.fit_targets(inputs, BodyOptions(body="surface", uncertainty=True), np.arange(4))
    for t in range(4):
        columns = _columns(inputs, t)
        for c in range(3):
            rows = inputs.cell_type == c
            np.testing.assert_array_equal(mixed.betas[rows, columns], whole[kept[t, c]][rows, columns])
            assert np.isfinite(mixed.sd[rows, columns]).all() == (kept[t, c] == surface_code)
    assert mixed.scores["kept"].tolist() == [BODY_NAMES[k] for k in kept.ravel()]
    # what a surface found says nothing where another body is delivered
    for t in range(4):
        evidence, active = (mixed.terms[name].to_numpy()[_columns(inputs, t)][1:] for name in ("evidence", "active"))
        expected = surface.terms["evidence"].to_numpy()[_columns(inputs, t)][1:]
        np.testing.assert_array_equal(
            evidence, expected if (kept[t] == surface_code).any() else np.full_like(expected, np.nan)
        )
        assert not np.isinf(evidence).any()
        assert np.all(np.abs(mixed.betas[:, _columns(inputs, t)][:, 1:][:, active]).max(axis=0, initial=0) > 0)
        assert active.any() == (kept[t] > 0).any()


def test_zero_is_the_mean_of_the_type(inputs, monkeypatch):
    monkeypatch.setattr(_block, "choose_bodies", lambda *_: np.zeros((4, 3), dtype=int))
    betas = _block.fit_targets(inputs, BodyOptions(body="seed"), np.arange(4)).betas
    for t in range(4):
        block = betas[:, _columns(inputs, t)]
        assert np.all(block[:, 1:] == 0)
        y = inputs.expression[:, inputs.targets.gene[t]]
        for c in range(3):
            rows = inputs.cell_type == c
            np.testing.assert_allclose(block[rows, 0], y[rows].mean(), rtol=1e-5)


@pytest.fixture(scope="module")
def noisy(inputs):
    """Targets that are noise."""
    noise = np.random.default_rng(0).gamma(2.0, 1.0, (300, 4)).astype(np.float32)
    return _with_targets(inputs, lambda _: noise)


def test_noise_keeps_zero(noisy):
    result = _block.fit_targets(noisy, BodyOptions(body="seed"), np.arange(4))
    zero = result.scores["kept"].to_numpy().reshape(4, 3) == "zero"
    assert zero.mean() > 0.7
    for t in range(4):
        rows = zero[t][noisy.cell_type]
        assert np.all(result.betas[rows, _columns(noisy, t)][:, 1:] == 0)


def test_noise_has_no_regulators(noisy):
    """A surface may still improve on the mean of a type, but by its intercept alone."""
    result = _block.fit_targets(noisy, BodyOptions(body="surface"), np.arange(4))
    without_seed = result.scores["kept"].to_numpy().reshape(4, 3) != "seed"
    assert without_seed.mean() > 0.8
    for t in range(4):
        active = result.terms["active"].to_numpy()[_columns(noisy, t)]
        assert active[0]
        assert not active[1:].any() or not without_seed[t].all()
        rows = without_seed[t][noisy.cell_type]
        assert np.all(result.betas[rows, _columns(noisy, t)][:, 1:] == 0)


def test_delivered_coefficients_use_every_cell(inputs):
    result = _block.fit_targets(
        inputs, BodyOptions(body="seed", group_penalty=0.01, score_threshold=0.0), np.array([3])
    )
    terms = inputs.terms.take(inputs.targets.terms_of(3))
    x = term_values(inputs.expression, inputs.received, terms)
    y = inputs.expression[:, inputs.targets.gene[3]]
    for c in range(3):
        rows = inputs.cell_type == c
        by_hand = solve_reference(x[rows], y[rows], terms.kind, lam=0.01)
        fitted = result.betas[rows][0]
        predictions = [b0 + x[rows] @ b for b0, b in ((by_hand.intercept, by_hand.coef), (fitted[0], fitted[1:]))]
        np.testing.assert_allclose(predictions[1], predictions[0], atol=0.03)
        assert np.ptp(result.betas[rows], axis=0).max() == 0


def test_reference_solver_gives_nearly_the_same_seeds(inputs):
    settings = BodyOptions(body="seed", group_penalty=0.02)
    seeds = [
        fit_seed(inputs.design(np.array([0])), inputs, replace(settings, solver=solver), 1)[1].final
        for solver in ("gram", "group-lasso")
    ]
    np.testing.assert_allclose(seeds[1], seeds[0], atol=0.02)
    assert not np.array_equal(*seeds)


def test_importance_is_the_spread_of_contributions_within_types(inputs, surface):
    terms = surface.terms
    columns = _columns(inputs, 0)
    x = term_values(inputs.expression, inputs.received, inputs.terms.take(inputs.targets.terms_of(0)))
    centred = x - pd.DataFrame(x).groupby(inputs.cell_type).transform("mean").to_numpy()
    y = inputs.expression[~inputs.report, inputs.targets.gene[0]]
    expected = np.sqrt(np.mean((surface.betas[:, columns][:, 1:] * centred) ** 2, axis=0)) / y.std()
    np.testing.assert_allclose(terms["importance"].to_numpy()[columns][1:], expected, rtol=1e-3, atol=1e-6)
    assert np.isnan(terms["importance"].to_numpy()[columns][0])
    assert np.all(surface.scores["kept"] == "surface")
    inactive = ~terms["active"].to_numpy()
    assert inactive.any()
    assert np.all(terms["importance"][inactive] == 0)
    assert np.all(terms["importance"][~inactive].dropna() > 0)


# small types and several blocks


def test_small_types_use_the_seed_of_all_cells(base, caplog):
    adata = base.copy()
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "B")[:14]] = "rare/1"
    labels[np.flatnonzero(labels == "stroma")[:12]] = "rare/2"
    adata.obs["cell_type"] = pd.Categorical(labels)
    with caplog.at_level(logging.WARNING, logger="spacetravlr"):
        st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    assert "fewer than min_cells=30 cells use a seed fitted on all cells: rare/1, rare/2" in caplog.text
    inputs = _inputs(adata)[1]
    seeds = fit_seed(inputs.design(np.arange(4)), inputs, BodyOptions(body="seed"), 1)[1].final
    names = list(adata.obs["cell_type"].cat.categories)
    one, two = names.index("rare/1"), names.index("rare/2")
    np.testing.assert_array_equal(seeds[:, one, 1:], seeds[:, two, 1:])
    assert not np.allclose(seeds[:, names.index("B"), 1:], seeds[:, one, 1:])
    assert set(adata.uns["betas"]["scores"]["cell_type"]) == set(names)


def test_blocks_are_joined_in_the_order_of_targets(base):
    tissue, inputs = _inputs(base)
    ticks: list[int] = []
    one = fit_tissue(tissue, inputs, BodyOptions(body="seed"), block_size=1, progress=ticks.append)
    whole = fit_tissue(tissue, inputs, BodyOptions(body="seed"))
    assert sum(ticks) == 4
    np.testing.assert_allclose(one.betas, whole.betas, atol=1e-5)
    assert one.scores["target"].astype(str).tolist() == whole.scores["target"].astype(str).tolist()
    assert one.terms["target"].astype(str).tolist() == base.uns["simulation"]["terms"]["target"].astype(str).tolist()
    assert set(one.scores["cell_type"].cat.categories) == set(TYPES)


def test_a_block_can_be_fitted_in_another_process(inputs, seed):
    """Workers get inputs and settings, and give back the block, as bytes."""
    settings = BodyOptions(body="seed", network=st.nn.NetworkConfig(), surface=SurfaceOptions())
    sent, how = pickle.loads(pickle.dumps((inputs, settings)))
    back = pickle.loads(pickle.dumps(_block.fit_targets(sent, how, np.arange(4))))
    np.testing.assert_array_equal(back.betas, seed.betas)
    pd.testing.assert_frame_equal(back.scores, seed.scores)


@pytest.mark.parametrize("body", ["surface", "cnn"])
def test_progress_counts_each_target_once(inputs, body):
    ticks: list[int] = []
    settings = BodyOptions(body=body, network=st.nn.NetworkConfig(n_epochs=1, batch_size=256, device="cpu"))
    _block.fit_targets(inputs, settings, np.arange(3), progress=ticks.append)
    assert sum(ticks) == 3


def test_the_stream_of_a_target_depends_on_its_name_and_the_seed_alone():
    assert target_rng_seed(0, "PAX5") == target_rng_seed(0, "PAX5")
    assert len({target_rng_seed(s, name) for s in (0, 1) for name in ("PAX5", "CD79A", "T/NK")}) == 6


def test_folds_hold_every_type_and_stopping_blocks_are_their_own(inputs):
    counts = np.zeros((4, 3), dtype=int)
    np.add.at(counts, (inputs.fold, inputs.cell_type), 1)
    assert (counts > 0).all()
    assert 0.1 < inputs.stopping.mean() < 0.3
    # stopping blocks lie across the folds, so that each training has cells of both sorts
    for fold in range(4):
        others = inputs.stopping[inputs.fold != fold]
        assert 0 < others.mean() < 1


# surfaces as departures from the seed


@pytest.fixture(scope="module")
def departed(inputs):
    """Surfaces that may hold so little that the seed does better, so that they start from it."""
    settings = BodyOptions(body="surface", surface=SurfaceOptions(max_features=1, amplitudes=False), uncertainty=True)
    return _block.fit_targets(inputs, settings, np.arange(4))


def test_a_surface_that_falls_short_departs_from_the_seed(inputs, departed):
    starts = departed.terms["evidence"].isna().to_numpy()
    departs = [t for t in range(4) if starts[_columns(inputs, t)].all()]
    assert departs
    scores = departed.scores.set_index("target")
    for t in departs:
        mine = scores.loc[inputs.target_names[t]]
        assert (mine["r2_surface"] > mine["r2_seed"] - 0.3).all()
        assert np.isnan(departed.sd[:, _columns(inputs, t)]).all()
        terms = departed.terms[_columns(inputs, t)]
        assert terms["active"].iloc[1:].any()
        assert (terms["importance"].iloc[1:][terms["active"].iloc[1:]] > 0).all()


def test_reporting_cells_do_not_choose_departures_either(disturbed, departed):
    settings = BodyOptions(body="surface", surface=SurfaceOptions(max_features=1, amplitudes=False))
    other = _block.fit_targets(disturbed, settings, np.arange(4))
    assert other.scores["kept"].tolist() == departed.scores["kept"].tolist()
    np.testing.assert_array_equal(other.terms["evidence"].isna(), departed.terms["evidence"].isna())
    np.testing.assert_allclose(other.scores["r2_train_surface"], departed.scores["r2_train_surface"], rtol=1e-5)
