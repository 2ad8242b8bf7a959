"""Ligand-receptor pairs, and how far each pair's ligand reaches."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr.priors._tables import Source, clean_names, find_column, listed, read_table, tidy

# a column of gene symbols goes before one that may hold the name of a complex or a protein identifier
_LIGAND = ("ligand.symbol", "ligand_genesymbol", "source_genesymbol", "ligand", "ligand_complex", "source")
_RECEPTOR = ("receptor.symbol", "receptor_genesymbol", "target_genesymbol", "receptor", "receptor_complex", "target")
_ANNOTATION = ("signaling", "annotation", "category", "interaction_type")
_PATHWAY = ("pathway", "pathway_name", "classification")
_CONTACT = "cell-cell contact"
_SUBUNITS = r"\s*[_,&]\s*"


def read_ligand_receptor(source: Source, *, resource: str | None = None) -> pd.DataFrame:
    """Read ligand-receptor pairs into one table with one row a pair of genes.

    Accepted are tables of CellChatDB (``ligand, receptor, pathway, signaling`` or its own column names), of LIANA and
    OmniPath (``source_genesymbol, target_genesymbol``) and plain ``ligand, receptor`` or ``source, target``.
    Complexes (``TGFBR1_TGFBR2``, on either side) are split into pairs, every subunit of the ligand with every one of
    the receptor.

    A pair is of ``contact`` range when its annotation is "Cell-Cell Contact", else ``secreted``; a column ``range``
    in the table goes before the annotation.

    Parameters
    ----------
    source
        DataFrame, or path of a csv, tsv, parquet or feather file.
    resource
        Rows to keep of a table with a column ``resource`` (such as LIANA's, which holds several databases).

    Returns
    -------
    Table with the columns ``ligand``, ``receptor``, ``range`` ("secreted" or "contact") and
    ``pathway`` ("" when unknown), no two rows alike in the first three.

    Raises
    ------
    ValueError
        When a column is missing, a range is unknown or no pair is left; the message names what was found.
    FileNotFoundError, TypeError
        When ``source`` is not a table.

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
            "range": _ranges(table),
            "pathway": "" if pathway is None else table[pathway].astype(object).fillna("").astype(str),
        }
    )
    for side in ("ligand", "receptor"):
        pairs[side] = pairs[side].str.split(_SUBUNITS, regex=True)
        pairs = pairs.explode(side, ignore_index=True)
    pairs = clean_names(pairs, ["ligand", "receptor"]).astype({"ligand": object, "receptor": object})
    return tidy(pairs, name="ligand_receptor", keys=["ligand", "receptor", "range"])


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
        return np.full(len(table), _keys.SECRETED, dtype=object)
    is_contact = table[annotation].astype(str).str.strip().str.lower() == _CONTACT
    return np.where(is_contact, _keys.CONTACT, _keys.SECRETED).astype(object)
