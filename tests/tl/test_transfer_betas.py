"""Coefficients of one section at the cells of another."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import spacetravlr as st
from spacetravlr.models.bodies._registry import BODY_NAMES
from spacetravlr.models.fit import _block

TARGETS = ["PAX5", "CD79A", "MS4A1", "CD19"]
BODIES = ["seed", "surface", "cnn", "mixed"]


def _receive(adata, **weights):
    st.pp.spatial_weights(adata, **{"library_key": "slide", **weights})
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    return grn, ligand_tf


@pytest.fixture(scope="module")
def base():
    adata = st.datasets.simulated_tissue(
        n_cells=300, n_cell_types=3, n_targets=4, n_tfs=6, n_active_tfs=3, n_pairs=5, n_active_pairs=2,
        n_contact_pairs=1, n_ligand_tf=2, fields="position", n_slides=2, rng=0,
    )  # fmt: skip
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(["T/NK", "B", "stroma"])
    grn, ligand_tf = _receive(adata)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


def _fit(adata, body, **options):
    network = st.nn.NetworkConfig(n_epochs=3, batch_size=64, learning_rate=0.02, device="cpu")
    codes = {name: BODY_NAMES.index(name) for name in ("zero", "seed", "surface", "network")}
    in_turn = np.array(list(codes.values()))[np.arange(12).reshape(4, 3) % 4]
    kept = (codes | {"mixed": in_turn}).get(body, codes["network"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_block, "choose_bodies", lambda block, *_: np.broadcast_to(kept, (4, 3))[block.index].copy())
        return st.tl.fit_betas(
            adata, TARGETS, body="auto" if body == "mixed" else body, copy=True, n_jobs=1,
            network=network if body in ("mixed", "cnn", "vit") else None, **options,
        )  # fmt: skip


@pytest.fixture(scope="module", params=BODIES)
def fitted(request, base):
    return _fit(base, request.param)


@pytest.fixture(scope="module")
def surface(base):
    return _fit(base, "surface")


@pytest.fixture
def query(base):
    """The second slide alone, prepared by itself."""
    adata = base[base.obs["slide"] == "slide 2"].copy()
    del adata.uns["modulators"], adata.obsp
    _receive(adata)
    return adata


def test_onto_itself(base, fitted):
    out = st.tl.transfer_betas(fitted, base, position="same", copy=True, n_jobs=1)
    np.testing.assert_allclose(out.obsm["betas"], fitted.obsm["betas"], atol=1e-6)
    for table in ("terms", "training"):
        pd.testing.assert_frame_equal(out.uns["betas"][table], fitted.uns["betas"][table], check_categorical=False)


def test_a_slide_gets_its_rows(fitted, query):
    st.tl.transfer_betas(fitted, query, position="same", n_jobs=1)
    expected = pd.DataFrame(fitted.obsm["betas"], index=fitted.obs_names).loc[query.obs_names]
    np.testing.assert_allclose(query.obsm["betas"], expected, atol=1e-6)


def test_what_follows_runs_on_the_query(fitted, query):
    st.tl.transfer_betas(fitted, query, n_jobs=1)
    st.tl.perturb(query, "FOXO1")
    changed = query.layers["perturbed"] != query.layers["log1p"]
    assert changed[:, query.var_names.isin(TARGETS)].any()
    assert st.get.betas(query, "PAX5").shape[0] == query.n_obs
    assert len(st.get.scores(query, target="PAX5")) == 3
    assert len(st.tl.possible_targets(query)) == len(st.tl.possible_targets(fitted))
    effects = st.tl.genome_screen(query, mode="knockout", genes=["FOXO1"])
    assert effects is not None


def test_average_is_the_mean_over_the_reference_at_the_same_niche(base, surface):
    """Averaging over places by hand: each query cell, with its niche, put at every reference cell of its type."""
    from spacetravlr._anndata._section import read_section
    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr.models.bodies._base import EvaluationCells
    from spacetravlr.models.bodies._fitted import FittedBlock
    from spacetravlr.models.bodies._reference import Reference

    out = st.tl.transfer_betas(surface, base, copy=True, n_jobs=1)
    bodies = surface.uns["betas"]["bodies"]
    section = read_section(base, cluster_key="cell_type", received=base.uns["received_ligands_params"])
    here = Reference.from_state(bodies["reference"]).view(section, "same").at()
    functions = here.functions()
    block = FittedBlock.from_state(bodies["block_00000"])
    for cell in (0, 17, 200):
        places = np.flatnonzero(here.cell_type == here.cell_type[cell])
        moved = CellFunctions(
            functions.cell_type[places],
            np.repeat(functions.niche[[cell]], len(places), axis=0),
            tuple(s[places] for s in functions.space),
            functions.n_types,
        )
        values = block.evaluate(EvaluationCells(moved.cell_type, lambda moved=moved: moved, lambda: None))
        np.testing.assert_allclose(out.obsm["betas"][cell], values.mean(axis=0), atol=1e-5)


def test_average_ignores_where_the_query_lies(fitted, query):
    moved = query.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] + 1e5
    for adata in (query, moved):
        st.tl.transfer_betas(fitted, adata, n_jobs=1)
    np.testing.assert_allclose(moved.obsm["betas"], query.obsm["betas"], atol=2e-3)
    again = st.tl.transfer_betas(fitted, query, position="same", copy=True, n_jobs=1)
    varies = not np.allclose(again.obsm["betas"], query.obsm["betas"], atol=1e-3)
    assert varies == (set(fitted.uns["betas"]["scores"]["kept"]) != {"seed"})


def test_units_of_the_query_may_differ(fitted, query):
    millimetres = query.copy()
    millimetres.obsm["spatial"] = millimetres.obsm["spatial"] / 1000
    _receive(millimetres, microns_per_unit=1000)
    for adata in (query, millimetres):
        st.tl.transfer_betas(fitted, adata, position="same", n_jobs=1)
    np.testing.assert_allclose(millimetres.obsm["betas"], query.obsm["betas"], atol=1e-4)


def test_scores_of_the_query(surface, query):
    st.tl.transfer_betas(surface, query, position="same", n_jobs=1)
    scores = query.uns["betas"]["scores"]
    row = scores[(scores["target"] == "PAX5") & (scores["cell_type"] == "B")].iloc[0]
    mine = (query.obs["cell_type"] == "B").to_numpy()
    y = query[mine, "PAX5"].layers["log1p"].ravel()
    frame = st.get.betas(query, "PAX5")
    terms = query.uns["betas"]["terms"].query("target == 'PAX5'")
    received = pd.concat([query.uns["received_ligands"], query.uns["received_ligands_tfl"]], axis=1)
    x = []
    for term in terms.itertuples():
        local = term.receptor or term.tf or term.ligand
        value = np.ones(query.n_obs) if term.kind == "intercept" else query[:, local].layers["log1p"].ravel()
        if term.kind in ("lr", "tfl"):
            name = term.ligand + ("|contact" if term.range == "contact" else "")
            signal = received[name]
            value = value * (signal.iloc[:, 0] if signal.ndim == 2 else signal).to_numpy()
        x.append(value)
    predicted = (frame.to_numpy() * np.stack(x, axis=1)).sum(axis=1)[mine]
    expected = 1 - (y - predicted).var() / y.var()
    assert row["r2_query"] == pytest.approx(expected, abs=1e-4)
    assert row["n_query"] == mine.sum()
    reference = surface.uns["betas"]["scores"]
    pd.testing.assert_frame_equal(scores[reference.columns], reference, check_categorical=False)


def test_bodies_survive_files(fitted, query, tmp_path):
    reference = fitted.copy()
    del reference.obsp, reference.uns["simulation"]
    for name in [n for n in reference.layers if n is not None]:
        del reference.layers[name]
    st.io.write(reference, tmp_path / "fit.h5ad")
    again = query.copy()
    st.tl.transfer_betas(st.io.read(tmp_path / "fit.h5ad"), again, n_jobs=1)
    st.tl.transfer_betas(fitted, query, n_jobs=1)
    np.testing.assert_allclose(again.obsm["betas"], query.obsm["betas"], atol=1e-6)
    st.io.write(again, tmp_path / "query.h5ad")
    st.tl.perturb(st.io.read(tmp_path / "query.h5ad"), "FOXO1")


def test_bodies_lie_in_the_store(base, query, tmp_path):
    whole = _fit(base, "mixed")
    stored = _fit(base, "mixed", store=tmp_path / "betas.zarr")
    assert set(stored.uns["betas"]["bodies"]) == {"reference"}
    for reference, adata in ((whole, query), (stored, other := query.copy())):
        st.tl.transfer_betas(reference, adata, n_jobs=1)
    np.testing.assert_allclose(other.obsm["betas"], query.obsm["betas"], atol=1e-6)
    assert other.uns["betas"]["store"] == ""
    shutil.rmtree(tmp_path / "betas.zarr")
    with pytest.raises(
        FileNotFoundError,
        match="Expected a store at .*betas.zarr to hold block_00000 of a fit, found no complete block",
    ):
        st.tl.transfer_betas(stored, other)


def test_several_blocks(base, query):
    one, two = (_fit(base, "surface", block_size=size) for size in (100, 3))
    assert set(two.uns["betas"]["bodies"]) == {"reference", "block_00000", "block_00001"}
    for reference, key in ((one, "one"), (two, "two")):
        st.tl.transfer_betas(reference, query, key_added=key)
    np.testing.assert_allclose(query.obsm["two"], query.obsm["one"], atol=1e-4)


def test_copy_and_keys(surface, query):
    before = query.copy()
    assert st.tl.transfer_betas(surface, query, key_added="mine") is None
    assert "betas" not in query.obsm
    out = st.tl.transfer_betas(surface, before, key_added="mine", copy=True)
    np.testing.assert_array_equal(out.obsm["mine"], query.obsm["mine"])
    del query.obsm["mine"], query.uns["mine"]
    assert_equal(before, query)


def test_own_keys_of_the_query(surface, query):
    query.obs["label"] = query.obs.pop("cell_type")
    query.layers["mine"] = query.layers.pop("log1p")
    st.tl.transfer_betas(surface, query, cluster_key="label", layer="mine")
    assert query.uns["betas"]["params"]["cluster_key"] == "label"
    st.tl.perturb(query, "FOXO1")
    assert "perturbed" in query.layers


def test_a_cell_type_fewer(fitted, query):
    few = query[query.obs["cell_type"] != "B"].copy()
    del few.obsp
    _receive(few)
    st.tl.transfer_betas(fitted, few, n_jobs=1)
    scores = few.uns["betas"]["scores"]
    assert (scores.loc[scores["cell_type"] == "B", "n_query"] == 0).all()
    assert scores.loc[scores["cell_type"] == "B", "r2_query"].isna().all()


def test_an_unknown_cell_type(surface, query):
    query.obs["cell_type"] = query.obs["cell_type"].cat.rename_categories({"B": "B cell"})
    with pytest.raises(ValueError, match="cell types of `query` to be among those of `reference`, found 'B cell'"):
        st.tl.transfer_betas(surface, query)
    assert "betas" not in query.obsm


def test_missing_genes(surface, query):
    few = query[:, ~query.var_names.isin(["PAX5", "FOXO1"])].copy()
    with pytest.raises(KeyError, match="every gene of the model, found 2 missing: .*PAX5.*FOXO1"):
        st.tl.transfer_betas(surface, few)
    assert "betas" not in few.obsm
    with pytest.warns(UserWarning, match="2 genes of the model are missing .*: 1 targets and"):
        st.tl.transfer_betas(surface, few, missing="drop", n_jobs=1)
    st.tl.transfer_betas(surface, query, n_jobs=1)
    terms = query.uns["betas"]["terms"]
    kept = ((terms["target"] != "PAX5") & (terms["tf"] != "FOXO1")).to_numpy()
    assert 0 < kept.sum() < len(terms)
    np.testing.assert_array_equal(few.obsm["betas"], query.obsm["betas"][:, kept])
    assert set(few.uns["betas"]["scores"]["target"]) == {"CD79A", "MS4A1", "CD19"}
    st.tl.perturb(few, "STAT1" if "STAT1" in set(terms["tf"]) else st.tl.possible_targets(few)[0])


def test_no_target_left(surface, query):
    few = query[:, ~query.var_names.isin(TARGETS)].copy()
    with pytest.raises(KeyError, match="at least one target gene, found none of 4"):
        st.tl.transfer_betas(surface, few, missing="drop")


def test_signals_received_otherwise(surface, query):
    _receive(query, radius=150)
    with pytest.raises(ValueError, match=r"signals to be received as in `reference`, found radius=150.0 \(200.0 in"):
        st.tl.transfer_betas(surface, query)
    grn, lr, _ = st.datasets.simulated_priors(query)
    st.pp.spatial_weights(query, library_key="slide")
    st.pp.received_ligands(query, lr, layer="log1p", normalize="row")
    with pytest.raises(ValueError, match="found normalize='row' \\('sum' in the reference"):
        st.tl.transfer_betas(surface, query)


def test_signals_divided_by_the_number_of_cells(base, query):
    grn, lr, _ = st.datasets.simulated_priors(base)
    few = base[base.obs["slide"] == "slide 1"].copy()[:-20].copy()
    for adata in (few, query):
        del adata.obsp
        st.pp.spatial_weights(adata, library_key="slide")
        st.pp.received_ligands(adata, lr, layer="log1p", normalize="mean")
    st.pp.modulators(few, grn)
    st.tl.fit_betas(few, ["PAX5"], body="seed")
    with pytest.warns(UserWarning, match=f"about {query.n_obs} in `query` and {few.n_obs} in `reference`"):
        st.tl.transfer_betas(few, query)


def test_cells_outside_the_reference(surface, query):
    x = query.obsm["spatial"][:, 0]
    moved = query.copy()
    moved.obsm["spatial"][:, 0] += np.ptp(x) / 2
    share = (moved.obsm["spatial"][:, 0] > x.max()).mean()
    with pytest.warns(UserWarning, match=f"{share:.1%} of the cells of `query` lie outside the reference"):
        st.tl.transfer_betas(surface, moved, position="same")


def test_slides_that_the_reference_has_not(surface, query):
    query.obs["slide"] = query.obs["slide"].cat.rename_categories({"slide 2": "slide 9"})
    with pytest.raises(ValueError, match="slides of `query` to be among those .* found 'slide 9'"):
        st.tl.transfer_betas(surface, query, position="same")
    st.tl.transfer_betas(surface, query)


def test_a_query_that_is_not_ready(surface, query):
    bare = query.copy()
    del bare.uns["received_ligands_params"]
    with pytest.raises(KeyError, match=r"Call `st.pp.received_ligands\(query, lr\)` first"):
        st.tl.transfer_betas(surface, bare)
    bare = query.copy()
    del bare.obsp["spatial_weights"]
    with pytest.raises(KeyError, match=r"Call `st.pp.spatial_weights\(adata\)` again"):
        st.tl.transfer_betas(surface, bare)
    assert "betas" not in bare.obsm
    del query.layers["log1p"]
    with pytest.raises(KeyError, match=r"Key 'log1p' \(`layer`\) not found"):
        st.tl.transfer_betas(surface, query)


def test_a_reference_that_is_not_ready(base, surface, query):
    with pytest.raises(KeyError, match=r"Call `st.tl.fit_betas\(reference\)` first"):
        st.tl.transfer_betas(base, query)
    bare = surface.copy()
    del bare.uns["betas"]["bodies"]
    with pytest.raises(KeyError, match="which holds only coefficients"):
        st.tl.transfer_betas(bare, query)
    bare = surface.copy()
    bare.uns["betas"]["terms"] = bare.uns["betas"]["terms"].iloc[:-1]
    with pytest.raises(ValueError, match="they come from different fits"):
        st.tl.transfer_betas(bare, query)


@pytest.mark.parametrize(
    "options, message",
    [({"position": "near"}, "`position` to be one of"), ({"missing": "keep"}, "`missing` to be one of")],
)
def test_options_that_cannot_be_used(surface, query, options, message):
    with pytest.raises(ValueError, match=message):
        st.tl.transfer_betas(surface, query, **options)
