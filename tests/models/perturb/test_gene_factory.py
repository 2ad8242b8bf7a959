"""The object form of perturbations: same numbers however they are asked for or stored."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr.models.perturb._coefficients import coefficient_reader


@pytest.fixture
def factory(adata):
    return st.GeneFactory(adata)


def test_it_reads_layer_and_received_ligands_from_the_fit(factory, adata):
    assert factory.model.layer == "log1p"
    assert factory.model.received_key == "received_ligands"
    np.testing.assert_array_equal(factory.expression, adata.layers["log1p"])
    frame = adata.uns["received_ligands"]
    np.testing.assert_allclose(
        factory.tissue.received, frame[factory.model.design.signal_names].to_numpy(), rtol=1e-4, atol=1e-5
    )
    assert "150 cells, 5 modelled genes, 14 genes to perturb" in repr(factory)


def test_possible_targets_are_all_that_play_a_role(factory, adata):
    table = adata.uns["betas"]["terms"]
    roles = set(pd.concat([table[c].astype(str) for c in ("tf", "ligand", "receptor")])) - {""}
    assert factory.possible_targets() == [g for g in adata.var_names if g in roles]


@pytest.mark.parametrize("derivative", ["product_rule", "exact"])
def test_one_round_without_signals_is_the_model_itself(factory, adata, derivative):
    """FOXO1 reaches CD79A as a TF only, so that one round is its coefficient times its change."""
    result = factory.perturb("FOXO1", n_propagation=1, derivative=derivative)
    change = result.change_frame()["CD79A"]
    expression = result.baseline[:, adata.var_names.get_loc("CD79A")]
    slope = factory.splash_betas("CD79A")["FOXO1"]
    foxo1 = result.baseline[:, adata.var_names.get_loc("FOXO1")]
    expected = np.clip(expression - slope * foxo1, 0, expression.max()) - expression
    np.testing.assert_allclose(change, expected, atol=1e-5)


def test_exact_is_the_difference_of_the_predictions(factory, adata):
    """Against BetaFrame.predict at the simulated state, with received ligands computed by hand."""
    result = factory.perturb({"CXCL12": "max", "CXCR4": 0.7}, n_propagation=1, derivative="exact")
    x0 = pd.DataFrame(result.baseline.astype(float), index=adata.obs_names, columns=adata.var_names)
    x1 = x0.copy()
    x1["CXCL12"], x1["CXCR4"] = x0["CXCL12"].max(), 0.7
    weights = {"": adata.obsp["spatial_weights"], "contact": adata.obsp["contact_weights"]}

    def received(x):
        out = {}
        for name in factory.model.design.signal_names:
            ligand, _, kind = name.partition("|")
            out[name] = weights[kind] @ x[ligand].to_numpy()
        return pd.DataFrame(out, index=x.index)

    frame = st.get.betas(adata, "CD79A").astype(float)
    expected = frame.predict(x1, received(x1)) - frame.predict(x0, received(x0))
    expected = np.clip(x0["CD79A"] + expected, 0, x0["CD79A"].max()) - x0["CD79A"]
    np.testing.assert_allclose(result.change_frame()["CD79A"], expected, atol=1e-4)


def test_a_receptor_acts_through_its_pairs_only(factory, with_receptors):
    """Its coefficient by itself is adjustment, so that a knockout is what it is without that."""
    adjusting = st.GeneFactory(with_receptors)
    assert adjusting.possible_targets() == factory.possible_targets()
    for wanted in ("CXCR4", {"NOTCH1": "max", "FOXO1": 0}):
        np.testing.assert_allclose(adjusting.perturb(wanted).change, factory.perturb(wanted).change, atol=1e-6)
    np.testing.assert_allclose(adjusting.splash_betas("CD79A"), factory.splash_betas("CD79A"), atol=1e-6)


def test_with_adjustment_a_knockout_is_the_difference_of_the_predictions(with_receptors):
    adata = with_receptors
    factory = st.GeneFactory(adata, adjusted=True)
    result = factory.perturb("CXCR4", n_propagation=1, derivative="exact")
    names = adata.obs_names
    x0 = pd.DataFrame(result.baseline.astype(float), index=names, columns=adata.var_names)
    received = pd.DataFrame(factory.tissue.received.astype(float), names, factory.model.design.signal_names)
    frame = st.get.betas(adata, "CD79A").astype(float)
    expected = frame.predict(x0.assign(CXCR4=0.0), received) - frame.predict(x0, received)
    expected = np.clip(x0["CD79A"] + expected, 0, x0["CD79A"].max()) - x0["CD79A"]
    np.testing.assert_allclose(result.change_frame()["CD79A"], expected, atol=1e-4)
    without = st.GeneFactory(adata).perturb("CXCR4", n_propagation=1, derivative="exact")
    assert np.abs(without.change - result.change).max() > 0.1
    extra = factory.splash_betas("CD79A")["CXCR4"] - st.GeneFactory(adata).splash_betas("CD79A")["CXCR4"]
    np.testing.assert_allclose(extra, frame["beta_CXCR4"], atol=1e-5)


def test_a_receptor_without_a_pair_can_be_perturbed_with_adjustment_only(with_receptors):
    adata = with_receptors
    terms = adata.uns["betas"]["terms"]
    kept = ~((terms["kind"] == "lr") & (terms["receptor"] == "CXCR4")).to_numpy()
    adata.obsm["betas"], adata.uns["betas"]["terms"] = adata.obsm["betas"][:, kept], terms[kept]
    assert "CXCR4" not in st.tl.possible_targets(adata)
    with pytest.warns(UserWarning, match="'CXCR4' is not a TF, ligand or receptor in any model"):
        assert not st.GeneFactory(adata).perturb("CXCR4").change_frame().drop(columns="CXCR4").to_numpy().any()
    factory = st.GeneFactory(adata, adjusted=True)
    assert "CXCR4" in factory.possible_targets()
    assert factory.perturb("CXCR4").change_frame()["CD79A"].abs().max() > 0.1


def test_perturbed_genes_end_at_the_wanted_value(factory, adata):
    # CXCL13 has a model of its own, which does not move it where it is held
    result = factory.perturb({"CXCL13": 0.4, "FOXO1": "max"}, fold={"STAT3": 0.5}, cells="cell_type == 'B'")
    chosen = (adata.obs["cell_type"] == "B").to_numpy()
    after = result.to_frame()
    np.testing.assert_allclose(after.loc[chosen, "CXCL13"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(after.loc[chosen, "FOXO1"], result.baseline[:, 0].max(), rtol=1e-6)
    stat3 = adata.var_names.get_loc("STAT3")
    np.testing.assert_allclose(after.loc[chosen, "STAT3"], 0.5 * result.baseline[chosen, stat3], rtol=1e-5)
    np.testing.assert_array_equal(after.loc[~chosen, "FOXO1"], result.baseline[~chosen, 0])
    # CXCL13 is secreted, so that cells that were not perturbed answer
    ms4a1 = adata.var_names.get_loc("MS4A1")
    assert np.abs(after.loc[~chosen, "MS4A1"] - result.baseline[~chosen, ms4a1]).max() > 0.01
    assert after.to_numpy().min() >= 0
    assert result.wanted.label == "CXCL13=0.4, FOXO1=max, STAT3 x 0.5"


def test_cells_can_be_a_mask_names_or_a_query(factory, adata):
    mask = (adata.obs["cell_type"] == "T/NK").to_numpy()
    ways = [mask, pd.Series(mask, adata.obs_names)[::-1], list(adata.obs_names[mask]), "cell_type == 'T/NK'"]
    results = [factory.perturb("FOXO1", cells=way).change for way in ways]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    assert np.abs(results[0] - factory.perturb("FOXO1").change).max() > 0.1


def test_a_batch_gives_what_each_gives_alone(factory):
    asked = ["FOXO1", {"CXCL12": "max"}, {"FOXO1": 0.0, "DLL1": 1.0}, ["CXCR4", "NOTCH1"]]
    for together, wanted in zip(factory.perturb_batch(asked), asked, strict=True):
        alone = factory.perturb(wanted)
        np.testing.assert_array_equal(together.gene_index, alone.gene_index)
        np.testing.assert_allclose(together.change, alone.change, atol=1e-6)
    assert factory.perturb_batch([]) == []


def test_how_coefficients_are_stored_does_not_matter(adata):
    expected = st.GeneFactory(adata).perturb({"FOXO1": 0, "CXCL12": "max"}).change
    betas = adata.obsm["betas"]
    stored = {
        "float16": betas.astype(np.float16).astype(np.float32),
        "by target": da.from_array(betas, chunks=(-1, 7)),
        "by cell": da.from_array(betas, chunks=(40, -1)),
        "fortran": np.asfortranarray(betas),
    }
    for name, value in stored.items():
        adata.obsm["betas"] = value
        found = st.GeneFactory(adata).perturb({"FOXO1": 0, "CXCL12": "max"}).change
        np.testing.assert_allclose(found, expected, atol=0.02 if name == "float16" else 0)


@pytest.mark.parametrize("chunks", [(-1, 7), (40, -1), (40, 9)])
@pytest.mark.parametrize("chunk_bytes", [150 * 4 * 3, 150 * 4 * 13, 1 << 20])
def test_chunks_read_from_disk_cover_every_target_once(adata, chunks, chunk_bytes):
    betas = adata.obsm["betas"]
    targets = st.GeneFactory(adata).model.design.targets
    read = coefficient_reader(da.from_array(betas, chunks=chunks), targets, load_bytes=0, chunk_bytes=chunk_bytes)
    for wanted in (np.arange(5), np.array([1, 4])):
        seen = np.zeros(betas.shape, dtype=int)
        for block in read(wanted):
            for t in block.targets:
                columns = targets.columns_of(int(t))
                part = block.values[:, columns.start - block.first_column : columns.stop - block.first_column]
                np.testing.assert_array_equal(part, betas[block.cells, columns])
                seen[block.cells, columns] += 1
        expected = np.zeros(betas.shape, dtype=int)
        for t in wanted:
            expected[:, targets.columns_of(int(t))] = 1
        np.testing.assert_array_equal(seen, expected)


def test_threads_do_not_matter(adata):
    one, two = (st.GeneFactory(adata, n_jobs=n).perturb({"FOXO1": 0, "CXCL12": "max"}).change for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_permuting_cells_permutes_the_result(adata):
    order = np.random.default_rng(0).permutation(adata.n_obs)
    here = st.GeneFactory(adata).perturb("CXCL12").change
    there = st.GeneFactory(adata[order].copy()).perturb("CXCL12").change
    np.testing.assert_allclose(there, here[order], atol=1e-5)


def test_the_simulator_travels(factory):
    copy = pickle.loads(pickle.dumps(factory.model.simulator))
    given = factory.model.input_changes([factory.perturb("FOXO1").wanted], np.ones(150, dtype=bool))
    np.testing.assert_array_equal(copy.propagate(given).values, factory.model.simulator.propagate(given).values)


def test_models_of_tfs_only_need_no_received_ligands(adata):
    table = adata.uns["betas"]["terms"]
    keep = table["kind"].isin(["intercept", "tf"]).to_numpy()
    adata.uns["betas"]["terms"] = table[keep]
    adata.obsm["betas"] = adata.obsm["betas"][:, keep]
    for key in list(adata.uns):
        if key.startswith(("received", "spatial")):
            del adata.uns[key]
    result = st.GeneFactory(adata).perturb("FOXO1")
    assert np.abs(result.change_frame()["CD79A"]).max() > 0.1


def test_genes_without_a_role_and_values_above_the_maximum_are_warned_of(factory):
    with pytest.warns(
        UserWarning,
        match="'TUBB' is not a TF, .*perturbing it affects no other gene",
    ):
        result = factory.perturb("TUBB")
    changed = result.change_frame().abs().max()
    assert list(changed.index[changed > 0]) == ["TUBB"]
    with pytest.warns(UserWarning, match=r"set for 'FOXO1' \(50\) exceeds the largest"):
        result = factory.perturb({"FOXO1": 50.0})
    np.testing.assert_allclose(result.to_frame()["FOXO1"], 50, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"perturbation": "FOXO"}, KeyError, r"unknown 'FOXO' \(closest: FOXO1"),
        ({}, ValueError, "Expected `perturbation` or `fold` to name a gene, found none"),
        ({"perturbation": {"FOXO1": -1}}, ValueError, "at least zero, found `-1.0`"),
        ({"perturbation": {"FOXO1": np.nan}}, ValueError, "to be finite"),
        ({"perturbation": {"FOXO1": "min"}}, ValueError, "to be a number or 'max', found `'min'`"),
        ({"perturbation": {"FOXO1": None}}, ValueError, "to be a number, found `None`"),
        ({"fold": {"FOXO1": -2}}, ValueError, "`FOXO1` in `fold` to be finite and at least zero"),
        ({"perturbation": "FOXO1", "fold": {"FOXO1": 2}}, ValueError, "found `FOXO1` in both"),
        ({"perturbation": "FOXO1", "cells": np.zeros(150, bool)}, ValueError, "choose at least one cell, found `none`"),
        ({"perturbation": "FOXO1", "cells": np.ones(3, bool)}, ValueError, r"mask of length 150, found shape `\(3,\)`"),
        ({"perturbation": "FOXO1", "cells": ["cell00"]}, KeyError, r"unknown 'cell00' \(closest"),
        ({"perturbation": "FOXO1", "cells": "cell_type == 'D'"}, ValueError, "found `cell_type == 'D'`"),
        ({"perturbation": "FOXO1", "cells": "type == 'B'"}, ValueError, "columns are 'cell_type', 'domain'"),
        ({"perturbation": "FOXO1", "cells": "cell001"}, ValueError, "found the name `'cell001'`; pass a list"),
        ({"perturbation": "FOXO1", "n_propagation": 0}, ValueError, "whole number of at least 1, found `0`"),
        ({"perturbation": "FOXO1", "derivative": "none"}, ValueError, "Expected `derivative` to be one of"),
    ],
)
def test_messages(factory, arguments, error, message):
    with pytest.raises(error, match=message):
        factory.perturb(**arguments)


def test_messages_on_what_is_missing(adata):
    with pytest.raises(KeyError, match=r"Key 'other' .*Call `st.tl.fit_betas\(adata\)` first"):
        st.GeneFactory(adata, betas_key="other")
    with pytest.raises(KeyError, match="Key 'nothing' .*layer"):
        st.GeneFactory(adata, baseline_layer="nothing").perturb("FOXO1")
    with pytest.raises(KeyError, match=r"Call `st.pp.received_ligands"):
        st.GeneFactory(adata, received_key="nothing").perturb("FOXO1")
    with pytest.raises(KeyError, match=r"unknown 'PAX' \(closest: PAX5"):
        st.GeneFactory(adata).splash_betas("PAX")
    for wrong in ("FOXO1", {"FOXO1": "max"}):
        with pytest.raises(ValueError, match=r"Expected `perturbations` to be a sequence.*; pass a list of one"):
            st.GeneFactory(adata).perturb_batch(wrong)


def test_the_grid_engine_gives_nearly_the_same(adata):
    sparse = st.GeneFactory(adata).perturb("CXCL12").change
    lr = adata.uns["simulation"]["ligand_receptor"]
    st.pp.spatial_weights(adata, method="grid")
    st.pp.received_ligands(adata, lr, layer="log1p")
    grid = st.GeneFactory(adata).perturb("CXCL12").change
    assert np.abs(sparse).max() > 0.1
    assert np.sqrt(np.mean((grid - sparse) ** 2)) < 0.01 * np.sqrt(np.mean(sparse**2))


def test_a_change_stays_on_its_slide(adata):
    lr = adata.uns["simulation"]["ligand_receptor"]
    middle = adata.obsm["spatial"][:, 0] > np.median(adata.obsm["spatial"][:, 0])
    adata.obs["slide"] = np.where(middle, "a", "b")
    together = st.GeneFactory(adata).perturb("CXCL12", cells=middle).change[~middle]
    assert np.abs(together).max() > 1e-3
    st.pp.spatial_weights(adata, library_key="slide")
    st.pp.received_ligands(adata, lr, layer="log1p")
    apart = st.GeneFactory(adata).perturb("CXCL12", cells=middle).change
    assert not apart[~middle].any()
    assert np.abs(apart[middle]).max() > 0.1
