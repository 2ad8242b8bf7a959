"""Real tissue sections, from the local data folder or the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacetravlr._download import fetch_file

if TYPE_CHECKING:
    from anndata import AnnData


def human_nsclc_cosmx() -> AnnData:
    """Read a part of a human lung tumour, CosMx (6,646 cells x 960 genes).

    Raw counts are in ``X``, coordinates in micrometres in ``obsm["spatial"]`` and annotated regions in
    ``obs["region"]``. There are no cell types: cluster first. From He et al. 2022 (Lung5_Rep3); ``uns["source"]`` names
    the file.

    Returns
    -------
    The section.

    Raises
    ------
    FileNotFoundError
        If the file is neither in the local data folder (environment variable ``SPACETRAVLR_DATA``) nor in the cache.
    """
    return _section("human_nsclc_cosmx", "github.com/bhuvad/CosMxSpatialAnalysisWorkshop (data/lung5.rda)")


def mouse_visual_cortex_starmap() -> AnnData:
    """Read a mouse primary visual cortex, STARmap (1,207 cells x 1,020 genes).

    Raw counts are in ``X``, 16 cell types in ``obs["cell_type"]`` and cortical layers in ``obs["region"]``. One
    coordinate unit is about 0.1 micrometres (not stated by the source): pass ``microns_per_unit=0.1``. From Wang et al.
    2018 (BY3).

    Returns
    -------
    The section.

    Raises
    ------
    FileNotFoundError
        If the file is neither in the local data folder (environment variable ``SPACETRAVLR_DATA``) nor in the cache.
    """
    return _section("mouse_visual_cortex_starmap", "github.com/prabhakarlab/Banksy_py (data/starmap)")


def human_breast_st() -> AnnData:
    """Read a HER2-positive breast tumour, Spatial Transcriptomics (613 spots x 12,491 genes).

    Raw counts of 100 micrometre spots, 200 micrometres apart, so a radius of 200 reaches direct neighbours only.
    ``obs["cell_type"]`` holds the regions annotated by a pathologist. From Andersson et al. 2021 (H1).

    Returns
    -------
    The section.

    Raises
    ------
    FileNotFoundError
        If the file is neither in the local data folder (environment variable ``SPACETRAVLR_DATA``) nor in the cache.
    """
    return _section("human_breast_st", "github.com/almaan/her2st (section H1)")


def mouse_cerebellum_slideseq() -> AnnData:
    """Read a mouse cerebellum, Slide-seq (7,469 beads x 11,519 genes).

    Raw counts of 10 micrometre beads, very sparse (49 per bead). Coordinates in ``obsm["spatial"]`` are in micrometres.
    There are no cell types. From Rodriques et al. 2019.

    Returns
    -------
    The section.

    Raises
    ------
    FileNotFoundError
        If the file is neither in the local data folder (environment variable ``SPACETRAVLR_DATA``) nor in the cache.
    """
    return _section("mouse_cerebellum_slideseq", "github.com/almaan/sepal (data/real/cerebellum.tsv.gz)")


def _section(name: str, source: str) -> AnnData:
    from anndata import read_h5ad

    hint = (
        "The section was assembled from public files and cannot be downloaded as such; its source is "
        f"https://{source}. For a tissue that needs no file, call `st.datasets.simulated_tissue()`."
    )
    return read_h5ad(fetch_file(f"{name}.h5ad", hint=hint))
