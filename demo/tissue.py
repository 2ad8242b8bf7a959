"""What the demonstration runs on: a simulated tissue, or a section of yours with the tables that fit it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from sklearn.cluster import KMeans

import spacetravlr as st

CELL_TYPE = "cell_type"
N_CLUSTERS = 8
N_PCS = 30
MIN_CELLS = 20
# the rebuilt ligand-TF table runs higher than NicheNet's own; this is where its 0.01 falls
REBUILT_CUTOFF = 0.062


class Case(NamedTuple):
    """A tissue ready for the pipeline: ``layers["log1p"]``, ``obs["cell_type"]``, coordinates and prior tables."""

    adata: ad.AnnData
    grn: pd.DataFrame
    ligand_receptor: pd.DataFrame
    ligand_tf: pd.DataFrame | None
    targets: list[str] | None
    cutoff: float


def simulated(*, rng: int) -> Case:
    """A tissue of counts in which every regulator of every target is known."""
    adata = st.datasets.simulated_tissue(n_cells=4000, depth=2.0, programs=0.3, rng=rng)
    grn, ligand_receptor, ligand_tf = st.datasets.simulated_priors(adata)
    return Case(adata, grn, ligand_receptor, ligand_tf, None, cutoff=0.01)


def section(path: Path, *, n_targets: int, rng: int) -> Case:
    """Your section: raw counts in ``X`` and coordinates in ``obsm["spatial"]``."""
    adata = ad.read_h5ad(path)
    adata.var_names_make_unique()
    sc.pp.filter_cells(adata, min_counts=10)
    sc.pp.filter_genes(adata, min_cells=MIN_CELLS)
    if is_counts(adata.X):
        adata.layers["counts"] = adata.X.copy()
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
    adata.layers["log1p"] = adata.X.copy()
    if CELL_TYPE not in adata.obs:
        cluster(adata, rng=rng)
    adata.obs[CELL_TYPE] = adata.obs[CELL_TYPE].astype(str).astype("category")

    organism = "human" if np.mean([name.isupper() for name in adata.var_names]) > 0.5 else "mouse"
    print(f"gene names look like {organism}: its tables are used")
    grn = st.priors.fetch_base_grn(organism=organism)
    ligand_receptor = st.priors.fetch_ligand_receptor(organism=organism)
    ligand_tf = fetch_ligand_tf(organism)
    targets = variable_targets(adata, grn, n_targets)
    return Case(adata, grn, ligand_receptor, ligand_tf, targets, cutoff=REBUILT_CUTOFF)


def is_counts(values: np.ndarray | sparse.spmatrix) -> bool:
    """Whether the first values are whole numbers."""
    some = values[:200]
    some = some.data if sparse.issparse(some) else np.asarray(some)
    return bool(np.all(some == np.round(some)))


def cluster(adata: ad.AnnData, *, rng: int) -> None:
    """Write k-means clusters of the principal components as cell types, for sections that come without."""
    components = sc.pp.pca(adata.X, n_comps=N_PCS, random_state=rng)
    labels = KMeans(N_CLUSTERS, n_init=4, random_state=rng).fit_predict(components)
    adata.obs[CELL_TYPE] = pd.Categorical([f"cluster {label + 1}" for label in labels])
    print(f"no obs[{CELL_TYPE!r}]: {N_CLUSTERS} clusters of {N_PCS} principal components stand in for cell types")


def fetch_ligand_tf(organism: str) -> pd.DataFrame | None:
    """Ligand-TF potentials where they can be had: NicheNet publishes them for R only."""
    try:
        return st.priors.fetch_ligand_tf(organism=organism)
    except FileNotFoundError as error:
        print(f"no ligand-TF terms: {error}")
        return None


def variable_targets(adata: ad.AnnData, grn: pd.DataFrame, n_targets: int) -> list[str]:
    """The most variable genes that have a measured regulator."""
    edges = grn[["tf", "target"]].astype(str)
    measured = edges[edges["tf"].isin(adata.var_names) & (edges["tf"] != edges["target"])]
    variable = sc.pp.highly_variable_genes(adata, layer="log1p", inplace=False)
    ranked = variable.set_index(adata.var_names)["dispersions_norm"].sort_values(ascending=False).index
    chosen = [gene for gene in ranked if gene in set(measured["target"])][:n_targets]
    print(f"{len(chosen)} targets: the most variable genes with a measured regulator: {', '.join(chosen[:12])}, ...")
    return chosen
