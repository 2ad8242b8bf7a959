"""The session that the README and the design show, as written, on a small tissue."""

from __future__ import annotations

from pathlib import Path

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


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a session that asks for cells and depth."""
    make = st.datasets.simulated_tissue
    small = {"n_cells": 500, "n_targets": 3, "n_pairs": 6}
    monkeypatch.setattr(st.datasets, "simulated_tissue", lambda **options: make(**(options | small)))


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


@pytest.mark.usefixtures("small_counts")
def test_the_session_of_the_readme(tmp_path, monkeypatch):
    """The Python block of the README, as written, on fewer cells and draws."""
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    session = readme.split("## A session")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(session.replace("n_samples=50", "n_samples=4"), "README.md", "exec"), names)
    plt.close("all")
    adata, screen = names["adata"], names["screen"]
    assert {"perturbed", "perturbed_se"} <= set(adata.layers)
    assert {"betas", "signals_test", "drivers", "perturbed"} <= set(adata.uns)
    assert set(screen.obs_names) == set(st.tl.possible_targets(adata))
