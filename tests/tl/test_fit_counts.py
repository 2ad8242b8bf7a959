"""Fits to counts: what they find, what they must not find, and what they say about it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import spacetravlr as st

NOTHING = {"n_active_tfs": 0, "n_active_pairs": 0, "n_active_ligand_tf": 0}


def prepared(**options):
    adata = st.datasets.simulated_tissue(**({"n_cells": 1500, "n_targets": 4, "depth": 2.0, "programs": 0.4} | options))
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, layer="log1p", cluster_key="cell_type")
    return adata


def fit(adata, **options):
    st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False, n_jobs=1, **options)
    return adata.uns["betas"]


@pytest.fixture(scope="module")
def adata():
    return prepared(rng=0)


@pytest.fixture(scope="module")
def fitted(adata):
    out = adata.copy()
    fit(out, uncertainty=True)
    return out


def truth(adata):
    """Whether each term of the fit truly acts, and its true coefficients."""
    keys = ["target", "kind", "tf", "ligand", "receptor", "range"]
    simulated = adata.uns["simulation"]["terms"]
    of_row = {tuple(row): i for i, row in enumerate(simulated[keys].astype(str).to_numpy())}
    terms = adata.uns["betas"]["terms"]
    where = [of_row.get(tuple(row), -1) for row in terms[keys].astype(str).to_numpy()]
    betas = np.where(np.array(where) >= 0, np.asarray(adata.obsm["true_betas"])[:, where], 0.0)
    is_term = (terms["kind"] != "intercept").to_numpy()
    return np.abs(betas).max(axis=0) > 0, betas, is_term


def test_finds_regulators_and_their_size(fitted):
    acts, true_betas, is_term = truth(fitted)
    terms, betas = fitted.uns["betas"]["terms"], np.asarray(fitted.obsm["betas"])
    is_tf = (terms["kind"] == "tf").to_numpy()
    active = terms["active"].to_numpy()
    assert active[acts & is_tf].mean() > 0.5
    assert active[~acts & is_term].mean() < 0.05
    found, true = betas[:, acts & is_tf].mean(axis=0), true_betas[:, acts & is_tf].mean(axis=0)
    assert np.corrcoef(found, true)[0, 1] > 0.85
    assert 0.5 < (found @ true) / (true @ true) < 1.2
    # as exact values the same counts give coefficients that are too small
    naive = fitted.copy()
    st.tl.fit_betas(naive, body="pooled", noise="none", show_progress_bar=False, n_jobs=1)
    attenuated = np.asarray(naive.obsm["betas"])[:, acts & is_tf].mean(axis=0)
    assert attenuated @ true < 0.8 * (found @ true)


def test_a_pair_gets_no_credit_for_what_the_cell_sends_itself():
    """A ligand that is expressed together with the target is no signal from anybody."""
    options = {"n_cells": 2500, "n_targets": 6, "n_contact_pairs": 6, "depth": 7.0, "rng": 3, **NOTHING}
    adata = prepared(confounder="own_ligand", **options)
    found = {}
    for adjusted in (True, False):
        own = adata.copy()
        if not adjusted:
            table = own.uns["modulators"]["table"]
            own.uns["modulators"]["table"] = table[table["kind"] != "ligand"]
        terms = fit(own)["terms"]
        contact = terms[terms["range"] == "contact"]
        found[adjusted] = (contact["p"] < 0.01).mean()
    assert found[True] < 0.05
    assert found[False] > 0.2


def test_scores_say_what_could_be_explained(fitted):
    scores = st.get.scores(fitted, per="target").set_index("target")
    targets = list(scores.index)
    types = fitted.obs["cell_type"].to_numpy()
    measured, exact = (fitted[:, targets].to_df(layer) for layer in ("log1p", "exact"))
    within = [v - v.groupby(types).transform("mean") for v in (measured, exact)]
    # the part of the measured variance that goes along with what is meant
    share = (within[0] * within[1]).sum() ** 2 / ((within[0] ** 2).sum() * (within[1] ** 2).sum())
    np.testing.assert_allclose(scores["ceiling"], share, atol=0.1)
    np.testing.assert_allclose(scores["explained"], scores["r2_kept"] / scores["ceiling"], rtol=1e-6)
    assert (scores["explained_low"] < scores["explained"]).all()
    assert (scores["explained_high"] > scores["explained"]).all()
    assert (scores["r2_pooled"] > scores["r2_field"]).all()
    rows = st.get.scores(fitted)
    assert rows["ceiling"].between(0, 1).all()
    assert set(rows["kept"]) == {"pooled"}


def test_deviations_cover_the_truth(fitted):
    acts, true_betas, is_term = truth(fitted)
    kinds = fitted.uns["betas"]["terms"]["kind"].to_numpy()
    columns = is_term & ~np.isin(kinds, ["receptor", "ligand"])
    error = np.asarray(fitted.obsm["betas"])[:, columns] - true_betas[:, columns]
    inside = np.abs(error) < 1.645 * np.asarray(fitted.obsm["betas_sd"])[:, columns]
    assert 0.8 < inside.mean() <= 1.0
    assert inside[:, acts[columns]].mean() > 0.6


@pytest.mark.parametrize("confounder", [None, "smooth", "domains", "tf"])
def test_where_nothing_regulates_nothing_is_kept(confounder):
    adata = prepared(confounder=confounder, rng=7, **NOTHING)
    stored = fit(adata)
    assert (stored["scores"]["kept"].astype(str) == "zero").mean() >= 0.75
    terms = stored["terms"][stored["terms"]["kind"] != "intercept"]
    assert terms["active"].mean() < 0.01


def test_shuffled_targets_have_no_model(adata):
    shuffled = adata.copy()
    rng, types = np.random.default_rng(0), adata.obs["cell_type"].to_numpy()
    order = np.arange(adata.n_obs)
    for name in np.unique(types):
        rows = np.flatnonzero(types == name)
        order[rows] = rng.permutation(rows)
    targets = adata.var_names.get_indexer(["PAX5", "CD79A", "MS4A1", "CD19"])
    counts = adata.layers["counts"].toarray()
    counts[:, targets] = counts[np.ix_(order, targets)]
    values = np.asarray(adata.layers["log1p"]).copy()
    scale = 1 / (2.0 * adata.obs["size_factor"].to_numpy()[:, None])
    values[:, targets] = np.log1p(counts[:, targets] * scale)
    shuffled.layers["counts"], shuffled.layers["log1p"] = counts, values
    stored = fit(shuffled)
    assert (stored["scores"]["kept"].astype(str) == "zero").all()
    assert not np.asarray(shuffled.obsm["betas"])[:, (stored["terms"]["kind"] != "intercept").to_numpy()].any()


def test_a_target_that_is_a_regulator_lends_its_noise_to_none():
    """Its counts are in the tissue twice: as the target, and among the regulators that inform one another."""
    adata = prepared(rng=8, n_relays=2, **NOTHING)
    stored = fit(adata)
    relays = adata.var_names[adata.var["role"] == "ligand"]
    kept = stored["scores"].set_index("target")["kept"].astype(str)
    assert (kept[kept.index.isin(relays)] == "zero").all()


def test_the_order_of_cells_does_not_matter(adata, fitted):
    order = np.random.default_rng(1).permutation(adata.n_obs)
    moved = adata[order].copy()
    fit(moved)
    largest = np.abs(np.asarray(fitted.obsm["betas"])).max()
    np.testing.assert_allclose(moved.obsm["betas"], fitted.obsm["betas"][order], atol=1e-3 * largest)


def test_a_store_and_another_section_have_the_same_coefficients(adata, fitted, tmp_path):
    stored = adata.copy()
    fit(stored, store=tmp_path / "betas.zarr", block_size=2)
    np.testing.assert_allclose(np.asarray(stored.obsm["betas"]), fitted.obsm["betas"], atol=1e-5)
    query = adata.copy()
    with pytest.warns(UserWarning, match="not transferred"):
        st.tl.transfer_betas(fitted, query, position="same")
    np.testing.assert_allclose(query.obsm["betas"], fitted.obsm["betas"], atol=1e-4)


def test_other_logarithms_and_counts_elsewhere_give_the_same(adata, fitted):
    binary = adata.copy()
    binary.layers["log1p"] = adata.layers["log1p"] / np.log(2.0)
    binary.X = adata.layers["counts"]
    binary.uns["log1p"] = {"base": 2.0}
    lr = st.datasets.simulated_priors(adata).ligand_receptor
    st.pp.received_ligands(binary, lr, layer="log1p")
    st.tl.fit_betas(binary, counts_layer="X", show_progress_bar=False, n_jobs=1)
    kinds = adata.uns["modulators"]["table"]["kind"]
    assert (kinds == "tf").any()
    is_tf = (fitted.uns["betas"]["terms"]["kind"] == "tf").to_numpy()
    np.testing.assert_allclose(
        np.asarray(binary.obsm["betas"])[:, is_tf], fitted.obsm["betas"][:, is_tf], rtol=0.02, atol=5e-3
    )


def test_refuses_what_is_not_counts_of_the_layer(adata):
    bad = adata.copy()
    bad.layers["halves"] = adata.layers["counts"] * 0.5
    bad.layers["others"] = adata.layers["counts"][::-1]
    with pytest.raises(ValueError, match="whole numbers"):
        st.tl.fit_betas(bad, counts_layer="halves")
    with pytest.raises(ValueError, match="log1p of"):
        st.tl.fit_betas(bad, counts_layer="others")
    with pytest.raises(KeyError, match="counts_layer|nowhere"):
        st.tl.fit_betas(bad, counts_layer="nowhere")
    with pytest.raises(ValueError, match="treats values as exact"):
        st.tl.fit_betas(bad, counts_layer="counts", body="cnn")
    with pytest.raises(ValueError, match="counts_layer"):
        st.tl.fit_betas(bad, noise="poisson")
    assert "betas" not in bad.uns


def test_imputed_layers_are_named(adata):
    imputed = adata.copy()
    st.pp.impute(imputed, layer="log1p", key_added="imputed")
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(imputed, lr, layer="imputed")
    st.pp.modulators(imputed, grn, layer="imputed", cluster_key="cell_type")
    with pytest.warns(UserWarning, match="is imputed"):
        st.tl.fit_betas(imputed, targets=["PAX5"], body="seed", show_progress_bar=False, n_jobs=1)


def test_plot_of_scores_shows_the_ceiling(fitted):
    axes = st.pl.scores(fitted)
    assert "type, position and adjustment" in axes.get_xlabel()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("ceiling" in label for label in labels)


def test_the_estimator_of_one_target_takes_counts(adata, fitted):
    model = st.SpatialCellularProgramsEstimator(
        adata, "PAX5", counts_layer="counts", show_progress_bar=False, n_jobs=1
    ).fit()
    expected = st.get.betas(fitted, "PAX5")
    np.testing.assert_allclose(model.get_betas()["beta_FOXO1"], expected["beta_FOXO1"], atol=1e-4)


def test_what_is_kept_is_logged(adata, caplog):
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        fit(adata.copy(), targets=["PAX5"])
    assert "pooled" in caplog.text
