"""A section without contact signals, as spots are, from weights to what is made of a fit."""

from __future__ import annotations

import numpy as np
import pytest

import spacetravlr as st


def prepared(adata, contact_radius):
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata, contact_radius=contact_radius)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


def fitted(adata):
    st.tl.fit_betas(adata, body="seed", l1_penalty=0.02, group_penalty=0.02, n_jobs=1)
    return adata


@pytest.fixture(scope="module")
def tissue():
    return st.datasets.simulated_tissue(n_cells=250, n_targets=2, n_contact_pairs=2, depth=5.0, rng=1)


@pytest.fixture(scope="module")
def without(tissue):
    return fitted(prepared(tissue.copy(), None))


def test_no_term_is_of_contact(without):
    assert (prepared(without.copy(), 30).uns["modulators"]["table"]["range"] == "contact").any()
    assert not (without.uns["betas"]["terms"]["range"] == "contact").any()
    assert (without.uns["betas"]["terms"]["range"] == "secreted").any()


def test_what_comes_after_a_fit(without, tmp_path):
    st.io.write(without, tmp_path / "fitted.h5ad")
    adata = st.io.read(tmp_path / "fitted.h5ad")
    for each in (adata, without):
        st.tl.perturb(each, "FOXO1")
    np.testing.assert_allclose(adata.layers["perturbed"], without.layers["perturbed"], atol=1e-6)
    assert (st.get.perturbation_effect(adata)["change"] != 0).any()
    ligand = adata.uns["received_ligands"].columns[0]
    screen = st.tl.genome_screen(adata, genes=["FOXO1", ligand])
    assert list(screen.obs_names) == ["FOXO1", ligand]
    st.tl.drivers(adata, "PAX5", n_check=1)
    st.tl.test_signals(adata, counts_layer="counts", n_jobs=1)
    assert not st.get.signals(adata)["signal"].str.contains("contact").any()
    assert set(st.get.senders(adata, ligand)["receiver"]) == set(adata.obs["cell_type"])
    st.tl.replicate(adata, counts_layer="counts", genes="FOXO1", n_jobs=1)
    assert np.isfinite(adata.uns["replicate"]["targets"]["r2"]).all()


def test_coefficients_are_transferred(without, tissue):
    query = prepared(tissue.copy(), None)
    st.tl.transfer_betas(without, query)
    st.tl.perturb(query, "FOXO1")
    with pytest.raises(ValueError, match=r"as in `reference`, found contact_radius"):
        st.tl.transfer_betas(without, prepared(tissue.copy(), 30))


def test_contact_terms_of_an_earlier_call_are_an_error(tissue):
    adata = prepared(tissue.copy(), 30)
    with_contact = fitted(adata.copy())
    for each in (adata, with_contact):
        st.pp.spatial_weights(each, contact_radius=None)
    with pytest.raises(ValueError, match="Expected no contact signals"):
        fitted(adata)
    with pytest.raises(ValueError, match="Expected no contact signals"):
        st.tl.perturb(with_contact, "FOXO1")
    _, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    with pytest.raises(ValueError, match="Expected no contact signals"):
        fitted(adata)
