"""From an AnnData to coefficients in an AnnData."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import spacetravlr as st
from spacetravlr.models.fit import _tissue as fitting

TYPES = ["T/NK", "B", "stroma"]
TARGETS = ["PAX5", "CD79A", "MS4A1", "CD19"]
FEW_EPOCHS = {"n_epochs": 3, "batch_size": 128, "encoder": "per_target"}


def _prepare(adata, *, library_key=None, **weights):
    st.pp.spatial_weights(adata, library_key=library_key, **weights)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


def _simulate(**options):
    defaults = {
        "n_cells": 240, "n_cell_types": 3, "n_targets": 4, "n_tfs": 6, "n_active_tfs": 3, "n_pairs": 5,
        "n_active_pairs": 2, "n_contact_pairs": 1, "n_ligand_tf": 2, "fields": "position", "rng": 0,
    }  # fmt: skip
    adata = st.datasets.simulated_tissue(**{**defaults, **options})
    if adata.obs["cell_type"].cat.categories.size == 3:
        adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(TYPES)
    return adata


@pytest.fixture(scope="module")
def base():
    return _prepare(_simulate())


@pytest.fixture
def ready(base):
    return base.copy()


@pytest.fixture(scope="module")
def fitted(base):
    return st.tl.fit_betas(base, body="surface", uncertainty=True, raw_layer="noise_free", copy=True, n_jobs=1)


def _fit(adata, targets=None, **options):
    return st.tl.fit_betas(adata, targets, **{"body": "surface", "copy": True, "n_jobs": 1, **options})


def _same(a, b, targets=TARGETS, atol=1e-5):
    for target in targets:
        x, y = st.get.betas(a, target), st.get.betas(b, target)
        assert x.columns.tolist() == y.columns.tolist()
        np.testing.assert_allclose(x, y, atol=atol)
        one, two = (st.get.scores(adata, target=target).set_index("cell_type") for adata in (a, b))
        assert one["kept"].astype(str).to_dict() == two["kept"].astype(str).to_dict()
        np.testing.assert_allclose(one["r2_kept"], two["r2_kept"].loc[one.index], atol=1e-5)


# what is written


def test_what_is_written(base, fitted):
    assert set(fitted.obsm) - set(base.obsm) == {"betas", "betas_sd"}
    assert set(fitted.uns) - set(base.uns) == {"betas"}
    trimmed = fitted.copy()
    for key in ("betas", "betas_sd"):
        del trimmed.obsm[key]
    del trimmed.uns["betas"]
    assert_equal(trimmed, base)
    stored = fitted.uns["betas"]
    assert set(stored) == {"terms", "scores", "training", "params", "store", "bodies", "fitted_on"}
    columns = ["target", "kind", "tf", "ligand", "receptor", "range"]
    table = base.uns["modulators"]["table"]
    pd.testing.assert_frame_equal(
        stored["terms"].loc[stored["terms"]["kind"] != "intercept", columns].astype(str).reset_index(drop=True),
        table[columns].astype(str),
    )
    assert fitted.obsm["betas"].dtype == np.float32
    assert fitted.obsm["betas"].shape == fitted.obsm["betas_sd"].shape == (240, len(table) + len(TARGETS))
    assert len(stored["scores"]) == 12
    assert list(stored["scores"]["target"].unique()) == TARGETS
    assert set(stored["scores"]["cell_type"]) == set(TYPES)
    assert stored["store"] == ""
    assert stored["params"]["layer"] == "log1p"
    assert stored["params"]["cluster_key"] == "cell_type"
    assert stored["params"]["received_key"] == "received_ligands"
    assert stored["params"]["body"] == "surface"


def test_main_effects_are_fitted(base):
    """The terms table says so; a table of an earlier version, without them, is fitted as ``main_effects=False``."""
    assert set(base.uns["modulators"]["table"]["kind"]) == {"tf", "lr", "tfl", "receptor", "ligand"}
    published, earlier = base.copy(), base.copy()
    grn, _, ligand_tf = st.datasets.simulated_priors(base)
    st.pp.modulators(published, grn, ligand_tf=ligand_tf, main_effects=False)
    stored = earlier.uns["modulators"]
    del stored["params"]["main_effects"]
    stored["table"] = stored["table"][~stored["table"]["kind"].isin(["receptor", "ligand"])]
    whole, one, other = (_fit(adata, body="seed") for adata in (base, published, earlier))
    np.testing.assert_array_equal(one.obsm["betas"], other.obsm["betas"])
    terms = whole.uns["betas"]["terms"]
    kept = ~terms["kind"].isin(["receptor", "ligand"]).to_numpy()
    assert one.obsm["betas"].shape[1] == kept.sum() < len(kept)
    assert whole.obsm["betas"][:, ~kept].any()
    assert terms.loc[~kept, "importance"].max() > 0


def test_a_pair_gets_no_credit_for_what_its_receptor_goes_along_with(base):
    """A target that is the receptor and noise, without any ligand."""
    found = []
    for main_effects in (False, True):
        adata = base.copy()
        pair = adata.uns["simulation"]["ligand_receptor"].iloc[0]
        noise = np.random.default_rng(0).normal(scale=0.1, size=adata.n_obs)
        made = np.maximum(adata[:, pair["receptor"]].layers["log1p"].ravel() + noise + 1, 0)
        adata.layers["log1p"][:, adata.var_names.get_loc("PAX5")] = made
        grn, _, ligand_tf = st.datasets.simulated_priors(base)
        st.pp.modulators(adata, grn, ligand_tf=ligand_tf, main_effects=main_effects)
        terms = _fit(adata, ["PAX5"]).uns["betas"]["terms"]
        own = terms[(terms["receptor"] == pair["receptor"]) & (terms["kind"] == "lr")]
        found.append(float(own["importance"].sum()))
    assert found[0] > 0.5
    assert found[1] < 0.1 * found[0]


def test_uncertainty(fitted):
    sd = fitted.obsm["betas_sd"]
    scores, terms = fitted.uns["betas"]["scores"], fitted.uns["betas"]["terms"]
    betas = fitted.obsm["betas"]
    kept = scores.pivot(index="target", columns="cell_type", values="kept")
    for target in TARGETS:
        columns = (terms["target"] == target).to_numpy()
        for name in TYPES:
            rows = (fitted.obs["cell_type"] == name).to_numpy()
            here = sd[np.ix_(rows, columns)]
            if kept.loc[target, name] == "surface":
                assert np.all(here >= 0)
                assert np.all((here == 0) == (betas[np.ix_(rows, columns)] == 0))
            else:
                assert np.isnan(here).all()


def test_intervals_hold_the_true_coefficients(base):
    """Of the model that the tissue was simulated from; a regulator that was not found counts as outside."""
    adata = base.copy()
    grn, _, ligand_tf = st.datasets.simulated_priors(base)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, main_effects=False)
    fitted = _fit(adata, uncertainty=True)
    sd, betas, truth = fitted.obsm["betas_sd"], fitted.obsm["betas"], fitted.obsm["true_betas"]
    active = truth.any(axis=0) & (fitted.uns["betas"]["terms"]["kind"] != "intercept").to_numpy()
    inside = np.abs(betas - truth)[:, active] <= 1.96 * sd[:, active]
    assert np.nanmean(inside) > 0.7


def test_all_bodies_compete(base):
    network = st.nn.NetworkConfig(n_epochs=2, batch_size=128, device="cpu")
    out = _fit(base, ["PAX5", "CD79A"], body="auto", network=network)
    stored = out.uns["betas"]
    for name in ("zero", "seed", "surface", "kept", "train_seed", "train_surface"):
        assert stored["scores"][f"r2_{name}"].notna().all(), name
    assert set(stored["scores"]["kept"]) <= {"zero", "seed", "surface", "network"}
    # a network is scored for the targets that keep it in some type
    winners = stored["scores"].loc[stored["scores"]["kept"] == "network", "target"]
    for name in ("network", "train_network"):
        assert set(stored["scores"].loc[stored["scores"][f"r2_{name}"].notna(), "target"]) == set(winners)
    assert list(stored["training"]["target"].unique()) == ["PAX5", "CD79A"]
    assert stored["training"].groupby("target", observed=True).size().nunique() == 1
    assert stored["params"]["network"]["n_epochs"] == 2
    assert stored["params"]["network"]["body"] == "cnn"
    # on fields that vary with position, not what a type alone explains
    assert stored["scores"]["kept"].isin(["surface", "network"]).mean() > 0.5


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
def test_vision_transformer(base, mode):
    network = st.nn.NetworkConfig(body="vit", mode=mode, n_epochs=1, batch_size=128, device="cpu")
    out = _fit(base, "PAX5", body="vit", network=network)
    scores = out.uns["betas"]["scores"]
    assert scores["r2_network"].notna().all()
    assert scores["r2_surface"].isna().all()
    assert np.isfinite(out.obsm["betas"]).all()


def test_the_network_is_the_one_that_was_asked_for(base, monkeypatch):
    seen = []
    monkeypatch.setattr(fitting, "fit_targets", lambda inputs, options, *_, **__: seen.append(options) or 1 / 0)
    for body, network, expected in (
        ("vit", st.nn.NetworkConfig(encoder="per_target"), ("vit", "per_target")),
        ("auto", st.nn.NetworkConfig(body="vit"), ("vit", "shared")),
        ("auto", None, ("cnn", "shared")),
    ):
        with pytest.raises(ZeroDivisionError):
            _fit(base, "PAX5", body=body, network=network)
        assert (seen[-1].network.body, seen[-1].network.encoder) == expected
    with pytest.raises(ValueError, match=r"Expected `network.body` to be 'cnn' like `body`, found 'vit'"):
        _fit(base, "PAX5", body="cnn", network=st.nn.NetworkConfig(body="vit"))
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="`network` has no effect with body='seed'"):
        out = _fit(base, "PAX5", body="seed", network=st.nn.NetworkConfig())
    assert out.uns["betas"]["params"]["network"] == {}


def test_a_later_fit_without_uncertainty_leaves_no_old_deviations(fitted):
    adata = fitted.copy()
    st.tl.fit_betas(adata, "PAX5", body="seed")
    assert "betas_sd" not in adata.obsm
    assert adata.obsm["betas"].shape[1] == len(adata.uns["betas"]["terms"])


def test_scores_against_raw_expression(base, fitted):
    scores = fitted.uns["betas"]["scores"]
    assert scores["r2_kept_raw"].notna().all()
    assert not np.allclose(scores["r2_kept_raw"], scores["r2_kept"])
    same = _fit(base, "PAX5", body="seed", raw_layer="X").uns["betas"]["scores"]
    np.testing.assert_allclose(same["r2_kept_raw"], same["r2_kept"], atol=1e-6)
    assert "r2_kept_raw" not in _fit(base, "PAX5", body="seed").uns["betas"]["scores"]


def test_raw_scores_are_those_of_the_targets_asked_for(base, fitted):
    swapped = _fit(base, ["CD19", "PAX5"], raw_layer="noise_free").uns["betas"]["scores"].set_index("target")
    whole = fitted.uns["betas"]["scores"].set_index("target")
    for target in ("CD19", "PAX5"):
        np.testing.assert_allclose(swapped.loc[target, "r2_kept_raw"], whole.loc[target, "r2_kept_raw"], atol=1e-5)


def test_key_added_and_copy(ready):
    before = ready.copy()
    assert st.tl.fit_betas(ready, "PAX5", body="seed", key_added="mine") is None
    assert "betas" not in ready.obsm
    assert "betas" not in ready.uns
    assert st.get.betas(ready, "PAX5", betas_key="mine").shape[0] == 240
    out = st.tl.fit_betas(before, "PAX5", body="seed", copy=True)
    assert "betas" in out.obsm
    assert "betas" not in before.obsm


def test_other_layer_and_cell_types(ready):
    ready.layers["doubled"] = 2 * ready.layers["log1p"]
    st.pp.received_ligands(ready, ready.uns["simulation"]["ligand_receptor"], layer="doubled")
    ready.obs["half"] = pd.Categorical(np.where(np.arange(240) % 3 == 0, "left/right", "right"))
    out = _fit(ready, "PAX5", body="seed", layer="doubled", cluster_key="half")
    assert out.uns["betas"]["params"]["layer"] == "doubled"
    assert set(out.uns["betas"]["scores"]["cell_type"]) == {"left/right", "right"}


def test_a_subset_of_the_cells_works(base):
    out = _fit(base[::2].copy(), "PAX5", body="seed")
    assert out.obsm["betas"].shape[0] == 120


def test_seeds_without_cell_types(base):
    adata = base.copy()
    adata.uns["modulators"]["params"]["cluster_key"] = ""
    scores = _fit(adata, "PAX5", body="seed").uns["betas"]["scores"]
    assert scores["cell_type"].tolist() == ["all"]


# results depend on nothing but the data and the seed


@pytest.mark.parametrize("body", ["surface", "seed"])
@pytest.mark.parametrize("change", [{"n_jobs": 2}, {"block_size": 1}, {"block_size": 3, "n_jobs": 2}])
def test_threads_and_blocks_do_not_matter(base, fitted, body, change):
    whole = fitted if body == "surface" else _fit(base, body="seed")
    _same(_fit(base, body=body, **change), whole)


@pytest.mark.parametrize("body", ["surface", "seed"])
def test_order_and_choice_of_targets_do_not_matter(base, fitted, body):
    whole = fitted if body == "surface" else _fit(base, body="seed")
    few = ["CD19", "PAX5"]
    out = _fit(base, few, body=body)
    assert list(dict.fromkeys(out.uns["betas"]["terms"]["target"])) == few
    _same(out, whole, few)


@pytest.mark.filterwarnings("ignore:adata.layers.*imputed:UserWarning")
def test_rounding_of_imputed_values_does_not_show():
    """Imputed regulators go along with each other, so a fit that stops early is anywhere in a long valley."""
    adata = st.datasets.simulated_tissue(n_cells=400, n_targets=3, rng=0)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    fits = []
    for order in (np.arange(adata.n_vars), np.random.default_rng(0).permutation(adata.n_vars)):
        section = adata[:, order].copy()
        st.pp.impute(section, layer="log1p", n_jobs=1)
        st.pp.received_ligands(section, lr, layer="imputed")
        st.pp.modulators(section, grn, ligand_tf=ligand_tf)
        st.tl.fit_betas(section, body="seed", n_jobs=1)
        fits.append(section)
    for target in st.get.scores(fits[0])["target"].unique():
        a, b = (st.get.betas(section, target) for section in fits)
        assert np.abs(a - b[a.columns]).to_numpy().max() < 5e-4 * np.abs(a).to_numpy().max()


def test_order_of_genes_does_not_matter(base, fitted):
    order = np.random.default_rng(0).permutation(base.n_vars)
    _same(_fit(base[:, order].copy()), fitted)


@pytest.fixture(scope="module")
def networks(base):
    """Independent networks with a step large enough that they are kept somewhere."""
    return _network(base)


def _network(adata, targets=None, *, device="cpu", **options):
    config = st.nn.NetworkConfig(**FEW_EPOCHS, learning_rate=0.02, device=device)
    return _fit(adata, targets, **{"body": "cnn", "network": config, **options})


@pytest.mark.parametrize("change", [{"n_jobs": 2}, {"block_size": 1}, {"targets": TARGETS[::-1]}])
def test_networks_of_their_own_depend_on_nothing_else_either(base, networks, change):
    assert (networks.uns["betas"]["scores"]["kept"] == "network").any()
    _same(_network(base, **change), networks, atol=1e-4)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_processor_gives(base, networks, tmp_path):
    """Also when it takes over half-way."""
    store = tmp_path / "betas.zarr"
    _network(base, block_size=2, store=store)
    shutil.rmtree(store / "block_00001")
    out = _network(base, block_size=2, store=store, device="cuda")
    expected = networks.uns["betas"]["scores"]
    np.testing.assert_allclose(out.uns["betas"]["scores"]["r2_network"], expected["r2_network"], atol=0.05)
    assert np.corrcoef(out.obsm["betas"].compute().ravel(), networks.obsm["betas"].ravel())[0, 1] > 0.95


def test_networks_depend_on_the_seed(base, networks):
    other = _network(base, ["PAX5"], rng=1)
    curves = [a.uns["betas"]["training"].query("target == 'PAX5'")["train"].to_numpy() for a in (networks, other)]
    assert not np.allclose(*(c[:2] for c in curves))


def test_a_generator_stands_for_one_seed(base):
    first, again, other = (_fit(base, "PAX5", body="seed", rng=np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(first.obsm["betas"], again.obsm["betas"])
    assert first.uns["betas"]["params"]["rng_seed"] != other.uns["betas"]["params"]["rng_seed"]


def test_moving_and_turning_the_tissue_does_not_matter(base):
    small = base[:140].copy()  # few enough that every cell is a landmark of the spatial functions
    moved = small.copy()
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    moved.obsm["spatial"] = small.obsm["spatial"] @ turn.T + [500.0, -80.0]
    _same(_fit(moved), _fit(small), atol=1e-3)


@pytest.mark.parametrize("options", [{"body": "surface"}, {"body": "auto", "store": True}])
def test_order_of_cells_genes_types_and_tables_does_not_matter(base, tmp_path, options):
    rng = np.random.default_rng(0)
    other = base[rng.permutation(base.n_obs), rng.permutation(base.n_vars)].copy()
    other.obs["cell_type"] = other.obs["cell_type"].cat.reorder_categories(TYPES[::-1])
    other.uns["modulators"]["table"] = other.uns["modulators"]["table"].sample(frac=1, random_state=0)
    results = []
    for i, adata in enumerate((base, other)):
        how = dict(options)
        if how.pop("store", False):
            network = st.nn.NetworkConfig(n_epochs=2, device="cpu")
            how |= {"store": tmp_path / str(i), "store_as": "bodies", "network": network}
        results.append(_fit(adata, uncertainty=True, **how))
    assert list(results[1].uns["betas"]["scores"]["cell_type"].cat.categories) == TYPES[::-1]
    for target in TARGETS:
        x, y = (st.get.betas(result, target) for result in results)
        largest = np.abs(x).to_numpy().max()
        np.testing.assert_allclose(y.loc[x.index, x.columns], x, atol=1e-3 * largest)
        tables = []
        for result in results:
            terms = result.uns["betas"]["terms"]
            tables.append(terms[terms["target"] == target].set_index(["kind", "tf", "ligand", "receptor", "range"]))
        for name in ("importance", "evidence", "active"):
            one, two = (table[name].astype(float) for table in tables)
            np.testing.assert_allclose(two.loc[one.index], one, rtol=1e-3)
        one, two = (
            st.get.scores(result, target=target).set_index("cell_type")["kept"].astype(str) for result in results
        )
        assert one.to_dict() == two.to_dict()
    sd = [np.asarray(result.obsm["betas_sd"]) for result in results]
    np.testing.assert_allclose(np.sort(sd[0], axis=None), np.sort(sd[1], axis=None), rtol=1e-3, atol=1e-6)


def test_the_deviation_of_an_intercept_is_that_of_its_own_units(base):
    """Where no regulator is near zero, the level at zero is an extrapolation."""
    moved = base.copy()
    tfs = [g for g in base.uns["modulators"]["table"]["tf"].unique() if g]
    columns = moved.var_names.get_indexer(tfs)
    moved.layers["log1p"] = np.asarray(moved.layers["log1p"]).copy()
    moved.layers["log1p"][:, columns] += 10
    moved.uns["modulators"]["table"] = moved.uns["modulators"]["table"].query("kind == 'tf'")
    plain = moved.copy()
    plain.layers["log1p"][:, columns] -= 10
    near, far = (_fit(adata, "PAX5", uncertainty=True).obsm["betas_sd"] for adata in (plain, moved))
    np.testing.assert_allclose(far[:, 1:], near[:, 1:], rtol=0.01, atol=1e-4)
    assert np.nanmedian(far[:, 0]) > 5 * np.nanmedian(near[:, 0])
    assert np.nanmedian(far[:, 0]) < 20 * np.nanmedian(np.linalg.norm(near[:, 1:], axis=1))


def test_who_asks_for_a_network_and_gets_seeds_is_told(base, caplog):
    network = st.nn.NetworkConfig(n_epochs=1, learning_rate=1e-9, device="cpu")
    with caplog.at_level("WARNING", logger="spacetravlr"):
        out = _fit(base, ["PAX5", "CD19"], body="cnn", network=network)
    kept = int((out.uns["betas"]["scores"]["kept"] == "network").sum())
    assert kept <= 1  # what it adds to the seed is there from the start, and may predict two folds better by chance
    assert f"'cnn' was requested, but the network is kept for only {kept} of 6 target-cell type pairs" in caplog.text


def test_units_of_the_coordinates_do_not_matter(base, fitted):
    adata = _simulate()
    adata.obsm["spatial"] = adata.obsm["spatial"] / 1000  # millimetres
    _prepare(adata, microns_per_unit=1000)
    _same(_fit(adata), fitted, atol=1e-3)


# several slides, three dimensions, containers


@pytest.mark.parametrize("n_dims", [2, 3])
def test_several_slides(n_dims):
    adata = _prepare(_simulate(n_slides=2, n_dims=n_dims, n_targets=2), library_key="slide")
    st.tl.fit_betas(adata, n_jobs=1, body="cnn" if n_dims == 3 else "surface",
                    network=st.nn.NetworkConfig(n_epochs=1, device="cpu") if n_dims == 3 else None)  # fmt: skip
    assert np.isfinite(adata.obsm["betas"]).all()
    scores = adata.uns["betas"]["scores"]
    assert (scores["n_report"] > 0).all()
    assert scores["r2_kept"].notna().all()


def test_where_a_slide_lies_does_not_matter():
    adata = _prepare(_simulate(n_slides=2, n_targets=2), library_key="slide")
    moved = adata.copy()
    moved.obsm["spatial"][(adata.obs["slide"] == "slide 2").to_numpy()] += 1e5
    _same(_fit(moved), _fit(adata), ["PAX5", "CD79A"], atol=1e-3)


def test_spatialdata(base):
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    table = base.copy()
    del table.uns["simulation"]
    sdata = SpatialData(tables={"cells": TableModel.parse(table)})
    st.tl.fit_betas(sdata, "PAX5", body="seed")
    _same(sdata.tables["cells"], _fit(base, "PAX5", body="seed"), ["PAX5"])


@pytest.mark.parametrize("what, suffix", [("surface", ".h5ad"), ("surface", ".zarr"), ("network", ".h5ad")])
def test_round_trip(fitted, networks, tmp_path, what, suffix):
    adata = fitted if what == "surface" else networks
    st.io.write(adata, tmp_path / f"fit{suffix}")
    back = st.io.read(tmp_path / f"fit{suffix}")
    for key in [k for k in ("betas", "betas_sd") if k in adata.obsm]:
        np.testing.assert_array_equal(back.obsm[key], adata.obsm[key])
    for table in ("terms", "scores", "training"):
        expected = adata.uns["betas"][table]
        pd.testing.assert_frame_equal(back.uns["betas"][table].astype(object), expected.astype(object))
    assert "T/NK" in set(back.uns["betas"]["scores"]["cell_type"])
    assert back.uns["betas"]["params"]["rng_seed"] == 0
    _same(back, adata)
    st.tl.perturb(back, {"FOXO1": 0})
    st.tl.perturb(adata_copy := adata.copy(), {"FOXO1": 0})
    np.testing.assert_allclose(back.layers["perturbed"], adata_copy.layers["perturbed"], atol=1e-6)


# Dask


def test_dask_workers_give_the_same(base, fitted, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        out = _fit(base, client=client, block_size=2, store=tmp_path / "betas.zarr")
    _same(out, fitted)
    assert len(list((tmp_path / "betas.zarr").glob("block_*"))) == 2


# bad input


def _drop(attr, key):
    def change(adata):
        del getattr(adata, attr)[key]

    return change


def _nan(adata):
    adata.layers["log1p"][3, adata.var_names.get_loc("PAX5")] = np.nan


def _negative(adata):
    adata.layers["log1p"][3, adata.var_names.get_loc("FOXO1")] = -1


def _coordinates(adata):
    adata.obsm["spatial"][5, 0] = np.inf


def _double_obs(adata):
    adata.obs_names = [adata.obs_names[1], *adata.obs_names[1:]]


def _double_var(adata):
    adata.var_names = ["FOXO1", *adata.var_names[:-1]]


def _other_cells(adata):
    adata.obs_names = [f"other{i}" for i in range(adata.n_obs)]


def _unlabelled(adata):
    adata.obs.loc[adata.obs_names[3], "cell_type"] = np.nan


def _no_modulators(adata):
    adata.uns["modulators"]["table"] = adata.uns["modulators"]["table"].iloc[:0]


def _no_such_gene(adata):
    table = adata.uns["modulators"]["table"]
    adata.uns["modulators"]["table"] = table.astype(str).replace("FOXO1", "FOXO11")


@pytest.mark.parametrize(
    "change, error, message",
    [
        (_drop("uns", "modulators"), KeyError, r"Call `st\.pp\.modulators\(adata, grn\)` first"),
        (_drop("uns", "received_ligands"), KeyError, r"Call `st\.pp\.received_ligands\(adata, lr\)` first"),
        (_drop("uns", "spatial_weights"), KeyError, r"Call `st\.pp\.spatial_weights\(adata\)` first"),
        (_drop("obsm", "spatial"), KeyError, "Key 'spatial' .* not found in adata.obsm"),
        (_drop("layers", "log1p"), KeyError, r"Key 'log1p' \(`layer`\) not found in adata.layers"),
        (_drop("obs", "cell_type"), KeyError, r"Key 'cell_type' \(`cluster_key`\) not found in adata.obs"),
        (_nan, ValueError, r"Expected expression in adata.layers\['log1p'\] to be finite"),
        (
            _negative,
            ValueError,
            r"Expected expression in adata.layers\['log1p'\] to be at least zero, found values down to -1",
        ),
        (_coordinates, ValueError, "to be finite, found NaN or infinite values in 1 cells"),
        (_double_obs, ValueError, "Expected adata.obs_names to be unique, found 'cell0+1' more than once"),
        (_double_var, ValueError, "Expected adata.var_names to be unique, found 'FOXO1' more than once"),
        (_other_cells, ValueError, r"it belongs to other cells\. Call `st\.pp\.received_ligands"),
        (_unlabelled, ValueError, "to label every cell, found 1 without a label"),
        (_no_modulators, ValueError, r"Expected adata.uns\['modulators'\] to hold modulators, found an empty table"),
        (_no_such_gene, KeyError, r"unknown 'FOXO11' \(closest: .*FOXO1"),
    ],
)
def test_input_that_cannot_be_used(ready, change, error, message):
    change(ready)
    before = None if change in (_double_obs, _double_var) else ready.copy()
    with pytest.raises(error, match=message):
        st.tl.fit_betas(ready, body="seed")
    assert "betas" not in ready.uns
    if before is not None:
        assert_equal(ready, before)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"targets": ["PAX5", "CD79B"]}, KeyError, r"Expected `targets` .* found unknown 'CD79B' \(closest: CD79A"),
        ({"targets": ["FOXO1"]}, ValueError, "Expected every target to have modulators, found none for 'FOXO1'"),
        ({"targets": []}, ValueError, "Expected `targets` to name at least one gene, found an empty list"),
        ({"body": "forest"}, ValueError, "Expected `body` to be one of 'auto', 'surface'.*found `'forest'`"),
        ({"solver": "lars"}, ValueError, "Expected `solver` to be one of"),
        ({"n_folds": 1}, ValueError, "Expected `n_folds` to be between 2 and 20, found `1`"),
        ({"block_size": 0}, ValueError, "Expected `block_size` to be positive"),
        ({"min_cells": -1}, ValueError, "Expected `min_cells` to be finite and at least zero"),
        ({"group_penalty": -0.1}, ValueError, "Expected `group_penalty` to be finite and at least zero"),
        ({"l1_penalty": np.nan}, ValueError, "Expected `l1_penalty` to be finite and at least zero"),
        ({"score_threshold": 2.0}, ValueError, "Expected `score_threshold` to be between"),
        ({"n_jobs": 0}, ValueError, "Expected `n_jobs` to be a non-zero integer"),
        ({"layer": "imputed"}, KeyError, r"Key 'imputed' \(`layer`\)"),
        ({"raw_layer": "counts"}, KeyError, r"Key 'counts' \(`layer`\)"),
        ({"cluster_key": "leiden"}, KeyError, r"Key 'leiden' \(`cluster_key`\)"),
        ({"modulators_key": "mine"}, KeyError, r"Key 'mine' \(`modulators_key`\)"),
    ],
)
def test_options_that_cannot_be_used(base, options, error, message):
    before = base.copy()
    with pytest.raises(error, match=message):
        st.tl.fit_betas(base, **options)
    assert_equal(base, before)


def test_too_few_cells(base):
    with pytest.raises(ValueError, match="Expected at least 16 cells for `n_folds=3`, found 12"):
        _fit(base[:12].copy())


def test_counts_are_warned_about(ready):
    ready.layers["counts"] = np.round(ready.layers["log1p"])
    with pytest.warns(UserWarning, match="whole numbers only"):
        st.pp.received_ligands(ready, ready.uns["simulation"]["ligand_receptor"], layer="counts")
    with pytest.warns(UserWarning, match=r"adata.layers\['counts'\] holds whole numbers only"):
        _fit(ready, "PAX5", body="seed", layer="counts")


def test_other_objects(base):
    with pytest.raises(TypeError, match="Expected `adata` to be AnnData or SpatialData, found `DataFrame`"):
        st.tl.fit_betas(base.to_df())


def test_a_fit_that_fails_leaves_everything(ready, monkeypatch):
    before = ready.copy()

    def fail(*_, **__):
        msg = "no memory"
        raise MemoryError(msg)

    monkeypatch.setattr(fitting, "fit_targets", fail)
    with pytest.raises(MemoryError, match="no memory"):
        st.tl.fit_betas(ready, body="seed")
    assert_equal(ready, before)


def test_sparse_and_single_precision_layers(base, fitted):
    from scipy import sparse

    for kind in (sparse.csr_matrix, sparse.csc_matrix, lambda x: x.astype(np.float64)):
        adata = base.copy()
        adata.layers["log1p"] = kind(adata.layers["log1p"])
        _same(_fit(adata, "PAX5"), fitted, ["PAX5"])


def test_a_constant_target_and_a_constant_regulator(ready):
    ready.layers["log1p"][:, ready.var_names.get_loc("PAX5")] = 0
    ready.layers["log1p"][:, ready.var_names.get_loc("FOXO1")] = 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = _fit(ready)
    scores = st.get.scores(out, target="PAX5")
    assert (scores["kept"] == "zero").all()
    assert np.all(st.get.betas(out, "PAX5").to_numpy() == 0)
    assert np.all(st.get.betas(out, "CD79A")["beta_FOXO1"] == 0)
    assert np.isfinite(out.obsm["betas"]).all()
