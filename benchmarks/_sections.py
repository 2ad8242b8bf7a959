"""The real sections of the benchmark, brought to where a session with the package starts."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from sklearn.cluster import KMeans

import spacetravlr as st

#: The rebuilt ligand-TF table runs higher than NicheNet's own; this is where 0.01 of the published one falls.
LIGAND_TF_CUTOFF = 0.062
_MIN_COUNTS, _MIN_CELLS = 10, 20
_N_PCS, _N_CLUSTERS = 30, 8


class Section(NamedTuple):
    """A tissue section and what a user has to say about it."""

    read: Callable[[], AnnData]
    organism: Literal["human", "mouse"]
    microns_per_unit: float
    title: str


SECTIONS = {
    "nsclc": Section(st.datasets.human_nsclc_cosmx, "human", 1.0, "human lung tumour, CosMx"),
    "cortex": Section(st.datasets.mouse_visual_cortex_starmap, "mouse", 0.1, "mouse visual cortex, STARmap"),
    "breast": Section(st.datasets.human_breast_st, "human", 1.0, "human breast tumour, Spatial Transcriptomics"),
    "cerebellum": Section(st.datasets.mouse_cerebellum_slideseq, "mouse", 1.0, "mouse cerebellum, Slide-seq"),
}


class Priors(NamedTuple):
    """The prior tables of an organism."""

    grn: pd.DataFrame
    ligand_receptor: pd.DataFrame
    ligand_tf: pd.DataFrame


def fetch_priors(organism: Literal["human", "mouse"]) -> Priors:
    """Read the tables; the ligand-TF table of mouse is the human one, by one-to-one orthologs."""
    return Priors(
        st.priors.fetch_base_grn(organism=organism),
        st.priors.fetch_ligand_receptor(organism=organism),
        st.priors.fetch_ligand_tf(organism=organism),
    )


def normalise(section: Section, *, seed: int) -> AnnData:
    """Filter, normalise and, where the section has no cell types, cluster, as scanpy users do."""
    adata = section.read()
    adata.var_names_make_unique()
    sc.pp.filter_cells(adata, min_counts=_MIN_COUNTS)
    sc.pp.filter_genes(adata, min_cells=_MIN_CELLS)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    adata.layers["log1p"] = adata.X.copy()
    adata.obsm["X_pca"] = sc.pp.pca(adata.X, n_comps=_N_PCS, random_state=seed)
    if "cell_type" not in adata.obs:
        adata.obs["cell_type"] = clusters(adata, seed=seed)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).astype("category")
    return adata


def clusters(adata: AnnData, *, seed: int) -> pd.Categorical:
    """Leiden clusters where its libraries are installed, else k-means of the principal components."""
    if find_spec("igraph") and find_spec("leidenalg"):
        sc.pp.neighbors(adata, use_rep="X_pca", random_state=seed)
        sc.tl.leiden(adata, resolution=0.5, flavor="igraph", n_iterations=2, random_state=seed, key_added="leiden")
        labels = adata.obs.pop("leiden").astype(int).to_numpy()
    else:
        labels = KMeans(_N_CLUSTERS, n_init=4, random_state=seed).fit_predict(adata.obsm["X_pca"])
    return pd.Categorical([f"cluster {label + 1}" for label in labels])


def variable_targets(adata: AnnData, grn: pd.DataFrame, n: int) -> list[str]:
    """The ``n`` most variable genes that have a measured regulator."""
    known = grn[grn["tf"].isin(adata.var_names) & (grn["tf"].astype(str) != grn["target"].astype(str))]
    variable = sc.pp.highly_variable_genes(adata, layer="log1p", inplace=False)
    dispersion = np.nan_to_num(variable["dispersions_norm"].to_numpy(float), nan=-np.inf)
    has_regulator = adata.var_names.isin(known["target"].astype(str))
    order = np.argsort(-np.where(has_regulator, dispersion, -np.inf), kind="stable")
    return list(adata.var_names[order[: min(n, int(has_regulator.sum()))]])
