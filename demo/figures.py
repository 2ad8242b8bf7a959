"""The figures of the demonstration."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np

import spacetravlr as st

CELL_TYPE = "cell_type"
DPI = 110


def draw(adata: ad.AnnData, screen: ad.AnnData, *, regulator: str, target: str, folder: Path) -> list[Path]:
    """Write one figure a step and one that shows them together; returns the files."""
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
        "perturbation_vectors": lambda: st.pl.perturbation_vectors(
            adata, basis="spatial", color=CELL_TYPE, return_fig=True
        ),
        "screen": lambda: st.pl.screen(screen, return_fig=True),
    }
    paths = [save(make(), folder / f"{name}.png") for name, make in figures.items()]
    return [*paths, save(overview(adata, regulator=regulator, target=target), folder / "overview.png")]


def overview(adata: ad.AnnData, *, regulator: str, target: str) -> plt.Figure:
    """One row: the fitted coefficient, the true one where it is known, the change, and the arrows."""
    truth = true_coefficient(adata, regulator, target)
    n = 4 if truth is not None else 3
    figure, axes = plt.subplots(1, n, figsize=(4.6 * n, 4.2), layout="constrained")
    axes = list(axes)
    limit = None if truth is None else float(np.quantile(np.abs(truth), 0.99))
    title = f"{regulator} on {target}"
    st.pl.betas(adata, target, regulator, ax=axes.pop(0), limit=limit, title=f"{title}, fitted")
    if truth is not None:
        x, y = np.asarray(adata.obsm["spatial"])[:, :2].T
        style = {"s": 9, "cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "linewidths": 0}
        axis = axes.pop(0)
        figure.colorbar(axis.scatter(x, y, c=truth, **style), ax=axis, shrink=0.7)
        axis.set(title=f"{title}, simulated", aspect="equal", xticks=[], yticks=[])
    st.pl.perturbation(adata, target, ax=axes.pop(0), title=f"{target} without {regulator}")
    st.pl.perturbation_vectors(adata, basis="spatial", color=CELL_TYPE, ax=axes.pop(0))
    return figure


def true_coefficient(adata: ad.AnnData, regulator: str, target: str) -> np.ndarray | None:
    """The simulated coefficient of a transcription factor, where there is one."""
    if "true_betas" not in adata.obsm:
        return None
    terms = adata.uns["simulation"]["terms"]
    found = (terms["target"] == target) & (terms["kind"] == "tf") & (terms["tf"] == regulator)
    return np.asarray(adata.obsm["true_betas"])[:, np.flatnonzero(found)[0]] if found.any() else None


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a figure and forget it."""
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    return path
