"""Ligand-to-TF regulatory potentials as in NicheNet."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import pandas as pd

from spacetravlr._validators import assert_one_of, listed
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

Orient = Literal["tf_by_ligand", "ligand_by_tf"]

_LIGAND = ("ligand", "source", "from")
_TF = ("tf", "target", "regulator", "to")
_SCORE = ("score", "weight", "potential", "regulatory_potential")


def read_ligand_tf(source: Source, *, min_score: float = 0.0, orient: Orient | None = None) -> pd.DataFrame:
    """Read ligand-to-gene regulatory potentials into one long table.

    Accepts long tables (``ligand, tf, score``; ``target`` for ``tf``, ``weight`` for ``score``) and wide matrices as
    NicheNet publishes them, target genes x ligands. :func:`spacetravlr.pp.modulators` uses only targets that are
    transcription factors, and selects them itself.

    Parameters
    ----------
    source
        DataFrame, or path to a csv, tsv, parquet or feather file.
    min_score
        Keep only scores above this value.
    orient
        What the rows of a wide matrix are: ``"tf_by_ligand"`` (rows are TFs or targets, columns are ligands; NicheNet's
        format, and the default) or ``"ligand_by_tf"``.

    Returns
    -------
    Table with the columns ``ligand``, ``tf`` (categorical) and ``score`` (float32).

    Raises
    ------
    ValueError
        If no score or no usable column is found; the message names the columns found.
    FileNotFoundError, TypeError
        If ``source`` is not a table.

    Examples
    --------
    >>> import pandas as pd
    >>> import spacetravlr as st
    >>> wide = pd.DataFrame({"TGFB1": [0.03, 0.01], "IL4": [0.0, 0.02]}, index=["SMAD3", "STAT6"])
    >>> st.priors.read_ligand_tf(wide, min_score=0.015)
      ligand     tf  score
    0  TGFB1  SMAD3   0.03
    1    IL4  STAT6   0.02
    """
    table = read_table(source, name="ligand_tf")
    ligand, tf = find_column(table, _LIGAND), find_column(table, _TF)
    if ligand is not None and tf is not None:
        score = find_column(table, _SCORE)
        if score is None:
            msg = (
                "Expected `ligand_tf` to have a column 'score' beside 'ligand' and 'tf', "
                f"found {listed(table.columns)}."
            )
            raise ValueError(msg)
        values = as_float(table, score, name="ligand_tf")
        scores = pd.DataFrame({"ligand": table[ligand], "tf": table[tf], "score": values})
        highest = np.nanmax(values, initial=-np.inf)
        scores = scores[values > min_score]
    else:
        scores, highest = _wide(table, min_score, orient)
    if scores.empty and np.isfinite(highest):
        msg = (
            f"Expected `ligand_tf` to hold scores above {min_score:g} (`min_score`, or `cutoff` of "
            f"`st.pp.modulators`), found {highest:.4g} at most."
        )
        raise ValueError(msg)
    scores = clean_names(scores, ["ligand", "tf"])[["ligand", "tf", "score"]]
    return tidy(scores, name="ligand_tf", keys=["ligand", "tf"])


def potential_matrix(source: Source, *, orient: Orient | None = None) -> pd.DataFrame:
    """Regulatory potentials as a wide matrix, target genes x ligands; missing entries of a long table are zero."""
    table = read_table(source, name="potential")
    ligand, tf = find_column(table, _LIGAND), find_column(table, _TF)
    if ligand is None or tf is None:
        matrix = as_matrix(table, name="potential")
        matrix = matrix.T if _orient(orient, matrix) == "ligand_by_tf" else matrix
    else:
        long = read_ligand_tf(table, min_score=-np.inf)
        matrix = long.pivot(index="tf", columns="ligand", values="score").fillna(0.0)
    matrix = matrix.set_axis(matrix.index.astype(str), axis=0).set_axis(matrix.columns.astype(str), axis=1)
    return matrix.loc[~matrix.index.duplicated(), ~matrix.columns.duplicated()]


def _wide(table: pd.DataFrame, min_score: float, orient: Orient | None) -> tuple[pd.DataFrame, float]:
    matrix = as_matrix(table, name="ligand_tf")
    rows, columns = ("tf", "ligand") if _orient(orient, matrix) == "tf_by_ligand" else ("ligand", "tf")
    long = melt(matrix, rows=rows, columns=columns, values="score", above=min_score)
    return long, float(matrix.max(axis=None))


def _orient(orient: Orient | None, matrix: pd.DataFrame) -> Orient:
    if orient is not None:
        assert_one_of(orient, ("tf_by_ligand", "ligand_by_tf"), name="orient")
        return orient
    by_name = str(matrix.index.name).lower() in _LIGAND[:1] or str(matrix.columns.name).lower() in _TF[:2]
    chosen: Orient = "ligand_by_tf" if by_name else "tf_by_ligand"
    logger.info("Reading the wide ligand-TF matrix as %s (%d rows, %d columns).", chosen, *matrix.shape)
    return chosen
