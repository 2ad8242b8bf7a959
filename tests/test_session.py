"""The session that the README and the design show, as written, on a small tissue."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import spacetravlr as st


@pytest.fixture
def small_tissue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the session's tissue smaller than the default, so that the test is short."""
    make = st.datasets.simulated_tissue
    monkeypatch.setattr(st.datasets, "simulated_tissue", lambda rng: make(n_cells=500, n_targets=3, n_pairs=6, rng=rng))


@pytest.mark.usefixtures("small_tissue")
def test_the_ten_line_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")

    adata = st.datasets.simulated_tissue(rng=0)
    grn, lr, nichenet = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata, radius=200, contact_radius=30)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=nichenet, cluster_key="cell_type")
    st.tl.fit_betas(adata, body="auto")
    st.pl.betas(adata, target="PAX5", modulator="FOXO1")
    st.tl.perturb(adata, {"FOXO1": 0})
    st.tl.perturbation_vectors(adata, basis="spatial")
    st.pl.perturbation_vectors(adata, basis="spatial")
    screen = st.tl.genome_screen(adata, mode="knockout", save_to="ko_results")
    plt.close("all")

    foxo1 = adata.var_names.get_loc("FOXO1")
    assert np.all(adata.layers["perturbed"][:, foxo1] == 0)
    assert adata.obsm["perturbed_spatial"].shape == (adata.n_obs, 2)
    assert set(screen.obs_names) == set(st.tl.possible_targets(adata))
    assert len(list((tmp_path / "ko_results").iterdir())) >= screen.n_obs

    gf = st.GeneFactory(adata)
    again = gf.genome_screen(save_to="./ko_results", mode="knockout", n_propagation=4)
    np.testing.assert_array_equal(again.X, screen.X)
