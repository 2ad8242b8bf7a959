"""A small tissue with known coefficients in the place of fitted ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import spacetravlr as st


@pytest.fixture(scope="session")
def _base():
    adata = st.datasets.simulated_tissue(
        n_cells=150,
        n_cell_types=3,
        n_targets=5,
        n_tfs=4,
        n_active_tfs=3,
        n_pairs=5,
        n_active_pairs=3,
        n_contact_pairs=1,
        n_ligand_tf=2,
        n_relays=2,
        rng=1,
    )
    names = ["T/NK", "B", "stroma"]
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(names)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"], layer="log1p")
    terms = adata.uns["simulation"]["terms"].copy()
    terms["importance"] = np.linspace(0, 1, len(terms))
    terms["evidence"] = 1.0
    targets = list(dict.fromkeys(terms["target"].astype(str)))
    sizes = adata.obs["cell_type"].value_counts()
    scores = pd.DataFrame(
        [
            {
                "target": target,
                "cell_type": name,
                "n_cells": int(sizes[name]),
                "n_report": int(sizes[name]) // 4,
                "sst_report": 1.0 + i,
                "r2_zero": 0.0,
                "r2_kept": 0.1 * t + 0.2 * i,
                "kept": "zero" if t == 0 and i == 0 else "surface",
            }
            for t, target in enumerate(targets)
            for i, name in enumerate(names)
        ]
    )
    adata.obsm["betas"] = adata.obsm["true_betas"].copy()
    adata.uns["betas"] = {
        "terms": terms,
        "scores": scores,
        "params": {"layer": "log1p", "cluster_key": "cell_type", "received_key": "received_ligands"},
        "store": "",
    }
    return adata


@pytest.fixture
def adata(_base):
    return _base.copy()
