"""Fetch public prior tables from the local data folder, the cache or their public address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from spacetravlr._download import fetch_file
from spacetravlr._validators import assert_one_of, listed
from spacetravlr.priors._base_grn import read_base_grn
from spacetravlr.priors._ligand_receptor import read_ligand_receptor
from spacetravlr.priors._ligand_tf import read_ligand_tf
from spacetravlr.priors._orthologs import map_orthologs
from spacetravlr.priors._tables import Source, read_table

Organism = Literal["human", "mouse"]
License = Literal["academic", "commercial"]

_TAXON = {"human": 9606, "mouse": 10090}
_OMNIPATH = "https://omnipathdb.org/interactions/?genesymbols=1&license={license}&organisms={taxon}&datasets={dataset}"
_COLLECTRI = "https://zenodo.org/records/8192729/files/CollecTRI_regulons.csv"
_LIANA = (
    "https://raw.githubusercontent.com/saezlab/liana-py/0d87f67b49d7fb017a95265c4fae18aff19d4640/"
    "src/liana/resource/omni_resource.csv"
)
_CELLCHAT_HINT = (
    "In R, write it with `write.csv(CellChat::CellChatDB.{organism}$interaction, ...)`, or use "
    "`resource='consensus'`, which can be downloaded."
)
_NICHENET_HINT = (
    "NicheNet publishes only R files (https://zenodo.org/records/7074291): in R, read "
    "`ligand_tf_matrix_nsga2r_final.rds` with `readRDS` and write it with `arrow::write_parquet`, TFs as rows. "
    "Any such table can be passed to `st.priors.read_ligand_tf`."
)
_ORTHOLOG_HINT = (
    "Any table with the columns 'human' and 'mouse', such as one exported from Ensembl BioMart, can be passed to "
    "`st.priors.map_orthologs`."
)


def fetch_base_grn(
    *,
    organism: Organism = "human",
    resource: Literal["dorothea", "collectri"] = "dorothea",
    confidence: str | Sequence[str] = "ABC",
    license: License = "academic",  # the name that OmniPath and decoupler have
    known_hash: str | None = None,
) -> pd.DataFrame:
    """Get a base gene-regulatory network.

    Looks in the folder given by ``SPACETRAVLR_DATA`` (``grn_<organism>_dorothea.parquet``), then in
    ``st.settings.cache_dir``, and otherwise downloads: DoRothEA from the OmniPath web service, CollecTRI for human from
    Zenodo record 8192729 and for mouse from OmniPath. None of them is part of this package; check their licences.

    Parameters
    ----------
    organism
        ``"human"`` or ``"mouse"``.
    resource
        ``"dorothea"`` or ``"collectri"``.
    confidence
        DoRothEA levels to keep. D and E carry almost no evidence and are left out by default (the web service does not
        offer E).
    license
        ``"academic"``, or ``"commercial"`` to get only edges that may be used commercially. Applies to downloads from
        OmniPath; a file in the local data folder is used as it is.
    known_hash
        Expected SHA256 of a download. Without it, the first download is trusted, with a logged warning; its hash is
        stored next to the file and checked from then on.

    Returns
    -------
    Table ``tf, target, weight``, see :func:`read_base_grn`.

    Raises
    ------
    ConnectionError
        If the download fails; the message says where to put the file by hand.
    ValueError
        If an option is unknown or the file does not have the expected hash.
    """
    assert_one_of(organism, tuple(_TAXON), name="organism")
    assert_one_of(resource, ("dorothea", "collectri"), name="resource")
    assert_one_of(license, get_args(License), name="license")
    url = _OMNIPATH.format(taxon=_TAXON[organism], dataset=resource, license=license)
    terms = "" if license == "academic" else f"_{license}"
    if resource == "dorothea":
        path = fetch_file(
            f"dorothea_{organism}{terms}.tsv",
            url=f"{url}&dorothea_levels=A,B,C,D&fields=dorothea_level",
            known_hash=known_hash,
            local=f"grn_{organism}_dorothea.parquet",
            check=read_base_grn,
        )
        return _read(path, read_base_grn, confidence=confidence)
    name, url = f"collectri_{organism}{terms}.tsv", url
    if organism == "human" and license == "academic":
        name, url = "collectri_human.csv", _COLLECTRI
    return _read(fetch_file(name, url=url, known_hash=known_hash, check=read_base_grn), read_base_grn)


def _read(path: Path, reader: Callable[..., pd.DataFrame], **arguments: Any) -> pd.DataFrame:
    """Table of a file that was fetched; errors say where it lies."""
    try:
        return reader(path, **arguments)
    except (KeyError, ValueError) as error:
        error.add_note(f"The table was read from {path}; delete the file to download it again.")
        raise


def fetch_ligand_receptor(
    *,
    organism: Organism = "human",
    resource: Literal["cellchatdb", "consensus"] = "cellchatdb",
    ranges: Source | None = None,
    known_hash: str | None = None,
) -> pd.DataFrame:
    """Get ligand-receptor pairs.

    Looks in the folder given by ``SPACETRAVLR_DATA`` (``lr_cellchatdb_<organism>.csv.gz``), then in
    ``st.settings.cache_dir``, and otherwise downloads LIANA's table of resources (Dimitrov et al., 2022). That table
    does not say which pairs need contact: unless ``ranges`` is given, all pairs are treated as secreted, with a
    warning. None of them is part of this package; check their licences.

    Parameters
    ----------
    organism
        ``"human"`` or ``"mouse"``.
    resource
        ``"cellchatdb"`` or ``"consensus"`` (LIANA's; download only).
    ranges
        Annotated table of pairs that supplies the ranges, see :func:`read_ligand_receptor`.
    known_hash
        As in :func:`fetch_base_grn`.

    Returns
    -------
    Table ``ligand, receptor, range, pathway``, for CellChatDB also ``annotation``, see :func:`read_ligand_receptor`.
    Pairs annotated "ECM-Receptor" are secreted; the examples there treat them as contact.

    Raises
    ------
    FileNotFoundError
        If the file for mouse CellChatDB is not found. It cannot be downloaded in a format that Python reads.
    ConnectionError, ValueError
        As in :func:`fetch_base_grn`.
    """
    assert_one_of(organism, tuple(_TAXON), name="organism")
    assert_one_of(resource, ("cellchatdb", "consensus"), name="resource")
    if resource == "cellchatdb" and organism == "mouse":
        name = "lr_cellchatdb_mouse.csv.gz"
        return read_ligand_receptor(fetch_file(name, hint=_CELLCHAT_HINT.format(organism=organism)))
    name = {"cellchatdb": "cellchatdb", "consensus": "consensus" if organism == "human" else "mouseconsensus"}[resource]
    path = fetch_file(
        "liana_omni_resource.csv",
        url=_LIANA,
        known_hash=known_hash,
        check=partial(read_ligand_receptor, resource=name),
        hint=_CELLCHAT_HINT.format(organism=organism) if resource == "cellchatdb" else "",
        local="lr_cellchatdb_human.csv.gz" if resource == "cellchatdb" else None,
    )
    is_annotated = path.name.startswith("lr_cellchatdb")
    return _read(path, read_ligand_receptor, ranges=ranges, **({} if is_annotated else {"resource": name}))


def fetch_ligand_tf(
    *,
    organism: Organism = "human",
    url: str | None = None,
    known_hash: str | None = None,
    min_score: float = 0.0,
) -> pd.DataFrame:
    """Get ligand-to-TF regulatory potentials.

    NicheNet publishes its matrices as R files, which Python cannot read. This function therefore looks for a converted
    file: ``nichenet_like_ligand_tf_human.parquet`` in the folder given by ``SPACETRAVLR_DATA``, then
    ``ligand_tf_human.parquet`` in ``st.settings.cache_dir``, then at ``url``. To make it, read
    ``ligand_tf_matrix_nsga2r_final.rds`` of Zenodo record 7074291 in R and write it with ``arrow::write_parquet``. The
    mouse table is the human table mapped with :func:`fetch_orthologs`.

    The scale of the scores depends on how they were computed: ``cutoff`` of :func:`spacetravlr.pp.modulators` is meant
    for NicheNet's published values.

    Parameters
    ----------
    organism
        ``"human"`` or ``"mouse"``.
    url
        Public address of a parquet table.
    known_hash
        As in :func:`fetch_base_grn`.
    min_score
        Keep only scores above this value.

    Returns
    -------
    Table ``ligand, tf, score``, see :func:`read_ligand_tf`.

    Raises
    ------
    FileNotFoundError
        If the file is not found and no ``url`` is given; the message says how to make it.
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
        check=read_ligand_tf,
    )
    table = _read(path, read_ligand_tf, min_score=min_score)
    return table if organism == "human" else map_orthologs(table, fetch_orthologs())


def fetch_orthologs(*, url: str | None = None, known_hash: str | None = None) -> pd.DataFrame:
    """Get one-to-one orthologs of human and mouse.

    Looks for ``orthologs_human_mouse_1to1.csv.gz`` in the folder given by ``SPACETRAVLR_DATA``, then in
    ``st.settings.cache_dir``, then at ``url``.

    Parameters
    ----------
    url
        Public address of a gzip-compressed csv table.
    known_hash
        As in :func:`fetch_base_grn`.

    Returns
    -------
    Table with the columns ``human`` and ``mouse``, for :func:`map_orthologs`.

    Raises
    ------
    FileNotFoundError
        If the file is not found and no ``url`` is given.
    ConnectionError, ValueError
        As in :func:`fetch_base_grn`.
    """
    name = "orthologs_human_mouse_1to1.csv.gz"
    path = fetch_file(name, url=url, known_hash=known_hash, hint=_ORTHOLOG_HINT, check=_read_orthologs)
    return _read(path, _read_orthologs)


def _read_orthologs(path: Path) -> pd.DataFrame:
    table = read_table(path, name="orthologs")
    if not {"human", "mouse"} <= set(table.columns):
        msg = f"Expected orthologs to have the columns 'human' and 'mouse', found {listed(table.columns)}."
        raise ValueError(msg)
    return table
