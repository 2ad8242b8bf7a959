"""Coefficients from the state of the fitted bodies alone, at the cells of the fit and at some of them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from anndata import AnnData

import spacetravlr as st
from spacetravlr._anndata._fit import read_fit_data
from spacetravlr.models.bodies._base import EvaluationCells
from spacetravlr.models.bodies._fitted import FittedBlock
from spacetravlr.models.bodies._inputs import BodyOptions, niches
from spacetravlr.models.bodies._registry import BODY_NAMES
from spacetravlr.models.fit import _block
from spacetravlr.models.fit._tissue import fit_inputs


@pytest.fixture(scope="module")
def inputs():
    adata = st.datasets.simulated_tissue(
        n_cells=240, n_cell_types=3, n_targets=4, n_tfs=6, n_active_tfs=3, n_pairs=5, n_active_pairs=2,
        n_contact_pairs=1, n_ligand_tf=2, fields="position", rng=0,
    )  # fmt: skip
    st.pp.spatial_weights(adata)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, cluster_key="cell_type")
    return fit_inputs(read_fit_data(adata, modulators_key="modulators"), n_folds=3, rng_seed=0, n_jobs=1)


@pytest.fixture(scope="module", params=["seed", "surface", "cnn", "vit", "per_target", "mixed"])
def result(request, inputs):
    """Fits in which each target and type keeps the body named, or in turn one of all four."""
    network = st.nn.NetworkConfig(
        n_epochs=3, batch_size=64, learning_rate=0.02, device="cpu",
        body="vit" if request.param == "vit" else "cnn",
        mode="multiplicative" if request.param == "vit" else "additive",
        encoder="per_target" if request.param == "per_target" else "shared",
    )  # fmt: skip
    body = {"per_target": "cnn", "mixed": "auto"}.get(request.param, request.param)
    codes = {name: BODY_NAMES.index(name) for name in ("zero", "seed", "surface", "network")}
    in_turn = np.array(list(codes.values()))[np.arange(12).reshape(4, 3) % 4]
    kept = (codes | {"mixed": in_turn}).get(request.param, codes["network"])
    settings = BodyOptions(body=body, network=network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_block, "choose_bodies", lambda *_: np.broadcast_to(kept, (4, 3)).copy())
        return _block.fit_targets(inputs, settings, np.arange(4))


def _cells(inputs, rows):
    def seen():
        data = st.nn.NicheData(**niches(inputs, 1))
        return replace(
            data, images=data.image_batch(rows), composition=data.composition[rows],
            position=data.position[rows], cell_type=data.cell_type[rows],
        )  # fmt: skip

    return EvaluationCells(inputs.cell_type[rows], lambda: inputs.functions().take(rows), seen)


def test_the_state_gives_the_coefficients_back(inputs, result):
    again = FittedBlock.from_state(pickle.loads(pickle.dumps(result.bodies)))
    np.testing.assert_allclose(again.evaluate(_cells(inputs, np.arange(240))), result.betas, atol=1e-6)
    rows = np.random.default_rng(0).permutation(240)[:77]
    np.testing.assert_allclose(again.evaluate(_cells(inputs, rows)), result.betas[rows], atol=1e-6)


def test_coefficients_vary_within_types_where_a_body_varies(inputs, result):
    fitted = FittedBlock.from_state(result.bodies)
    for t in range(4):
        columns = result.betas[:, np.argsort(fitted.order)[fitted.indptr[t] : fitted.indptr[t + 1]]]
        for c in range(3):
            varies = np.ptp(columns[inputs.cell_type == c], axis=0).max() > 1e-6
            assert varies == (BODY_NAMES[fitted.kept[t, c]] in ("surface", "network"))


def test_the_state_is_kept_in_files(inputs, result, tmp_path):
    adata = AnnData(uns={"bodies": result.bodies})
    for name in ("fit.h5ad", "fit.zarr"):
        st.io.write(adata, tmp_path / name)
        again = FittedBlock.from_state(st.io.read(tmp_path / name).uns["bodies"])
        np.testing.assert_allclose(again.evaluate(_cells(inputs, np.arange(240))), result.betas, atol=1e-6)


def test_a_state_holds_only_the_networks_that_were_kept(result):
    fitted = FittedBlock.from_state(result.bodies)
    served = np.flatnonzero((fitted.kept == BODY_NAMES.index("network")).any(axis=1))
    assert ("network" in fitted.varying) == bool(len(served))
    if len(served):
        np.testing.assert_array_equal(fitted.varying["network"].target, served)
        assert len(result.bodies["network"]["network"]["heads"]["anchors"]) == len(served)
