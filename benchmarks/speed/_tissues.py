"""Simulated inputs at a fixed density of cells, whatever their number."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

import spacetravlr as st
from spacetravlr._types import Floats

_AREA = 100.0  # square micrometres a cell, where only coordinates are needed
_ACTIVE = {"n_active_tfs": 8, "n_active_pairs": 4, "n_active_ligand_tf": 1}


def coordinates(n_cells: int, *, seed: int = 0) -> Floats:
    """Cells anywhere in a square with one cell per 100 square micrometres."""
    return np.random.default_rng(seed).uniform(0, np.sqrt(_AREA * n_cells), (n_cells, 2))


def prepared(n_cells: int, n_types: int, n_targets: int, n_modulators: int, *, seed: int = 0) -> AnnData:
    """A simulated tissue that is ready for a fit, with about ``n_modulators`` modulators per target.

    A target has its own factors, drawn from three times as many and its true ones among them, all pairs, and the
    ligand-TF terms of its factors; so targets share regressors about as much as those of a real panel do. Receptors by
    themselves are left out.
    """
    n_tfs, n_pairs = round(0.3 * n_modulators), round(0.55 * n_modulators)
    adata = st.datasets.simulated_tissue(
        n_cells=n_cells,
        n_cell_types=n_types,
        n_targets=n_targets,
        n_tfs=3 * n_tfs,
        n_pairs=n_pairs,
        n_contact_pairs=n_pairs // 6,
        n_ligand_tf=round(1.5 * n_tfs),
        keep_truth=False,
        rng=seed,
        **_ACTIVE,
    )
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    truth = adata.uns["simulation"]["terms"]
    truth = truth[(truth["kind"].astype(str) == "tf") & truth["active"]]
    edges = grn["tf"].astype(str) + " " + grn["target"].astype(str)
    is_true = edges.isin(set(truth["tf"].astype(str) + " " + truth["target"].astype(str)))
    order = np.random.default_rng(seed).random(len(grn)) - is_true.to_numpy()
    kept = grn.assign(order=order).groupby("target", sort=False)["order"].rank() <= n_tfs
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr)
    st.pp.modulators(adata, grn[kept.to_numpy()], ligand_tf=ligand_tf, main_effects=False)
    return adata
