"""Ligand activity as in NicheNet: how well a ligand's regulatory potential separates a gene set from the background."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from spacetravlr._types import Bools, Floats
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.priors._ligand_tf import Orient, potential_matrix
from spacetravlr.priors._tables import Source

_SCORES = ("aupr_corrected", "aupr", "auroc", "pearson")


def ligand_activity(
    potential: Source,
    gene_set: Collection[str],
    background: Collection[str],
    *,
    ligands: Sequence[str] | None = None,
    sort_by: str = "aupr_corrected",
    orient: Orient | None = None,
) -> pd.DataFrame:
    r"""Rank ligands by how well they explain a set of genes.

    Let :math:`p_{kg}` be the regulatory potential of ligand :math:`k` on gene :math:`g`, and let :math:`y_g` be one for
    genes in the set and zero for the other background genes. The activity of a ligand is the Pearson correlation of
    :math:`p_k` with :math:`y`, or the area under the precision-recall curve (AUPR) or the ROC curve of :math:`p_k` as a
    classifier of :math:`y`. ``aupr_corrected`` is AUPR minus its value for an uninformative ligand, which is the share
    of genes in the set.

    Parameters
    ----------
    potential
        Regulatory potentials: wide (target genes x ligands, as NicheNet publishes them) or long (``ligand, tf,
        score``).
    gene_set
        Genes to explain, for example those that differ between two niches.
    background
        Genes that could have been in the set, for example all expressed genes; the gene set is added to them. Genes
        without a potential are left out of both.
    ligands
        Ligands to score, all by default.
    sort_by
        Score by which the table is sorted: ``"aupr_corrected"``, ``"aupr"``, ``"auroc"`` or ``"pearson"``.
    orient
        What the rows of a wide ``potential`` are, see :func:`read_ligand_tf`.

    Returns
    -------
    Table with the columns ``ligand``, ``pearson``, ``auroc``, ``aupr``, ``aupr_corrected``, best first. For a ligand
    with the same potential on every gene, the Pearson correlation is NaN.

    Raises
    ------
    ValueError
        If no gene in the set, or none outside it, has a potential, or a potential is not finite.
    KeyError
        If one of ``ligands`` has no potential.

    Examples
    --------
    >>> import pandas as pd
    >>> import spacetravlr as st
    >>> potential = pd.DataFrame(
    ...     {"TGFB1": [0.9, 0.8, 0.2, 0.1], "IL4": [0.1, 0.6, 0.7, 0.2]}, index=["SERPINE1", "CCN2", "GATA3", "ACTB"]
    ... )
    >>> table = st.priors.ligand_activity(potential, ["SERPINE1", "CCN2"], ["GATA3", "ACTB"])
    >>> table[["ligand", "auroc", "aupr"]].round(2)
      ligand  auroc  aupr
    0  TGFB1   1.00  1.00
    1    IL4   0.25  0.33
    """
    assert_one_of(sort_by, _SCORES, name="sort_by")
    matrix = potential_matrix(potential, orient=orient)
    if ligands is not None:
        assert_genes(ligands, matrix.columns, name="ligands", where="the ligands of `potential`")
        matrix = matrix[list(ligands)]
    genes = matrix.index[matrix.index.isin(set(background) | set(gene_set))]
    is_in_set = genes.isin(set(gene_set))
    for name, count in (("gene_set", is_in_set.sum()), ("background", (~is_in_set).sum())):
        if count == 0:
            rows = ", ".join(repr(g) for g in matrix.index[:3])
            msg = f"Expected `{name}` to share genes with the targets of `potential` (such as {rows}), found none."
            raise ValueError(msg)
    values = matrix.loc[genes].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        msg = (
            "Expected `potential` to be finite, found NaN or infinite values; fill them with 0 where nothing is known."
        )
        raise ValueError(msg)
    aupr = np.array([_aupr(column, is_in_set) for column in values.T])
    result = pd.DataFrame(
        {
            "ligand": matrix.columns.to_numpy(dtype=object),
            "pearson": _pearson(values, is_in_set),
            "auroc": _auroc(values, is_in_set),
            "aupr": aupr,
            "aupr_corrected": aupr - is_in_set.mean(),
        }
    )
    return result.sort_values([sort_by, "ligand"], ascending=[False, True], ignore_index=True)


def _pearson(values: Floats, is_in_set: Bools) -> Floats:
    x = values - values.mean(axis=0)
    y = is_in_set - is_in_set.mean()
    norm = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
    constant = values.min(axis=0) == values.max(axis=0)
    return np.where(constant, np.nan, y @ x / np.where(constant, 1.0, norm))


def _auroc(values: Floats, is_in_set: Bools) -> Floats:
    n_in = int(is_in_set.sum())
    ranks = rankdata(values, axis=0)[is_in_set].sum(axis=0)
    return (ranks - n_in * (n_in + 1) / 2) / (n_in * (len(is_in_set) - n_in))


def _aupr(values: Floats, is_in_set: Bools) -> float:
    """Area by trapezoids under precision against recall, one point a distinct value, starting from (0, 1)."""
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(is_in_set[order])
    last_of_tie = np.append(np.diff(values[order]) != 0, True)
    hits, called = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    recall = np.concatenate([[0.0], hits / hits[-1]])
    precision = np.concatenate([[1.0], hits / called])
    return float(np.trapezoid(precision, recall))
