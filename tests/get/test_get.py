"""Results as tables, against numbers computed by hand."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st


def test_betas(adata):
    frame = st.get.betas(adata, "CD79A")
    assert isinstance(frame, st.BetaFrame)
    rows = (adata.uns["betas"]["terms"]["target"].astype(str) == "CD79A").to_numpy()
    np.testing.assert_array_equal(frame.to_numpy(), adata.obsm["betas"][:, rows])
    assert list(frame.index) == list(adata.obs_names)
    part = st.get.betas(adata[30:40].copy(), "CD79A")
    pd.testing.assert_frame_equal(pd.DataFrame(part), pd.DataFrame(frame.iloc[30:40]))
    with pytest.raises(KeyError, match=r"unknown 'CD79' \(closest: CD79A"):
        st.get.betas(adata, "CD79")


def test_derivatives(adata):
    found = st.get.derivatives(adata, "CD79A")
    expression = pd.DataFrame(adata.layers["log1p"], index=adata.obs_names, columns=adata.var_names)
    expected = st.get.betas(adata, "CD79A").splash(expression, adata.uns["received_ligands"])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-5)
    capped = st.get.derivatives(adata, "CD79A", beta_cap=0.01)
    assert capped.abs().to_numpy().max() <= 0.01 + 1e-6


@pytest.mark.parametrize("lazy", [False, True])
def test_modulators(adata, lazy):
    values = adata.obsm["betas"]
    if lazy:
        adata.obsm["betas"] = da.from_array(values, chunks=(-1, 7))
    table = st.get.modulators(adata)
    terms = adata.uns["betas"]["terms"].reset_index(drop=True)
    real = np.flatnonzero(terms["kind"] != "intercept")
    assert len(table) == 4 * len(real)
    assert table["cell_type"].tolist()[:4] == ["all", "T/NK", "B", "stroma"]
    for position, row in table.iterrows():
        column = real[position // 4]
        mask = np.ones(150, bool) if row["cell_type"] == "all" else (adata.obs["cell_type"] == row["cell_type"])
        chosen = values[np.asarray(mask), column]
        assert row["target"] == terms.loc[column, "target"]
        assert row["n_cells"] == len(chosen)
        np.testing.assert_allclose(
            row[["mean", "mean_abs", "sd"]].to_numpy(float),
            [chosen.mean(), np.abs(chosen).mean(), chosen.std()],
            atol=1e-5,
        )
        assert row["importance"] == terms.loc[column, "importance"]
        assert row["active"] == terms.loc[column, "active"]


def test_modulators_of_some_targets(adata):
    table = st.get.modulators(adata, target=["MS4A1", "PAX5"])
    assert table["target"].drop_duplicates().tolist() == ["MS4A1", "PAX5"]
    whole = st.get.modulators(adata)
    pd.testing.assert_frame_equal(
        table[table["target"] == "PAX5"].reset_index(drop=True),
        whole[whole["target"] == "PAX5"].reset_index(drop=True),
    )
    assert {"FOXO1", "CXCL12$CXCR4", "CCL19#STAT3"} <= set(table["modulator"])
    assert st.get.modulators(adata, target="PAX5").shape == (11 * 4, whole.shape[1])


def test_receptors_by_themselves(with_receptors):
    table = st.get.modulators(with_receptors, target="CD79A", effects=True)
    alone = table[(table["kind"] == "receptor") & (table["cell_type"] == "all")].set_index("modulator")
    assert {"CXCR4", "NOTCH1"} <= set(alone.index)
    expression = with_receptors[:, "CXCR4"].layers["log1p"].ravel()
    np.testing.assert_allclose(alone.loc["CXCR4", "modulator_sd"], expression.std(), rtol=1e-4)
    assert "beta_CXCR4" in st.get.betas(with_receptors, "CD79A")


def test_scores(adata):
    table = st.get.scores(adata)
    pd.testing.assert_frame_equal(table.drop(columns="gain"), adata.uns["betas"]["scores"])
    table.loc[0, "r2_kept"] = 5.0
    assert adata.uns["betas"]["scores"].loc[0, "r2_kept"] != 5.0
    per_target = st.get.scores(adata, target="PAX5", per="target").iloc[0]
    # r2 of 0, 0.2 and 0.4 with variances 1, 2 and 3
    np.testing.assert_allclose(per_target["r2_kept"], (0.2 * 2 + 0.4 * 3) / 6)
    assert per_target["kept"] == "surface"
    np.testing.assert_allclose(per_target["kept_fraction"], 1 - (adata.obs["cell_type"] == "T/NK").mean())
    with pytest.raises(ValueError, match="Expected `per` to be one of"):
        st.get.scores(adata, per="gene")
    with pytest.raises(KeyError, match="unknown 'PAX'"):
        st.get.scores(adata, target="PAX")


def test_gain_is_what_the_model_adds_to_the_best_without_regulators(adata):
    scores = adata.uns["betas"]["scores"]
    scores.loc[:2, "r2_zero"] = [-0.1, 0.0, np.nan]
    scores.loc[:2, "r2_kept"] = [0.2, 0.3, 0.4]
    gain = st.get.scores(adata)["gain"]
    np.testing.assert_allclose(gain[:3], [0.3, 0.3, np.nan])  # NaN: what it had to beat is not known
    # of counts: position is a rival too, and the model counts whether it was kept or not
    scores.loc[:2, "r2_field"] = [-0.2, 0.25, 0.1]
    scores.loc[:2, "r2_pooled"] = [0.2, 0.2, 0.4]
    table = st.get.scores(adata)
    np.testing.assert_allclose(table["gain"][:3], [0.3, -0.05, 0.3])
    per_target = st.get.scores(adata, target="PAX5", per="target").iloc[0]
    # of averages with variances 1, 2 and 3; the mean of the type is known of the first two only
    pooled, field, zero = (0.2 + 0.4 + 1.2) / 6, (-0.2 + 0.5 + 0.3) / 6, -0.1 / 3
    np.testing.assert_allclose(per_target["gain"], pooled - max(field, zero))
    del scores["r2_zero"], scores["r2_field"]
    assert st.get.scores(adata)["gain"].isna().all()


def test_scores_that_are_missing_are_left_out_of_the_average(adata):
    adata.uns["betas"]["scores"].loc[0:1, "r2_kept"] = np.nan
    per_target = st.get.scores(adata, per="target").set_index("target")
    np.testing.assert_allclose(per_target.loc["PAX5", "r2_kept"], 0.4)
    adata.uns["betas"]["scores"].loc[2, "r2_kept"] = np.nan
    assert np.isnan(st.get.scores(adata, per="target").set_index("target").loc["PAX5", "r2_kept"])


def test_perturbation_effect(adata):
    st.tl.perturb(adata, "FOXO1", cells="cell_type == 'B'")
    table = st.get.perturbation_effect(adata)
    change = adata.layers["perturbed"] - adata.layers["log1p"]
    assert set(table["gene"]) == set(adata.var_names[(change != 0).any(axis=0)])
    assert table["group"].drop_duplicates().tolist() == ["all", "T/NK", "B", "stroma"]
    for _, row in table.iterrows():
        mask = np.ones(150, bool) if row["group"] == "all" else (adata.obs["cell_type"] == row["group"]).to_numpy()
        g = adata.var_names.get_loc(row["gene"])
        np.testing.assert_allclose(row["change"], change[mask, g].mean(), atol=1e-5)
        np.testing.assert_allclose(row["simulated"] - row["baseline"], row["change"], atol=1e-5)
        np.testing.assert_allclose(row["mean_abs_change"], np.abs(change[mask, g]).mean(), atol=1e-5)
        top = adata.layers["log1p"][:, g].max()
        np.testing.assert_allclose(row["fraction_changed"], (np.abs(change[mask, g]) > 0.01 * top).mean())
        assert row["perturbed"] == (row["gene"] == "FOXO1")
    assert set(st.get.perturbation_effect(adata, groupby=None)["group"]) == {"all"}
    assert set(st.get.perturbation_effect(adata, groupby="domain")["group"]) > {"all"}
    with pytest.raises(KeyError, match="Key 'nothing'"):
        st.get.perturbation_effect(adata, groupby="nothing")
    with pytest.raises(KeyError, match=r"Key .*ko.* not found.*st.tl.perturb"):
        st.get.perturbation_effect(adata, perturbed_key="ko")


def test_ranked_effects_put_changes_beside_what_the_models_are_worth(adata):
    st.tl.perturb(adata, "FOXO1")
    table = st.get.ranked_effects(adata)
    assert "FOXO1" not in set(table["gene"])
    assert (table["support"].diff().dropna() <= 1e-12).all()
    change = adata.layers["perturbed"] - adata.layers["log1p"]
    per_target = st.get.scores(adata, per="target").set_index("target")["r2_kept"]
    for _, row in table.iterrows():
        g = adata.var_names.get_loc(row["gene"])
        effect = change[:, g].mean() / adata.layers["log1p"][:, g].std()
        np.testing.assert_allclose(row["effect"], effect, rtol=1e-3)
        np.testing.assert_allclose(row["r2"], per_target[row["gene"]])
        np.testing.assert_allclose(row["support"], abs(effect) * row["r2"], rtol=1e-3)
    assert len(st.get.ranked_effects(adata, n_top=2)) == 2
    assert (st.get.ranked_effects(adata, min_r2=0.4)["r2"] >= 0.4).all()
    in_type = st.get.ranked_effects(adata, cell_type="T/NK")
    row = in_type.set_index("gene").loc["CD79A"]
    inside = (adata.obs["cell_type"] == "T/NK").to_numpy()
    np.testing.assert_allclose(row["change"], change[inside, adata.var_names.get_loc("CD79A")].mean(), rtol=1e-4)
    with pytest.raises(ValueError, match="Expected `cell_type` to be one of"):
        st.get.ranked_effects(adata, cell_type="none")


def test_ranked_effects_of_a_screen_agree_with_those_of_a_perturbation(adata):
    screen = st.tl.genome_screen(adata, genes=["FOXO1", "CXCL12"])
    st.tl.perturb(adata, "FOXO1")
    for cell_type in (None, "T/NK"):
        of_screen = st.get.ranked_effects(screen, perturbation="FOXO1", cell_type=cell_type)
        alone = st.get.ranked_effects(adata, cell_type=cell_type)
        assert set(of_screen.pop("perturbation")) == {"FOXO1"}
        assert set(alone.pop("perturbation")) == {"FOXO1=0"}
        pd.testing.assert_frame_equal(of_screen, alone, check_dtype=False, rtol=1e-3)
    assert set(st.get.ranked_effects(screen)["perturbation"]) == {"FOXO1", "CXCL12"}
    with pytest.raises(KeyError, match="Expected `perturbation` to be in the screen, found unknown 'PAX5'"):
        st.get.ranked_effects(screen, perturbation="PAX5")
    with pytest.raises(ValueError, match="Expected `cell_type` to be one of 'T/NK', 'B', 'stroma', found `'none'`"):
        st.get.screen(screen, cell_type="none")
    with pytest.raises(KeyError, match=r"Call `st.tl.genome_screen\(adata\)` and pass its result"):
        st.get.screen(adata, cell_type="B")


def test_a_type_called_all_is_told_apart_from_all_cells(adata):
    names = {"B": "all"}
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(names)
    adata.uns["betas"]["scores"]["cell_type"] = adata.uns["betas"]["scores"]["cell_type"].replace(names)
    st.tl.perturb(adata, "FOXO1")
    inside = int((adata.obs["cell_type"] == "all").sum())
    for table, column in (
        (st.get.modulators(adata, target="PAX5"), "cell_type"),
        (st.get.perturbation_effect(adata), "group"),
    ):
        assert set(table.loc[table[column] == "all", "n_cells"]) == {inside}
        assert set(table.loc[table[column] == "all cells", "n_cells"]) == {adata.n_obs}
    assert set(st.get.ranked_effects(adata)["cell_type"]) == {"all cells"}
    of_type = st.get.ranked_effects(adata, cell_type="all")
    change = (adata.layers["perturbed"] - adata.layers["log1p"])[(adata.obs["cell_type"] == "all").to_numpy()]
    for _, row in of_type.iterrows():
        np.testing.assert_allclose(row["change"], change[:, adata.var_names.get_loc(row["gene"])].mean(), rtol=1e-3)


def test_types_are_those_of_the_fit(adata):
    """Integer clusters under another key than "cell_type"; the user names it once, before the fit."""
    adata.obs["leiden"] = adata.obs.pop("cell_type").cat.codes.astype(int) + 9
    adata.uns["betas"]["params"]["cluster_key"] = "leiden"
    scores = adata.uns["betas"]["scores"]
    scores["cell_type"] = scores["cell_type"].map({"T/NK": "9", "B": "10", "stroma": "11"})
    st.tl.perturb(adata, "FOXO1")
    expected = ["all", "9", "10", "11"]
    assert st.get.modulators(adata)["cell_type"].unique().tolist() == expected
    assert st.get.perturbation_effect(adata)["group"].unique().tolist() == expected
    assert st.get.ranked_effects(adata, cell_type=10)["r2"].notna().any()
    screen = st.tl.genome_screen(adata, save_to=None, genes=["FOXO1"])
    assert st.get.screen(screen, cell_type=10).uns["screen_of_type"]["cell_type"] == "10"


def test_types_renamed_after_the_fit_are_named(adata):
    st.tl.perturb(adata, "FOXO1")
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"B": "B cell"})
    with pytest.warns(UserWarning, match="none for 'B cell'; were types renamed"):
        st.get.ranked_effects(adata, cell_type="B cell")


def test_the_perturbation_remembers_its_fit(adata):
    adata.obsm["again"] = adata.obsm.pop("betas")
    adata.uns["again"] = adata.uns.pop("betas")
    st.tl.perturb(adata, "FOXO1", betas_key="again")
    assert st.get.ranked_effects(adata)["r2"].notna().all()


def test_effect_of_modulators(adata):
    table = st.get.modulators(adata, target=["CD79A", "PAX5"], effects=True)
    np.testing.assert_allclose(table["effect"], table["mean"] * table["modulator_sd"])
    expression = pd.DataFrame(adata.layers["log1p"], index=adata.obs_names, columns=adata.var_names)
    received = adata.uns["received_ligands"]
    inside = (adata.obs["cell_type"] == "B").to_numpy()
    for _, row in table[table["cell_type"].isin(["all", "B"])].iterrows():
        local = row["receptor"] if row["kind"] == "lr" else row["tf"]
        values = expression[local].astype(float)
        if row["kind"] != "tf":
            signal = row["ligand"] + ("|contact" if row["range"] == "contact" else "")
            table_of = received if row["kind"] == "lr" else adata.uns["received_ligands_tfl"]
            values = values * table_of[signal]
        chosen = values[inside] if row["cell_type"] == "B" else values
        np.testing.assert_allclose(row["modulator_sd"], chosen.std(ddof=0), rtol=1e-5)


def test_evidence_of_removed_terms_is_missing(adata):
    terms = adata.uns["betas"]["terms"]
    terms["evidence"] = np.where(np.arange(len(terms)) == 2, -np.inf, 1.0)
    evidence = st.get.modulators(adata)["evidence"]
    assert evidence.isna().sum() == 4
    assert np.isfinite(evidence.dropna()).all()


@pytest.mark.parametrize("name", st.get.__all__)
def test_spatialdata(adata, name):
    spatialdata = pytest.importorskip("spatialdata")
    st.tl.perturb(adata, "FOXO1")
    genes = ["FOXO1", "CXCL12"] if name == "specificity" else ["FOXO1"]
    screen = st.tl.genome_screen(adata, save_to=None, genes=genes)
    if name == "microniche_markers":
        st.tl.microniches(adata, n_niches=2)
    elif name == "drivers":
        st.tl.drivers(adata, "PAX5", n_check=0)
    elif name == "signals":
        adata.uns["signals_test"] = {"signals": pd.DataFrame({"target": ["PAX5"], "signal": ["CXCL12"], "p": [0.5]})}
    options = {"screen": {"cell_type": "B"}, "reliability": {"counts_layer": "counts"}}.get(name, {})
    adata.layers["counts"] = np.random.default_rng(0).poisson(2.0, adata.shape)
    arguments = {"betas": ("PAX5",), "derivatives": ("PAX5",), "senders": ("CXCL12",)}.get(name, ())
    of_screens = name in ("screen", "specificity")
    sdata = spatialdata.SpatialData(tables={"cells": screen if of_screens else adata, "other": adata[:5].copy()})
    function = getattr(st.get, name)
    found = function(sdata, *arguments, table_key="cells", **options)
    assert len(found)
    with pytest.raises(ValueError, match="pass `table_key=`"):
        function(sdata, *arguments, **options)
    with pytest.raises(KeyError, match="'spots' .`table_key`."):
        function(sdata, *arguments, table_key="spots", **options)
    with pytest.raises(ValueError, match="Expected `table_key` with SpatialData only"):
        function(adata, *arguments, table_key="cells", **options)
