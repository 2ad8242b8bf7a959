"""Base gene-regulatory networks: which transcription factor may regulate which gene."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from spacetravlr._utils import warn
from spacetravlr._validators import assert_one_of, listed
from spacetravlr.priors._names import are_swapped
from spacetravlr.priors._tables import (
    Source,
    as_float,
    as_matrix,
    clean_names,
    find_column,
    melt,
    read_table,
    tidy,
)

logger = logging.getLogger(__name__)

_TF = ("tf", "source_genesymbol", "source", "regulator")
_TARGET = ("target_genesymbol", "target", "gene", "target_gene")
_WEIGHT = ("weight", "mor", "score", "importance")
_CONFIDENCE = ("confidence", "dorothea_level")
_ORACLE_GENE = "gene_short_name"


def read_base_grn(
    source: Source,
    *,
    confidence: str | Sequence[str] | None = None,
    orient: Literal["tf_by_gene", "gene_by_tf"] | None = None,
) -> pd.DataFrame:
    """Read a base gene-regulatory network into one long table.

    Accepts long tables with the columns ``tf, target`` (DoRothEA), ``source, target`` (decoupler, CollecTRI) or
    ``source_genesymbol, target_genesymbol`` (OmniPath), with or without ``weight`` or ``mor``. Also accepts wide
    matrices of TFs and genes, in which nonzero entries are edges, such as the 0/1 tables of CellOracle (recognised by
    their column ``gene_short_name``; the peaks of a gene are merged).

    Parameters
    ----------
    source
        DataFrame, or path to a csv, tsv, parquet or feather file.
    confidence
        Confidence levels to keep, such as ``"ABC"``, for a table with a column ``confidence`` (DoRothEA); all by
        default.
    orient
        What the rows of a wide matrix are: ``"tf_by_gene"`` (TFs are rows) or ``"gene_by_tf"`` (genes are rows; the
        default for CellOracle's tables). By default this is inferred from the axis names, or from the labels if the
        column labels clearly look more like transcription factors than the row labels.

    Returns
    -------
    Table with one row per edge: ``tf``, ``target`` (categorical) and ``weight`` (float32; 1 if the source has none).

    Raises
    ------
    ValueError
        If no edge or no usable column is found; the message names the columns found.
    FileNotFoundError, TypeError
        If ``source`` is not a table.

    Examples
    --------
    >>> import pandas as pd
    >>> import spacetravlr as st
    >>> wide = pd.DataFrame([[1, 0], [1, 1]], index=["FOXO1", "PAX5"], columns=["IL7R", "CD19"])
    >>> st.priors.read_base_grn(wide)
          tf target  weight
    0  FOXO1   IL7R     1.0
    1   PAX5   IL7R     1.0
    2   PAX5   CD19     1.0
    """
    table = read_table(source, name="grn")
    tf, target = find_column(table, _TF), find_column(table, _TARGET)
    if tf is not None and target is not None:
        edges = _long(table, tf, target, confidence)
    elif confidence is not None:
        msg = (
            "Expected `grn` to have a column 'confidence' because `confidence` is given, "
            f"found {listed(table.columns)}."
        )
        raise ValueError(msg)
    else:
        edges = _wide(table, orient)
    edges = clean_names(edges, ["tf", "target"])
    edges = edges[np.isfinite(edges["weight"]) & (edges["weight"] != 0)]
    if orient is None and are_swapped(edges["tf"].cat.categories, edges["target"].cat.categories):
        warn(
            f"The targets of `grn` (such as {edges['target'].iloc[0]!r}) look more like transcription factors than its "
            f"regulators (such as {edges['tf'].iloc[0]!r}); if the two columns are swapped, rename them."
        )
    return tidy(edges, name="grn", keys=["tf", "target"])


def _long(table: pd.DataFrame, tf: str, target: str, confidence: str | Sequence[str] | None) -> pd.DataFrame:
    if confidence is not None:
        column = find_column(table, _CONFIDENCE)
        if column is None:
            msg = (
                "Expected `grn` to have a column 'confidence' because `confidence` is given, "
                f"found {listed(table.columns)}."
            )
            raise ValueError(msg)
        # OmniPath lists several levels for one edge ("A;D"): the best comes first
        level = table[column].astype(str).str[0] if column.lower() == "dorothea_level" else table[column].astype(str)
        wanted = [str(c) for c in confidence]
        unknown = sorted(set(wanted) - set(level))
        if unknown:
            msg = (
                f"Expected `confidence` to be levels of `grn` ({listed(sorted(set(level)))}), found {listed(unknown)}."
            )
            raise ValueError(msg)
        table = table[level.isin(wanted)]
    weight = find_column(table, _WEIGHT)
    values = np.ones(len(table)) if weight is None else np.asarray(as_float(table, weight, name="grn"))
    if len(missing := np.flatnonzero(np.isnan(values))):
        first = table.iloc[missing[0]]
        warn(
            f"{len(missing)} of {len(table)} edges of `grn` have no {weight!r} and are left out "
            f"(first: {first[tf]!r} -> {first[target]!r}); fill the column, or drop it to take all edges."
        )
    return pd.DataFrame({"tf": table[tf], "target": table[target], "weight": values}).astype({"weight": np.float32})


def _wide(table: pd.DataFrame, orient: Literal["tf_by_gene", "gene_by_tf"] | None) -> pd.DataFrame:
    if orient is not None:
        assert_one_of(orient, ("tf_by_gene", "gene_by_tf"), name="orient")
    is_oracle = _ORACLE_GENE in table.columns or table.index.name == _ORACLE_GENE
    if _ORACLE_GENE in table.columns:
        table = table.set_index(_ORACLE_GENE)
    # CellOracle keeps one row per peak, named in a column of its own
    matrix = as_matrix(table, name="grn", drop=["peak_id"] if is_oracle else [])
    if orient is None:
        by_name = str(matrix.index.name).lower() in _TARGET or str(matrix.columns.name).lower() in _TF
        by_genes = not by_name and are_swapped(matrix.index.astype(str), matrix.columns.astype(str))
        orient = "gene_by_tf" if is_oracle or by_name or by_genes else "tf_by_gene"
        logger.info("Reading the wide base GRN as %s (%d rows, %d columns).", orient, *matrix.shape)
    rows, columns = ("tf", "target") if orient == "tf_by_gene" else ("target", "tf")
    return melt(matrix, rows=rows, columns=columns, values="weight")
