"""A small tissue that went through every step; its coefficients are the true ones."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st


def make_tissue(n_cells=240, **options):
    """Simulated tissue with coefficients and scores as `tl.fit_betas` writes them."""
    adata = st.datasets.simulated_tissue(n_cells=n_cells, n_targets=4, rng=0, **options)
    grn, pairs, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata, library_key="slide" if "slide" in adata.obs else None)
    st.pp.received_ligands(adata, pairs, layer="log1p")
    st.pp.niche(adata, radius=100)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    rng = np.random.default_rng(0)
    terms = adata.uns["simulation"]["terms"].copy()
    betas = adata.obsm["true_betas"].copy()
    terms["importance"] = np.abs(betas).mean(axis=0) * np.where(terms["kind"].isin(["lr", "tfl"]), 100, 1)
    terms["evidence"] = terms["active"].astype(float)
    targets, types = terms["target"].unique(), adata.obs["cell_type"].cat.categories
    scores = pd.DataFrame([(t, c) for t in targets for c in types], columns=["target", "cell_type"])
    scores["n_cells"] = scores["n_report"] = adata.obs["cell_type"].value_counts()[scores["cell_type"]].to_numpy()
    scores["sst_report"] = scores["n_cells"] * rng.uniform(0.1, 0.3, len(scores))
    scores["r2_zero"] = 0.0
    scores["r2_seed"] = rng.uniform(0.1, 0.6, len(scores))
    scores["r2_surface"] = scores["r2_seed"] + rng.normal(0.1, 0.08, len(scores))
    scores["r2_network"] = scores["r2_seed"] + rng.normal(0.03, 0.08, len(scores))
    for body in ("seed", "surface", "network"):
        scores[f"r2_train_{body}"] = scores[f"r2_{body}"] + 0.1
    scores.loc[0, "r2_network"] = np.nan
    bodies = ["zero", "seed", "surface", "network"]
    best = scores[[f"r2_{b}" for b in bodies]].fillna(-1).to_numpy().argmax(axis=1)
    scores["kept"] = pd.Categorical(np.array(bodies)[best], categories=bodies)
    scores["r2_kept"] = scores[[f"r2_{b}" for b in bodies]].max(axis=1)
    epochs = np.arange(1, 21)
    training = pd.concat(
        pd.DataFrame(
            {"target": t, "epoch": epochs, "train": np.exp(-epochs / s), "validation": 0.1 + np.exp(-epochs / s)}
        )
        for t, s in zip(targets, rng.uniform(3, 7, len(targets)), strict=True)
    )
    adata.uns["signals_test"] = _signals_test(adata)
    adata.obsm["betas"] = betas
    adata.uns["betas"] = {
        "terms": terms,
        "scores": scores,
        "training": training.reset_index(drop=True),
        "params": {"layer": "log1p", "cluster_key": "cell_type", "received_key": "received_ligands"},
        "store": "",
    }
    return adata


def _signals_test(adata):
    """Tests of signals whose numbers are a formula, as `tl.test_signals` writes them."""
    pairs = adata.uns["received_ligands_params"]["pairs"]
    targets = list(adata.uns["modulators"]["table"]["target"].unique())
    rows = []
    for t, target in enumerate(targets):
        for s, pair in enumerate(pairs.drop_duplicates(["ligand", "range"]).itertuples()):
            strength = np.sin(1.7 * t + 2.3 * s)
            rows.append(
                {
                    "target": target, "ligand": pair.ligand, "range": pair.range, "receptors": pair.receptor,
                    "signal": pair.ligand + ("|contact" if pair.range == "contact" else ""), "pathway": pair.pathway,
                    "partner": "FOXO1" if (t + s) % 6 == 0 else pair.receptor, "effect": 0.2 * strength,
                    "kind": "tfl" if (t + s) % 6 == 0 else "lr", "gain": 0.01 * strength * abs(strength),
                    "p": np.exp(-9 * abs(strength)), "q": np.exp(-4 * strength**2) if strength**2 > 0.7 else 0.9,
                }
            )  # fmt: skip
    return {"signals": pd.DataFrame(rows), "params": {"cluster_key": "cell_type", "received_key": "received_ligands"}}


@pytest.fixture(scope="session")
def _tissue():
    return make_tissue()


@pytest.fixture
def adata(_tissue):
    return _tissue.copy()


@pytest.fixture(scope="session")
def slides():
    return make_tissue(n_slides=2, n_cells=200)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")
