"""The groups of modulators (how-it-works, section 3) as integer tables; all genes are indices into ``genes``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from spacetravlr._types import Bools, Floats, Ints

#: From this many genes on, ligand-TF pairs that the network itself explains are left out.
LARGE_PANEL = 1000


class Edges(NamedTuple):
    """Regulations between genes of the panel: ``tf[e]`` regulates ``target[e]``."""

    tf: Ints
    target: Ints


class Group(NamedTuple):
    """Modulators of one kind: row ``i`` belongs to target number ``target[i]``; -1 where a column does not apply."""

    target: Ints
    tf: Ints
    ligand: Ints
    receptor: Ints


def gene_index(column: pd.Series, genes: pd.Index) -> Ints:
    """Position in ``genes`` of every name in ``column``, -1 for others; each distinct name is looked up once."""
    labels = column.astype("category")
    codes = labels.cat.codes.to_numpy()
    position = np.append(genes.get_indexer(labels.cat.categories.astype(str)), -1)
    return position[codes]


def panel_edges(grn: pd.DataFrame, genes: pd.Index) -> Edges:
    """Edges of a base network between two different genes of the panel, ordered by target, then TF."""
    tf, target = gene_index(grn["tf"], genes), gene_index(grn["target"], genes)
    keep = (tf >= 0) & (target >= 0) & (tf != target)
    order = np.lexsort((tf[keep], target[keep]))
    return Edges(tf[keep][order], target[keep][order])


def tf_group(edges: Edges, targets: Ints) -> Group:
    """TF regulators of each target in the base network, not the target itself."""
    number = np.full(max(edges.target.max(initial=-1), targets.max(initial=-1)) + 1, -1)
    number[targets] = np.arange(len(targets))
    rows = number[edges.target]
    keep = rows >= 0
    return _group(rows[keep], tf=edges.tf[keep])


def lr_group(ligand: Ints, receptor: Ints, targets: Ints) -> tuple[Group, Ints]:
    """Every pair for every target that is neither its ligand nor its receptor; also the pair of each row."""
    keep = (targets[:, None] != ligand) & (targets[:, None] != receptor)
    rows, pair = np.nonzero(keep)
    return _group(rows, ligand=ligand[pair], receptor=receptor[pair]), pair


def receptor_group(lr: Group, tf: Group, n_genes: int) -> Group:
    """The receptor of each pair by itself, once per target, where it is no TF regulator of the target already."""
    code = np.setdiff1d(lr.target * np.int64(n_genes) + lr.receptor, tf.target * np.int64(n_genes) + tf.tf)
    rows, receptor = np.divmod(code, n_genes)
    return _group(rows, receptor=receptor)


def ligand_group(signals: Group, others: Sequence[Group], n_genes: int) -> Group:
    """The ligand of each product by itself, once per target, where none of the other groups holds it already."""
    known = [g.target * np.int64(n_genes) + np.maximum(g.tf, g.receptor) for g in others]
    code = np.setdiff1d(signals.target * np.int64(n_genes) + signals.ligand, np.concatenate(known))
    rows, ligand = np.divmod(code, n_genes)
    return _group(rows, ligand=ligand)


def joined(groups: Sequence[Group]) -> Group:
    """All rows of several groups."""
    return Group(*(np.concatenate(columns) for columns in zip(*groups, strict=True)))


def tfl_group(
    regulators: Group, scores: pd.DataFrame, edges: Edges, targets: Ints, *, genes: pd.Index, n_top: int, cutoff: float
) -> Group:
    """Ligand-TF pairs: for each TF regulator of a target the ``n_top`` ligands with the highest score above ``cutoff``.

    The target itself is never the ligand of its own term, and does not count among the best. In large panels
    (``LARGE_PANEL`` genes or more) a pair is left out when the target or the TF is itself a regulator of the ligand:
    then the ligand's level follows from a gene that the term should explain, or that it already holds.
    """
    # one more than wanted: the target is left out before the best are taken
    best = _best_ligands(scores, np.unique(regulators.tf), genes, n_top + 1, cutoff)
    joined = pd.DataFrame({"target": regulators.target, "tf": regulators.tf}).merge(best, on="tf", how="inner")
    joined = joined[targets[joined["target"].to_numpy()] != joined["ligand"].to_numpy()]
    joined = joined.groupby(["target", "tf"], sort=False).head(n_top)
    target, tf, ligand = (joined[c].to_numpy() for c in ("target", "tf", "ligand"))
    gene = targets[target]
    keep = np.ones(len(joined), dtype=bool)
    if len(genes) >= LARGE_PANEL:
        known = np.unique(edges.tf.astype(np.int64) * len(genes) + edges.target)
        for regulator in (gene, tf):
            keep &= ~np.isin(regulator.astype(np.int64) * len(genes) + ligand, known)
    return _group(target[keep], tf=tf[keep], ligand=ligand[keep])


def _best_ligands(scores: pd.DataFrame, tfs: Ints, genes: pd.Index, n_top: int, cutoff: float) -> pd.DataFrame:
    """``tf, ligand`` with the best ligands of each TF, best first; equal scores in the order of ``genes``."""
    table = pd.DataFrame(
        {
            "tf": gene_index(scores["tf"], genes),
            "ligand": gene_index(scores["ligand"], genes),
            "score": scores["score"].to_numpy(),
        }
    )
    table = table[(table["ligand"] >= 0) & table["tf"].isin(tfs) & (table["score"] > cutoff)]
    table = table.sort_values(["tf", "score", "ligand"], ascending=[True, False, True], kind="stable")
    return table.groupby("tf", sort=False).head(n_top)[["tf", "ligand"]]


def expressed_somewhere(expression: Floats, cell_type: Ints, threshold: float) -> Bools:
    """Which columns have a mean above ``threshold`` in at least one cell type."""
    found = np.zeros(expression.shape[1], dtype=bool)
    for code in range(cell_type.max(initial=-1) + 1):
        cells = cell_type == code
        if cells.any():
            found |= expression[cells].mean(axis=0, dtype=np.float64) > threshold
    return found


def _group(target: Ints, *, tf: Ints | None = None, ligand: Ints | None = None, receptor: Ints | None = None) -> Group:
    none = np.full(len(target), -1)
    return Group(
        target, none if tf is None else tf, none if ligand is None else ligand, none if receptor is None else receptor
    )
