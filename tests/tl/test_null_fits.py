"""A fit again on targets that nothing can regulate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spacetravlr as st
from spacetravlr.models._null_fits import Exchange, empirical_p
from spacetravlr.models._replicate import Recipe


def fitted(*, body: str, **simulated) -> AnnData:
    adata = st.datasets.simulated_tissue(**{"n_cells": 250, "n_targets": 2, "depth": 5.0, "rng": 1} | simulated)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata, library_key="slide" if "n_slides" in simulated else None)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    options = {"l1_penalty": 0.02, "group_penalty": 0.02} if body == "seed" else {"counts_layer": "counts"}
    st.tl.fit_betas(adata, layer="log1p", body=body, n_jobs=1, **options)
    return adata


@pytest.fixture(scope="module")
def _seeds() -> AnnData:
    return fitted(body="seed")


@pytest.fixture
def seeds(_seeds) -> AnnData:
    return _seeds.copy()


def test_targets_that_keep_their_counts_are_fitted_as_before(seeds):
    recipe = Recipe.read(seeds, counts_layer="counts", n_jobs=1)
    replica = recipe.replay_exchanged(recipe.target_counts)
    # as far as the solver goes: it starts elsewhere
    np.testing.assert_allclose(replica.adata.obsm["betas"], seeds.obsm["betas"], atol=1e-3)
    assert list(replica.adata.uns["betas"]["terms"]["target"].unique()) == list(recipe.exchanged_names.values())


def test_only_targets_are_exchanged(seeds):
    recipe = Recipe.read(seeds, counts_layer="counts", n_jobs=1)
    source = np.roll(np.arange(seeds.n_obs), 7)
    replica = recipe.replay_exchanged(recipe.target_counts[source]).adata
    own = list(recipe.exchanged_names)
    regulators = [g for g in replica.var_names if g not in recipe.exchanged_names.values()]
    dense = replica[:, regulators].layers["counts"].toarray()
    np.testing.assert_array_equal(dense, seeds[:, regulators].layers["counts"].toarray())
    got = replica[:, list(recipe.exchanged_names.values())].layers["counts"].toarray()
    np.testing.assert_array_equal(got, seeds[source, own].layers["counts"].toarray())


def test_names_of_exchanged_targets_are_new(seeds):
    seeds.var_names = [f"{name} exchanged" if name == "FOXO1" else name for name in seeds.var_names]
    names = Recipe.exchanged_names.fget
    taken = pd.Index(["PAX5", "PAX5 exchanged"])

    class Stub:
        _names = taken

        class model:  # noqa: N801
            genes = taken

            class design:  # noqa: N801
                class targets:  # noqa: N801
                    gene = np.array([0])

    assert names(Stub()) == {"PAX5": "PAX5 exchanged again"}


@pytest.mark.parametrize("null", ["moved", "shuffled"])
def test_cells_get_counts_of_their_type_and_slide(null):
    adata = fitted(body="seed", n_slides=2)
    exchange = Exchange.of(Recipe.read(adata, counts_layer="counts", n_jobs=1))
    source = exchange.draw(null, np.random.default_rng(0)).source
    np.testing.assert_array_equal(np.sort(source), np.arange(adata.n_obs))
    types, slides = adata.obs["cell_type"].to_numpy(), adata.obs["slide"].to_numpy()
    assert (types[source] == types).all()
    assert (source != np.arange(adata.n_obs)).mean() > 0.8
    if null == "moved":
        assert (slides[source] == slides).all()
        return
    depth = np.log(exchange.depth)
    assert (
        np.abs(depth[source] - depth).mean() < 0.3 * np.abs(depth - np.random.default_rng(0).permutation(depth)).mean()
    )


def test_regulation_is_found_and_not_where_there_is_none():
    adata = fitted(body="auto", n_cells=600, n_targets=2, depth=7.0)
    st.tl.null_fits(adata, n_fits=2, genes=["FOXO1"], n_jobs=1)
    found = adata.uns["null_fits"]
    assert found["summary"]["kept"] == 2
    assert found["summary"]["active"] > 5
    assert found["summary"]["null_kept"] <= 0.5
    assert found["summary"]["false_discovery"] < 0.12
    assert (found["targets"]["gain"] > 0.05).all()
    scores = st.get.scores(adata, per="target").set_index("target")
    np.testing.assert_allclose(found["targets"]["gain"], scores["gain"].reindex(found["targets"].index))
    rivals = scores[["r2_zero", "r2_field", "r2_adjusted"]]
    np.testing.assert_allclose(scores["gain"], scores["r2_pooled"] - rivals.max(axis=1))
    assert (found["targets"]["null_gain"] < 0.05).all()
    np.testing.assert_allclose(found["targets"]["p"], 1 / 3)
    assert found["effects"].loc["FOXO1", "size"] > 3 * found["effects"].loc["FOXO1", "null_size"]


def test_empirical_p_counts_the_observed():
    drawn = np.array([[0.0, 3.0, 1.0], [0.5, 2.0, 1.0], [0.2, 5.0, 1.0]])
    np.testing.assert_allclose(empirical_p(np.array([1.0, 2.5, np.nan]), drawn), [0.25, 0.75, np.nan])


def test_what_is_written(seeds, tmp_path):
    before = seeds.obsm["betas"].copy()
    out = st.tl.null_fits(seeds, "shuffled", counts_layer="counts", n_fits=2, genes="FOXO1", n_jobs=1, copy=True)
    assert "null_fits" not in seeds.uns
    np.testing.assert_array_equal(seeds.obsm["betas"], before)
    found = out.uns["null_fits"]
    assert list(found["effects"].index) == ["FOXO1"]
    assert found["targets"]["gain"].notna().all()  # of fits that are not to counts, too
    assert found["params"] == {
        "null": "shuffled", "n_fits": 2, "betas_key": "betas", "counts_layer": "counts", "rng_seed": 0,
    }  # fmt: skip
    for suffix in ("h5ad", "zarr"):
        st.io.write(out, tmp_path / f"null.{suffix}")
        back = st.io.read(tmp_path / f"null.{suffix}").uns["null_fits"]
        for name in ("targets", "effects"):
            pd.testing.assert_frame_equal(back[name], found[name], check_index_type=False)


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({}, ValueError, "`counts_layer` to name the counts"),
        ({"null": "rotated"}, ValueError, "`null`"),
        ({"counts_layer": "counts", "n_fits": 0}, ValueError, "`n_fits`"),
        ({"counts_layer": "counts", "genes": ["FOXO2"]}, KeyError, "FOXO1"),
    ],
)
def test_errors(seeds, options, error, match):
    with pytest.raises(error, match=match):
        st.tl.null_fits(seeds, n_jobs=1, **options)
