"""The model of one target as an object."""

from __future__ import annotations

import numpy as np
import pytest
from anndata.tests.helpers import assert_equal

import spacetravlr as st


@pytest.fixture(scope="module")
def base():
    adata = st.datasets.simulated_tissue(
        n_cells=200, n_cell_types=2, n_targets=3, n_tfs=5, n_active_tfs=3, n_pairs=4, n_active_pairs=2,
        n_contact_pairs=1, n_ligand_tf=2, fields="position", rng=3,
    )  # fmt: skip
    st.pp.spatial_weights(adata)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


def test_is_the_fit_of_one_target(base):
    adata = base.copy()
    model = st.SpatialCellularProgramsEstimator(adata, "CD79A", body="surface", rng=1)
    assert model.fit() is model
    assert_equal(adata, base)
    fitted = st.tl.fit_betas(base, body="surface", rng=1, copy=True)
    expected = st.get.betas(fitted, "CD79A")
    found = model.get_betas()
    assert isinstance(found, st.BetaFrame)
    assert found.target == "CD79A"
    assert found.columns.tolist() == expected.columns.tolist()
    assert {c for c in found.columns if "$" in c}
    assert {c for c in found.columns if "#" in c}
    assert found.index.equals(adata.obs_names)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    scores = st.get.scores(fitted, target="CD79A")
    np.testing.assert_allclose(model.scores_["r2_surface"], scores["r2_surface"], atol=1e-6)
    assert model.scores_["kept"].astype(str).tolist() == scores["kept"].astype(str).tolist()
    assert len(model.terms_) == found.shape[1]
    assert {"importance", "evidence", "active"} <= set(found.terms.columns)
    assert model.training_.empty


def test_predictions_fit_the_target(base):
    betas = st.SpatialCellularProgramsEstimator(base, "PAX5", body="surface").fit().get_betas()
    terms = betas.terms
    x = np.ones(betas.shape)
    expression = base.to_df(layer="log1p")
    received = base.uns["received_ligands"].join(base.uns["received_ligands_tfl"].add_suffix("_tfl"))
    for i, row in enumerate(terms.itertuples()):
        if row.kind == "intercept":
            continue
        x[:, i] = expression[row.receptor or row.tf or row.ligand]
        if row.kind in ("lr", "tfl"):
            x[:, i] *= received[f"{row.ligand}|contact" if row.range == "contact" else row.ligand]
    predicted = (x * betas.to_numpy()).sum(axis=1)
    assert np.corrcoef(predicted, expression["PAX5"])[0, 1] > 0.9


def test_a_network_leaves_its_curves(base):
    network = st.nn.NetworkConfig(n_epochs=2, batch_size=128, device="cpu")
    model = st.SpatialCellularProgramsEstimator(base, "PAX5", body="cnn", network=network).fit()
    assert model.training_["epoch"].tolist() == list(range(len(model.training_)))
    assert 1 <= len(model.training_) <= 3
    assert np.isfinite(model.training_[["train", "validation"]]).all(axis=None)
    assert model.scores_["r2_network"].notna().all()


def test_not_fitted(base):
    with pytest.raises(AttributeError, match=r"Expected a fitted model, found none; call `\.fit\(\)` first"):
        st.SpatialCellularProgramsEstimator(base, "PAX5").get_betas()


def test_errors_come_with_the_fit(base):
    with pytest.raises(KeyError, match="closest: PAX5"):
        st.SpatialCellularProgramsEstimator(base, "PAX55").fit()
    with pytest.raises(ValueError, match="Expected `body` to be one of"):
        st.SpatialCellularProgramsEstimator(base, "PAX5", body="forest").fit()
    with pytest.raises(TypeError, match="bodi"):
        st.SpatialCellularProgramsEstimator(base, "PAX5", bodi="cnn").fit()
    with pytest.raises(TypeError, match="AnnData or SpatialData"):
        st.SpatialCellularProgramsEstimator(base.to_df(), "PAX5").fit()
