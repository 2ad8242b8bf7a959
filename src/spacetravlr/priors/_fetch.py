"""Public prior tables, found in the local data folder, in the cache or at their public address."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from spacetravlr._download import fetch_file
from spacetravlr._validators import assert_one_of
from spacetravlr.priors._base_grn import read_base_grn
from spacetravlr.priors._ligand_receptor import read_ligand_receptor
from spacetravlr.priors._ligand_tf import read_ligand_tf
from spacetravlr.priors._orthologs import map_orthologs
from spacetravlr.priors._tables import read_table

logger = logging.getLogger(__name__)

Organism = Literal["human", "mouse"]

_TAXON = {"human": 9606, "mouse": 10090}
_OMNIPATH = "https://omnipathdb.org/interactions/?genesymbols=1&license=academic&organisms={taxon}&datasets={dataset}"
_COLLECTRI = "https://zenodo.org/records/8192729/files/CollecTRI_regulons.csv"
_LIANA = (
    "https://raw.githubusercontent.com/saezlab/liana-py/0d87f67b49d7fb017a95265c4fae18aff19d4640/"
    "src/liana/resource/omni_resource.csv"
)
_CELLCHAT_HINT = (
    "In R, `write.csv(CellChat::CellChatDB.{organism}$interaction, ...)` writes it; "
    "`resource='consensus'` can be downloaded."
)
_NICHENET_HINT = (
    "NicheNet publishes R files only (https://zenodo.org/records/7074291): in R, read "
    "`ligand_tf_matrix_nsga2r_final.rds` with `readRDS` and write it with `arrow::write_parquet`, TFs as rows. "
    "Any such table can be given to `st.priors.read_ligand_tf`."
)
_ORTHOLOG_HINT = (
    "Any table with the columns 'human' and 'mouse', such as one exported from Ensembl BioMart, can be given to "
    "`st.priors.map_orthologs`."
)


def fetch_base_grn(
    *,
    organism: Organism = "human",
    resource: Literal["dorothea", "collectri"] = "dorothea",
    confidence: str | Sequence[str] = "ABCD",
    known_hash: str | None = None,
) -> pd.DataFrame:
    """Get a base gene-regulatory network.

    Looks in the folder that ``SPACETRAVLR_DATA`` names (``grn_<organism>_dorothea.parquet``), then in
    ``st.settings.cache_dir``, then downloads: DoRothEA from the OmniPath web service, CollecTRI for human from Zenodo
    record 8192729 and for mouse from OmniPath. None of them is part of this package; mind their licences.

    Parameters
    ----------
    organism
        ``"human"`` or ``"mouse"``.
    resource
        ``"dorothea"`` or ``"collectri"``.
    confidence
        Levels of DoRothEA to keep. Level E, predictions alone, is most of the table and is left out by default (the
        web service does not offer it).
    known_hash
        SHA256 that a download must have. Without it the first download is trusted, with a logged warning, and its hash
        kept beside the file and checked from then on.

    Returns
    -------
    Table ``tf, target, weight``, see :func:`read_base_grn`.

    Raises
    ------
    ConnectionError
        When the download fails; the message says where to put the file by hand.
    ValueError
        When an option is unknown or the file does not have the expected hash.
    """
    assert_one_of(organism, tuple(_TAXON), name="organism")
    assert_one_of(resource, ("dorothea", "collectri"), name="resource")
    url = _OMNIPATH.format(taxon=_TAXON[organism], dataset=resource)
    if resource == "dorothea":
        path = fetch_file(
            f"dorothea_{organism}.tsv",
            url=f"{url}&dorothea_levels=A,B,C,D&fields=dorothea_level",
            known_hash=known_hash,
            local=f"grn_{organism}_dorothea.parquet",
        )
        return read_base_grn(path, confidence=confidence)
    if organism == "human":
        return read_base_grn(fetch_file("collectri_human.csv", url=_COLLECTRI, known_hash=known_hash))
    return read_base_grn(fetch_file("collectri_mouse.tsv", url=url, known_hash=known_hash))


def fetch_ligand_receptor(
    *,
    organism: Organism = "human",
    resource: Literal["cellchatdb", "consensus"] = "cellchatdb",
    known_hash: str | None = None,
) -> pd.DataFrame:
    """Get ligand-receptor pairs.

    Looks in the folder that ``SPACETRAVLR_DATA`` names (``lr_cellchatdb_<organism>.csv.gz``), then in
    ``st.settings.cache_dir``, then downloads LIANA's table of resources (Dimitrov et al., 2022). That table does not
    say which pairs need contact: all of them come out as secreted, and a warning is logged. None is part of this
    package; mind the licences.

    Parameters
    ----------
    organism
        ``"human"`` or ``"mouse"``.
    resource
        ``"cellchatdb"`` or ``"consensus"`` (LIANA's; download only).
    known_hash
        As in :func:`fetch_base_grn`.

    Returns
    -------
    Table ``ligand, receptor, range, pathway``, see :func:`read_ligand_receptor`.

    Raises
    ------
    FileNotFoundError
        For CellChatDB of the mouse, which cannot be downloaded in a format that Python reads, when the file is nowhere.
    ConnectionError, ValueError
        As in :func:`fetch_base_grn`.
    """
    assert_one_of(organism, tuple(_TAXON), name="organism")
    assert_one_of(resource, ("cellchatdb", "consensus"), name="resource")
    if resource == "cellchatdb" and organism == "mouse":
        name = "lr_cellchatdb_mouse.csv.gz"
        return read_ligand_receptor(fetch_file(name, hint=_CELLCHAT_HINT.format(organism=organism)))
    path = fetch_file(
        "liana_omni_resource.csv",
        url=_LIANA,
        known_hash=known_hash,
        hint=_CELLCHAT_HINT.format(organism=organism) if resource == "cellchatdb" else "",
        local="lr_cellchatdb_human.csv.gz" if resource == "cellchatdb" else None,
    )
    if path.name.startswith("lr_cellchatdb"):
        return read_ligand_receptor(path)
    logger.warning("The downloaded pairs have no annotation of contact; all are read as secreted.")
    name = {"cellchatdb": "cellchatdb", "consensus": "consensus" if organism == "human" else "mouseconsensus"}[resource]
    return read_ligand_receptor(path, resource=name)


def fetch_ligand_tf(
    *,
    organism: Organism = "human",
    url: str | None = None,
    known_hash: str | None = None,
    min_score: float = 0.0,
) -> pd.DataFrame:
    """Get ligand-to-TF regulatory potentials.

    NicheNet's own matrices are published as R files, which Python does not read, so this looks for a file that you
    made from them: ``nichenet_like_ligand_tf_human.parquet`` in the folder that ``SPACETRAVLR_DATA`` names, then
    ``ligand_tf_human.parquet`` in ``st.settings.cache_dir``, then at ``url``. To make it, read
    ``ligand_tf_matrix_nsga2r_final.rds`` of Zenodo record 7074291 in R and write it with ``arrow::write_parquet``.
    The mouse table is the human one carried over with :func:`fetch_orthologs`.

    The scale of the scores depends on how they were made: ``cutoff`` of :func:`spacetravlr.pp.modulators` is meant for
    NicheNet's published values.

    Parameters
    ----------
    organism
        ``"human"`` or ``"mouse"``.
    url
        Public address of a parquet table.
    known_hash
        As in :func:`fetch_base_grn`.
    min_score
        Only scores above it are kept.

    Returns
    -------
    Table ``ligand, tf, score``, see :func:`read_ligand_tf`.

    Raises
    ------
    FileNotFoundError
        When the file is nowhere and no ``url`` is given; the message says how to make it.
    ConnectionError, ValueError
        As in :func:`fetch_base_grn`.
    """
    assert_one_of(organism, tuple(_TAXON), name="organism")
    path = fetch_file(
        "ligand_tf_human.parquet",
        url=url,
        known_hash=known_hash,
        hint=_NICHENET_HINT,
        local="nichenet_like_ligand_tf_human.parquet",
    )
    table = read_ligand_tf(path, min_score=min_score)
    return table if organism == "human" else map_orthologs(table, fetch_orthologs())


def fetch_orthologs(*, url: str | None = None, known_hash: str | None = None) -> pd.DataFrame:
    """Get one-to-one orthologs of human and mouse.

    Looks for ``orthologs_human_mouse_1to1.csv.gz`` in the folder that ``SPACETRAVLR_DATA`` names, then in
    ``st.settings.cache_dir``, then at ``url``.

    Parameters
    ----------
    url
        Public address of a csv table, compressed with gzip.
    known_hash
        As in :func:`fetch_base_grn`.

    Returns
    -------
    Table with the columns ``human`` and ``mouse``, for :func:`map_orthologs`.

    Raises
    ------
    FileNotFoundError
        When the file is nowhere and no ``url`` is given.
    ConnectionError, ValueError
        As in :func:`fetch_base_grn`.
    """
    name = "orthologs_human_mouse_1to1.csv.gz"
    return read_table(fetch_file(name, url=url, known_hash=known_hash, hint=_ORTHOLOG_HINT), name="orthologs")
