"""Errors of coefficients and of effects: from the fit to tables, through files, and where there are none."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import stats

import spacetravlr as st
from spacetravlr.models.perturb._sample_errors import effect_errors


def prepared(**options):
    defaults = {"n_cells": 900, "n_targets": 3, "n_tfs": 8, "n_active_tfs": 4, "depth": 4.0, "rng": 3}
    adata = st.datasets.simulated_tissue(**(defaults | options))
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, layer="log1p")
    return adata


@pytest.fixture(scope="module")
def fitted():
    adata = prepared()
    st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False, n_jobs=1, n_draws=20, uncertainty=True)
    return adata


@pytest.fixture(scope="module")
def gene(fitted):
    terms = fitted.uns["betas"]["terms"]
    tfs = terms[(terms["kind"] == "tf") & terms["active"].astype(bool)]
    return str(tfs.sort_values("p")["tf"].iloc[0])


def test_tables_tell_errors_of_every_regulator(fitted):
    table = st.get.modulators(fitted)
    for name in ("se", "low", "high", "p", "q"):
        assert table[name].notna().all()
    assert (table["low"] < table["high"]).all()
    assert table["q"].between(0, 1).all()
    overall = table[table["cell_type"] == "all"]
    np.testing.assert_array_equal(overall["active"], (overall["q"] <= 0.1) & (overall["importance"] > 0))
    # the error of the mean is no larger than that of a cell
    sd = np.asarray(fitted.obsm["betas_sd"])
    assert np.isfinite(sd).all()
    terms = fitted.uns["betas"]["terms"]
    is_term = (terms["kind"] != "intercept").to_numpy()
    assert (terms["se"][is_term] < 3 * sd[:, is_term].mean(axis=0)).all()


def test_draws_give_the_same_change_on_average_and_its_error(fitted, gene):
    adata = fitted.copy()
    st.tl.perturb(adata, gene, n_samples=20)
    samples = adata.uns["perturbed"]["samples"]
    targets = list(dict.fromkeys(adata.uns["betas"]["terms"]["target"].astype(str)))
    table = st.get.perturbation_effect(adata).query("group == 'all' and gene in @targets").set_index("gene")
    place = {g: i for i, g in enumerate(samples["genes"])}
    for name in targets:
        draws, change = samples["mean_change"][:, 0, place[name]], table.loc[name, "change"]
        assert abs(draws.mean() - change) < 0.5 * abs(change) + 4 * draws.std() / np.sqrt(20)
        assert table.loc[name, "se"] == pytest.approx(np.sqrt(((draws - change) ** 2).mean()), rel=1e-3)
    # of one round, the error of the mean change follows from the errors of the coefficients
    st.tl.perturb(adata, gene, n_samples=20, n_propagation=1)
    one = st.get.perturbation_effect(adata).query("group == 'all'").set_index("gene")
    terms = st.get.modulators(adata)
    own = terms[(terms["modulator"] == gene) & (terms["cell_type"] == "all")].set_index("target")
    level = float(np.asarray(adata[:, gene].layers["log1p"]).mean())
    for name in own.index:
        assert 0.4 < one.loc[name, "se"] / (own.loc[name, "se"] * level) < 2.0
    assert adata.layers["perturbed_se"].shape == adata.shape
    assert (adata.layers["perturbed_se"] >= 0).all()


def test_without_draws_there_are_no_errors_and_old_ones_go(fitted, gene):
    adata = fitted.copy()
    st.tl.perturb(adata, gene, n_samples=5)
    assert "perturbed_se" in adata.layers
    st.tl.perturb(adata, gene)
    assert "perturbed_se" not in adata.layers
    assert "samples" not in adata.uns["perturbed"]
    assert "se" not in st.get.perturbation_effect(adata)


def test_ranked_by_p_and_only_where_types_are_those_of_the_fit(fitted, gene):
    adata = fitted.copy()
    st.tl.perturb(adata, gene, n_samples=10)
    ranked = st.get.ranked_effects(adata)
    assert ranked["p"].is_monotonic_increasing
    assert gene not in set(ranked["gene"])
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    table = st.get.perturbation_effect(adata, groupby="half").set_index("group")
    assert table.loc["a", "se"].isna().all()
    assert table.loc["all", "se"].notna().any()
    by_hand = st.get.perturbation_effect(adata).query("perturbed")
    assert by_hand["p"].isna().all()


def test_a_screen_carries_errors(fitted, gene):
    screen = st.tl.genome_screen(fitted, genes=[gene, "FOXO1"], n_samples=10, show_progress_bar=False)
    alone = fitted.copy()
    st.tl.perturb(alone, gene, n_samples=10)
    single = st.get.perturbation_effect(alone).query("group == 'all' and not perturbed").set_index("gene")
    found = screen[gene, list(single.index)].layers["se"][0]
    np.testing.assert_allclose(found, single["se"], rtol=1e-4)
    assert np.isnan(screen[gene, gene].layers["q"]).all()
    of_type = st.get.screen(screen, cell_type="B cell")
    assert {"se", "q"} <= set(of_type.layers)
    assert {"se", "q"} <= set(st.get.ranked_effects(screen, cell_type="B cell").columns)


def test_screens_with_errors_resume(fitted, gene, tmp_path):
    first = st.tl.genome_screen(fitted, genes=[gene], save_to=tmp_path / "s", n_samples=4, show_progress_bar=False)
    again = st.tl.genome_screen(fitted, genes=[gene], save_to=tmp_path / "s", n_samples=4, show_progress_bar=False)
    np.testing.assert_array_equal(first.layers["se"], again.layers["se"])
    with pytest.raises(ValueError, match="n_samples"):
        st.tl.genome_screen(fitted, genes=[gene], save_to=tmp_path / "s", n_samples=5, show_progress_bar=False)


def test_errors_survive_files_and_any_number_of_threads(fitted, gene, tmp_path):
    fitted.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    other = fitted.copy()
    st.tl.perturb(back, gene, n_samples=6, n_jobs=2)
    st.tl.perturb(other, gene, n_samples=6, n_jobs=1)
    np.testing.assert_allclose(back.layers["perturbed_se"], other.layers["perturbed_se"], atol=1e-6)
    st.io.write(back, tmp_path / "a.zarr")
    again = st.io.read(tmp_path / "a.zarr")
    expected = st.get.perturbation_effect(other)
    found = st.get.perturbation_effect(again)
    np.testing.assert_allclose(found["se"], expected["se"], rtol=1e-4)
    np.testing.assert_allclose(st.get.modulators(again)["q"], st.get.modulators(fitted)["q"], rtol=1e-6)


def test_draws_in_a_store_are_those_in_memory(fitted, gene, tmp_path):
    stored = prepared()
    st.tl.fit_betas(
        stored, counts_layer="counts", store=tmp_path / "b.zarr", block_size=2, show_progress_bar=False, n_draws=20
    )
    memory = prepared()
    st.tl.fit_betas(memory, counts_layer="counts", block_size=2, show_progress_bar=False, n_draws=20)
    for adata in (stored, memory):
        st.tl.perturb(adata, gene, n_samples=5)
    np.testing.assert_allclose(stored.layers["perturbed_se"], memory.layers["perturbed_se"], atol=1e-5)
    np.testing.assert_allclose(st.get.modulators(stored)["p"], st.get.modulators(memory)["p"], rtol=1e-5)


def test_a_target_without_a_model_changes_by_nothing_with_an_error():
    adata = prepared(n_active_tfs=0, n_active_pairs=0, n_active_ligand_tf=0, n_cells=500)
    st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False, n_draws=10)
    terms = adata.uns["betas"]["terms"]
    assert not terms["active"][terms["kind"] != "intercept"].any()
    tf = str(terms["tf"][terms["kind"] == "tf"].iloc[0])
    st.tl.perturb(adata, tf, n_samples=10)
    targets = [g for g in adata.uns["perturbed"]["samples"]["genes"] if g != tf]
    change = adata[:, targets].layers["perturbed"] - adata[:, targets].layers["denoised"]
    np.testing.assert_allclose(change, 0, atol=1e-6)
    assert adata[:, targets].layers["perturbed_se"].max() > 0


@pytest.mark.parametrize(("n_samples", "match"), [(21, "n_draws=21"), (-1, "n_samples")])
def test_too_many_draws_are_an_error(fitted, gene, n_samples, match):
    with pytest.raises(ValueError, match=match):
        st.tl.perturb(fitted.copy(), gene, n_samples=n_samples)


def test_exact_bodies_keep_no_draws():
    adata = prepared(n_cells=200, n_targets=2)
    st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    with pytest.raises(ValueError, match="counts_layer"):
        st.tl.perturb(adata, "FOXO1", n_samples=5)
    assert "se" not in st.get.modulators(adata)


def test_closed_forms():
    draws = np.array([[1.0, -1.0, 4.0], [3.0, 1.0, 6.0]])
    found = effect_errors(np.array([2.0, 0.0, 3.0]), draws)
    np.testing.assert_allclose(found["se"], [1.0, 1.0, np.sqrt(5.0)])
    assert found["same_sign"][0] == 1
    assert np.isnan(found["same_sign"][1])
    assert found["p"][1] == 1  # nothing is claimed
    t = 5.0 / (np.sqrt(2.0) * np.sqrt(1.5))
    assert found["p"][2] == pytest.approx(2 * stats.t.sf(t, 1))
    # what is drawn to half its size is uncertain by its size, and its sign is sure
    sure = effect_errors(np.array([1.0]), np.random.default_rng(0).normal(2.0, 0.5, size=(50, 1)))
    assert sure["se"][0] > 1
    assert sure["p"][0] < 1e-3
