"""A fit again on two halves of its counts."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spacetravlr as st
from spacetravlr._core.noise import counting_scale
from spacetravlr.models._replicate import Agreement, Recipe, agreement, over_splits

_NO_REGULATION = {"n_active_tfs": 0, "n_active_pairs": 0, "n_active_ligand_tf": 0}


def fitted(*, seed: bool = False, **simulated) -> AnnData:
    adata = st.datasets.simulated_tissue(**{"n_cells": 600, "n_targets": 4, "depth": 3.0} | simulated)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    options = {"body": "seed", "l1_penalty": 0.02, "group_penalty": 0.02} if seed else {"counts_layer": "counts"}
    st.tl.fit_betas(adata, layer="log1p", n_jobs=1, **options)
    return adata


@pytest.fixture(scope="module")
def _measured() -> AnnData:
    return fitted()


@pytest.fixture
def measured(_measured) -> AnnData:
    """Fit of counts, with their noise."""
    return _measured.copy()


@pytest.fixture(scope="module")
def _seeds() -> AnnData:
    return fitted(seed=True, n_cells=200, n_targets=2)


@pytest.fixture
def seeds(_seeds) -> AnnData:
    """Fit of values taken as exact."""
    return _seeds.copy()


def by_hand(adata: AnnData, half: str, **options) -> AnnData:
    """The steps of a user on one half of the counts."""
    table = adata.copy()
    st.pp.split_counts(table, counts_layer="counts", rng=0)
    design = Recipe.read(adata, counts_layer="counts")
    counts = table.layers["counts"][:, design.genes].toarray()
    scale = counting_scale(table.layers["log1p"][:, design.genes].astype(np.float64), counts)
    split = table.layers[f"counts_{half}"].toarray()
    table.layers["half"] = np.log1p(2 * scale[:, None] * split).astype(np.float32)
    st.pp.received_ligands(table, st.datasets.simulated_priors(adata).ligand_receptor, layer="half")
    st.tl.fit_betas(table, layer="half", n_jobs=1, **options)
    return table


@pytest.mark.slow
def test_halves_are_fitted_as_by_hand(measured):
    recipe = Recipe.read(measured, n_jobs=1)
    replicas = [recipe.replay(half) for half in recipe.halves(np.random.default_rng(0))]
    hands = [by_hand(measured, half, counts_layer=f"counts_{half}") for half in "ab"]
    for replica, hand in zip(replicas, hands, strict=True):
        np.testing.assert_array_equal(replica.adata.obsm["betas"], hand.obsm["betas"])
        for table in ("terms", "scores"):
            pd.testing.assert_frame_equal(
                replica.adata.uns["betas"][table], hand.uns["betas"][table], check_categorical=False
            )
    st.tl.replicate(measured, genes=["FOXO1", "CXCL13"], n_jobs=1)
    found = measured.uns["replicate"]["effects"]
    targets = list(measured.uns["replicate"]["targets"].index)
    # a replay holds the genes of the model alone, so these are what tells what to expect of a cell
    hands = [hand[:, replica.adata.var_names].copy() for replica, hand in zip(replicas, hands, strict=True)]
    for gene in found.index:
        a, b = (
            st.tl.perturb_batch(hand, [gene], n_jobs=1)[0].change_frame()[[t for t in targets if t != gene]].to_numpy()
            for hand in hands
        )
        assert found.loc[gene, "cell_effects"] == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
        assert found.loc[gene, "mean_effects"] == pytest.approx(agreement(a.mean(axis=0), b.mean(axis=0)), abs=1e-5)


def test_recorded_options_are_replayed(seeds):
    recipe = Recipe.read(seeds, counts_layer="counts", n_jobs=1)
    replica = recipe.replay(recipe.halves(np.random.default_rng(0))[0])
    hand = by_hand(seeds, "a", body="seed", l1_penalty=0.02, group_penalty=0.02)
    np.testing.assert_array_equal(replica.adata.obsm["betas"], hand.obsm["betas"])
    assert replica.fit.params["noise"] == "none"


def test_networks_are_trained_as_they_were(seeds):
    from spacetravlr.models.fit._options import FitOptions

    network = st.nn.NetworkConfig(n_epochs=2, width=4, device="cpu", trainer_kwargs={"max_time": "00:01:00:00"})
    options = FitOptions(body="vit", network=network).checked()
    seeds.uns["betas"]["params"] |= {"body": "vit", "network": options.network.plain()}
    again = Recipe.read(seeds, counts_layer="counts").options.checked()
    assert again.network.model_settings() == options.network.model_settings()
    assert again.network.device == "cpu"


def test_predictions_are_scored_on_the_other_half(seeds):
    """On their own half, predictions of reporting cells have the score that the fit reports."""
    recipe = Recipe.read(seeds, counts_layer="counts", n_jobs=1)
    fit = recipe.replay(recipe.halves(np.random.default_rng(0))[0]).fit
    inputs = fit.inputs
    y = inputs.expression[inputs.report][:, inputs.targets.gene].astype(float)
    types = inputs.cell_type[inputs.report]
    scores = st.models._held_out.target_scores(fit.result.scores).set_index("target")
    for t, name in enumerate(inputs.target_names):
        mean = pd.Series(y[:, t]).groupby(types).transform("mean")
        expected = 1 - ((y[:, t] - fit.result.held_out[:, t]) ** 2).sum() / ((y[:, t] - mean) ** 2).sum()
        assert scores.loc[name, "r2_kept"] == pytest.approx(expected, abs=1e-4)


def test_regulation_comes_out_again(measured):
    before = measured.copy()
    st.tl.replicate(measured, n_jobs=1)
    targets, effects = (measured.uns["replicate"][name] for name in ("targets", "effects"))
    assert len(effects) == 20
    assert effects["mean_effects"].median() > 0.5
    assert effects["cell_effects"].median() > 0.5
    assert targets["reliability"].between(0.3, 0.9).all()
    found = targets[targets["coefficients"].notna()]
    assert len(found) >= 2
    assert (found["coefficients"] > 0.5).all()
    assert found["active_jaccard"].mean() > 0.3
    assert (found["explained"] > found["r2"]).all()
    np.testing.assert_allclose(targets["explained"], targets["r2"] / targets["reliability"])
    # all else is as it was
    del measured.uns["replicate"]
    for attribute in ("layers", "obsm", "obsp", "uns", "obs", "var"):
        assert list(getattr(measured, attribute)) == list(getattr(before, attribute))
    np.testing.assert_array_equal(measured.obsm["betas"], before.obsm["betas"])
    assert measured.uns["modulators"]["params"] == before.uns["modulators"]["params"]


def test_nothing_comes_out_of_nothing():
    adata = fitted(**_NO_REGULATION)
    st.tl.replicate(adata, n_jobs=1)
    found = adata.uns["replicate"]
    assert (found["targets"]["r2"] < 0.02).all()
    assert found["effects"]["size"].max() < 0.02


def test_several_splits(seeds, tmp_path: Path):
    out = st.tl.replicate(seeds, counts_layer="counts", n_splits=2, genes="FOXO1", rng=3, n_jobs=1, copy=True)
    assert "replicate" not in seeds.uns
    found = out.uns["replicate"]
    one = st.tl.replicate(seeds, counts_layer="counts", genes="FOXO1", rng=3, n_jobs=1, copy=True).uns["replicate"]
    assert "r2_sd" not in one["targets"]
    assert (found["targets"]["r2_sd"] > 0).all()
    assert (found["targets"]["r2"] - one["targets"]["r2"]).abs().max() < 3 * found["targets"]["r2_sd"].max()
    assert {"mean_effects_sd", "cell_effects_sd", "size_sd"} <= set(found["effects"])
    out.write_h5ad(tmp_path / "replicate.h5ad")
    back = ad.read_h5ad(tmp_path / "replicate.h5ad").uns["replicate"]
    assert list(back["effects"].index) == ["FOXO1"]
    pd.testing.assert_frame_equal(
        back["targets"].select_dtypes("number"), found["targets"].select_dtypes("number"), check_index_type=False
    )
    assert dict(back["params"]) == {"betas_key": "betas", "counts_layer": "counts", "n_splits": 2, "rng_seed": 3}
    # so can a fit that was read from a file, with its counts in X
    again = ad.read_h5ad(tmp_path / "replicate.h5ad")
    again.X = again.layers.pop("counts").toarray()
    st.tl.replicate(again, counts_layer="X", genes=["FOXO1"], n_jobs=1)
    assert again.uns["replicate"]["params"]["counts_layer"] == "X"


def test_means_over_splits():
    def split(r2: float, reliability: float, kept: str, effect: float) -> Agreement:
        targets = pd.DataFrame({"r2": [r2], "reliability": [reliability], "explained": [9.0], "kept_a": [kept]}, ["A"])
        return Agreement(targets, pd.DataFrame({"mean_effects": [effect]}, ["G"]))

    targets, effects = over_splits(
        [split(0.1, 0.5, "seed", 1), split(0.3, 0.5, "zero", np.nan)] + [split(0.2, 0.5, "zero", 0)]
    )
    assert targets.loc["A", "r2"] == pytest.approx(0.2)
    assert targets.loc["A", "r2_sd"] == pytest.approx(0.1)
    assert targets.loc["A", "explained"] == pytest.approx(0.4)
    assert targets.loc["A", "kept_a"] == "zero"
    assert effects.loc["G", "mean_effects"] == 0.5
    assert np.isnan(over_splits([split(0.01, 0.01, "zero", 0)]).targets.loc["A", "explained"])


def test_agreement():
    a, b = np.array([1.0, 0, 2]), np.array([0.0, 3, 0])
    assert agreement(a, 2 * a) == pytest.approx(1)
    assert agreement(a, -a) == pytest.approx(-1)
    assert agreement(a, b) == 0
    assert agreement(a, 0 * a) == 0
    assert np.isnan(agreement(0 * a, 0 * a))


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({}, ValueError, "`counts_layer` to name the counts"),
        ({"counts_layer": "missing"}, KeyError, "`counts_layer`"),
        ({"counts_layer": "log1p"}, ValueError, "cannot be repeated"),
        ({"counts_layer": "counts", "n_splits": 0}, ValueError, "`n_splits`"),
        ({"counts_layer": "counts", "genes": ["FOXO2"]}, KeyError, "FOXO1"),
        ({"counts_layer": "counts", "betas_key": "none"}, KeyError, "fit_betas"),
    ],
)
def test_errors(seeds, options, error, match):
    with pytest.raises(error, match=match):
        st.tl.replicate(seeds, n_jobs=1, **options)


def test_what_cannot_be_replayed(seeds):
    transferred = st.tl.transfer_betas(seeds, seeds, copy=True)
    with pytest.raises(ValueError, match="transferred"):
        st.tl.replicate(transferred, counts_layer="counts")
    untold = seeds.copy()
    untold.uns["betas"] = untold.uns["betas"] | {"params": untold.uns["betas"]["params"].copy()}
    del untold.uns["betas"]["params"]["rng_seed"]
    with pytest.raises(ValueError, match="'rng_seed'"):
        st.tl.replicate(untold, counts_layer="counts")
    imputed = seeds.copy()
    imputed.layers["log1p"] = st.pp.impute(seeds, layer="log1p", n_jobs=1, copy=True).layers["imputed"]
    with pytest.raises(ValueError, match="Imputation"):
        st.tl.replicate(imputed, counts_layer="counts")
    changed = seeds.copy()
    scale = np.linspace(0.5, 2, changed.n_obs)[:, None]
    changed.layers["log1p"] = np.log1p(scale * changed.layers["counts"].toarray()).astype(np.float32)
    with pytest.raises(ValueError, match="what the coefficients were fitted on"):
        st.tl.replicate(changed, counts_layer="counts")
