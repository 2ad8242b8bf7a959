"""Ligand-receptor pairs and their ranges (secreted or contact)."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._utils import warn
from spacetravlr._validators import listed
from spacetravlr.priors._tables import Source, clean_names, find_column, read_table, tidy

logger = logging.getLogger(__name__)

# a column of gene symbols goes before one that may hold the name of a complex or a protein identifier
_LIGAND = ("ligand.symbol", "ligand_genesymbol", "source_genesymbol", "ligand", "ligand_complex", "source")
_RECEPTOR = ("receptor.symbol", "receptor_genesymbol", "target_genesymbol", "receptor", "receptor_complex", "target")
_ANNOTATION = ("signaling", "annotation", "category", "interaction_type")
_PATHWAY = ("pathway", "pathway_name", "classification")
_CONTACT = {"cell-cell contact", "contact", "juxtacrine"}
_SECRETED = {"secreted signaling", "ecm-receptor", "non-protein signaling", "secreted", "paracrine", "autocrine"}
_MATRIX = "ecm-receptor"
_ANNOTATED = "annotation"
_SUBUNITS = r"\s*[_,&]\s*"


def read_ligand_receptor(
    source: Source,
    *,
    resource: str | None = None,
    ranges: Source | None = None,
    genes: Collection[str] | None = None,
) -> pd.DataFrame:
    """Read ligand-receptor pairs into one table with one row per pair of genes.

    Accepts tables of CellChatDB (``ligand, receptor, pathway, signaling`` or its own column names), of LIANA and
    OmniPath (``source_genesymbol, target_genesymbol``), and plain ``ligand, receptor`` or ``source, target``. Complexes
    (``TGFBR1_TGFBR2``, on either side) are split into pairs of every ligand subunit with every receptor subunit.

    A pair has ``contact`` range if its annotation is "Cell-Cell Contact", otherwise ``secreted``. This includes pairs
    with the matrix ("ECM-Receptor" in CellChatDB), although what is bound to the matrix does not spread as far as what
    is dissolved; the log says how many they are, and the examples how to treat them as contact. A column ``range`` in
    the table takes precedence over the annotation. Pairs with neither are treated as secreted, with a warning, unless a
    second table supplies their ``ranges``.

    Parameters
    ----------
    source
        DataFrame, or path to a csv, tsv, parquet or feather file.
    resource
        Resource to keep, for a table with a column ``resource`` (such as LIANA's, which holds several databases).
    ranges
        Annotated table of pairs, such as CellChatDB's, that supplies the ranges of pairs without one. A pair takes the
        range of the same pair there; otherwise that of its ligand, if all pairs of the ligand share one range.
    genes
        Gene names, such as ``adata.var_names``. Names in it that look like a complex ("HLA_A") are not split.

    Returns
    -------
    Table with the columns ``ligand``, ``receptor``, ``range`` ("secreted" or "contact") and ``pathway`` ("" if
    unknown), without duplicates in the first three. If the source has an annotation of its pairs, also ``annotation``,
    as it is written there ("" if unknown).

    Raises
    ------
    ValueError
        If a column is missing, a range is unknown or no pair is left; the message names what was found.
    FileNotFoundError, TypeError
        If ``source`` is not a table.

    Examples
    --------
    >>> import pandas as pd
    >>> import spacetravlr as st
    >>> pairs = {"ligand": ["TGFB1", "DLL1"], "receptor": ["TGFBR1_TGFBR2", "NOTCH1"]}
    >>> signaling = ["Secreted Signaling", "Cell-Cell Contact"]
    >>> st.priors.read_ligand_receptor(pd.DataFrame({**pairs, "signaling": signaling}))[["ligand", "receptor", "range"]]
      ligand receptor     range
    0  TGFB1   TGFBR1  secreted
    1  TGFB1   TGFBR2  secreted
    2   DLL1   NOTCH1   contact

    Pairs with the matrix as contact, before they are given to :func:`spacetravlr.pp.received_ligands`:

    >>> matrix = {"ligand": ["COL1A1"], "receptor": ["CD44"], "annotation": ["ECM-Receptor"]}
    >>> lr = st.priors.read_ligand_receptor(pd.DataFrame(matrix))
    >>> lr.loc[lr["annotation"] == "ECM-Receptor", "range"] = "contact"
    """
    table = read_table(source, name="ligand_receptor")
    ligand, receptor = find_column(table, _LIGAND), find_column(table, _RECEPTOR)
    if ligand is None or receptor is None:
        msg = (
            "Expected `ligand_receptor` to have the columns 'ligand' and 'receptor' (or 'source' and 'target'), "
            f"found {listed(table.columns)}."
        )
        raise ValueError(msg)
    if resource is not None:
        table = _only_resource(table, resource)
    pathway = find_column(table, _PATHWAY)
    pairs = pd.DataFrame(
        {
            "ligand": table[ligand].astype(object),
            "receptor": table[receptor].astype(object),
            "range": _ranges(table),  # None where unknown
            "pathway": "" if pathway is None else table[pathway].astype(object).fillna("").astype(str),
        }
    )
    annotation = find_column(table, _ANNOTATION)
    if annotation is not None:
        pairs[_ANNOTATED] = table[annotation].astype(object).fillna("").astype(str).str.strip()
    for side in ("ligand", "receptor"):
        subunits = pairs[side].str.split(_SUBUNITS, regex=True)
        pairs[side] = subunits if genes is None else subunits.where(~pairs[side].isin(genes), pairs[side])
        pairs = pairs.explode(side, ignore_index=True)
    pairs = clean_names(pairs, ["ligand", "receptor"]).astype({"ligand": object, "receptor": object})
    if pairs["range"].isna().any():
        pairs["range"] = _completed(pairs, ranges)
    pairs = tidy(pairs, name="ligand_receptor", keys=["ligand", "receptor", "range"])
    if find_column(table, ["range"]) is None and _ANNOTATED in pairs:
        _report_matrix(pairs)
    return pairs


def _report_matrix(pairs: pd.DataFrame) -> None:
    """Say how many pairs with the matrix became secreted, and how to change that."""
    is_matrix = pairs[_ANNOTATED].str.lower() == _MATRIX
    if is_matrix.any():
        logger.info(
            "%d of %d ligand-receptor pairs are annotated %r and are treated as secreted; to treat them as contact: "
            'lr.loc[lr["annotation"] == %r, "range"] = "contact"',
            int(is_matrix.sum()), len(pairs), name := pairs.loc[is_matrix, _ANNOTATED].iloc[0], name,
        )  # fmt: skip


def _only_resource(table: pd.DataFrame, resource: str) -> pd.DataFrame:
    column = find_column(table, ["resource"])
    if column is None:
        msg = (
            "Expected `ligand_receptor` to have a column 'resource' because `resource` is given, "
            f"found {listed(table.columns)}."
        )
        raise ValueError(msg)
    known = table[column].astype(str)
    if resource not in set(known):
        msg = f"Expected `resource` to be one of {listed(sorted(set(known)), 30)}, found `{resource!r}`."
        raise ValueError(msg)
    return table[known == resource]


def _ranges(table: pd.DataFrame) -> np.ndarray:
    explicit = find_column(table, ["range"])
    if explicit is not None:
        found = table[explicit].astype(str).str.strip().str.lower()
        unknown = sorted(set(found) - {_keys.SECRETED, _keys.CONTACT})
        if unknown:
            msg = (
                f"Expected column {explicit!r} of `ligand_receptor` to hold 'secreted' or 'contact', "
                f"found {listed(unknown)}."
            )
            raise ValueError(msg)
        return found.to_numpy(dtype=object)
    annotation = find_column(table, _ANNOTATION)
    if annotation is None:
        return np.full(len(table), None, dtype=object)
    found = table[annotation].astype(str).str.strip().str.lower()
    is_contact = found.isin(_CONTACT)
    if not is_contact.any() and not found.isin(_SECRETED).any():  # another vocabulary
        return np.full(len(table), None, dtype=object)
    known = np.where(is_contact, _keys.CONTACT, _keys.SECRETED).astype(object)
    known[(table[annotation].isna() | (found == "")).to_numpy()] = None
    return known


def _completed(pairs: pd.DataFrame, ranges: Source | None) -> pd.Series:
    """Ranges of all pairs: those of a second table for pairs that have none, else secreted, with a warning."""
    missing = pairs["range"].isna()
    found = pairs["range"].copy()
    if ranges is not None:
        other = read_ligand_receptor(ranges)
        by_pair = other.groupby(["ligand", "receptor"])["range"].first()
        by_ligand = other.groupby("ligand")["range"].agg(lambda r: r.iloc[0] if r.nunique() == 1 else None)
        names = pd.MultiIndex.from_frame(pairs[["ligand", "receptor"]])
        found = found.fillna(pd.Series(by_pair.reindex(names).to_numpy(), pairs.index)).fillna(
            pairs["ligand"].map(by_ligand)
        )
    unknown = int(found.isna().sum())
    if unknown:
        example = pairs.loc[found.isna()].iloc[0]
        warn(
            f"{unknown} of {len(pairs)} ligand-receptor pairs (such as {example['ligand']}-{example['receptor']}) have "
            "no annotation of their range and are treated as secreted"
            + ("." if ranges is not None else "; pass an annotated table, such as CellChatDB's, as `ranges=`.")
        )
    if ranges is not None:
        logger.info("Took the ranges of %d pairs from a second table.", int(missing.sum()) - unknown)
    return found.fillna(_keys.SECRETED)
