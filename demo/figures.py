"""The figures of the demonstration."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np

import spacetravlr as st

CELL_TYPE = "cell_type"
DPI = 90


def draw(adata: ad.AnnData, screen: ad.AnnData, *, regulator: str, target: str, folder: Path) -> list[Path]:
    """Write one figure per step and one that shows them together; returns the files."""
    st.pp.niche(adata, cluster_key=CELL_TYPE, radius=200)
    received = adata.uns["received_ligands"]
    shown = received.columns[np.argsort(-received.std().to_numpy())[:3]]
    cell = adata.obs_names[adata.n_obs // 2]
    figures = {
        "spatial_weights": lambda: st.pl.spatial_weights(adata, return_fig=True),
        "received_ligands": lambda: st.pl.received_ligands(adata, list(shown), return_fig=True),
        "niche": lambda: st.pl.niche(adata, cell, return_fig=True),
        "betas": lambda: st.pl.betas(adata, target, return_fig=True),
        "modulators": lambda: st.pl.modulators(adata, target, return_fig=True),
        "scores": lambda: st.pl.scores(adata, return_fig=True),
        "perturbation": lambda: st.pl.perturbation(adata, target, return_fig=True),
        "perturbation_vectors": lambda: st.pl.perturbation_vectors(adata, basis="spatial", return_fig=True),
        "screen": lambda: st.pl.screen(screen, return_fig=True),
    }
    paths = [save(make(), folder / f"{name}.png") for name, make in figures.items()]
    return [*paths, save(overview(adata, regulator=regulator, target=target), folder / "overview.png")]


def overview(adata: ad.AnnData, *, regulator: str, target: str) -> plt.Figure:
    """One row: the fitted coefficient, the true one where it is known, the change, and the arrows."""
    truth = with_true_betas(adata) if "true_betas" in adata.obsm else None
    n = 4 if truth is not None else 3
    figure, axes = plt.subplots(1, n, figsize=(4.6 * n, 4.2), layout="constrained")
    fitted = st.get.betas(adata, target)[f"beta_{regulator}"]
    shared = {"limit": float(fitted.abs().quantile(0.99)) or None}
    left = list(axes)
    st.pl.betas(adata, target, regulator, ax=left.pop(0), title=f"{regulator} on {target}, fitted", **shared)
    if truth is not None:
        st.pl.betas(truth, target, regulator, ax=left.pop(0), title=f"{regulator} on {target}, simulated", **shared)
    st.pl.perturbation(adata, target, ax=left.pop(0), title=f"{target} without {regulator}")
    title = f"vector field without {regulator}"
    st.pl.perturbation_vectors(adata, basis="spatial", ax=left.pop(0), title=title)
    return figure


def with_true_betas(adata: ad.AnnData) -> ad.AnnData:
    """A copy in which the simulated coefficients take the place of the fitted ones."""
    truth = adata.copy()
    truth.obsm["betas"] = truth.obsm["true_betas"]
    fit = adata.uns["betas"]  # less its note of what it rests on: that is not of these coefficients
    truth.uns["betas"] = {"terms": adata.uns["simulation"]["terms"], "scores": fit["scores"], "params": fit["params"]}
    return truth


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a figure and forget it."""
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    return path
