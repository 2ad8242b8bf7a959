"""What a user wants to move, as a function of the expression of the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from spacetravlr._core.response.adjoint import Weights
from spacetravlr._utils import warn
from spacetravlr._validators import assert_genes, assert_key
from spacetravlr.models.perturb._cells import CellsLike, named_cells

if TYPE_CHECKING:
    from spacetravlr._core.response.propagation import Changes
    from spacetravlr._types import Bools, Floats
    from spacetravlr.models.perturb._model import FittedModel

#: A gene, several of them, or genes with weights.
ReadoutLike: TypeAlias = str | Sequence[str] | Mapping[str, float]


@dataclass(frozen=True)
class Readout:
    """A read-out as weights of genes in cells, and what it gains by the square of a change."""

    label: str
    genes: list[str]
    """Genes it looks at."""
    gene_weights: Floats
    cells: Bools
    """Cells it looks at, shape (n_cells,)."""
    weights: Weights
    """Gain per unit of each gene in each cell, at the baseline."""
    curvature: Floats | None = None
    """Gain per squared unit in the cells it looks at, one per gene; ``None`` where it is linear."""

    @property
    def distance(self) -> bool:
        """Whether it is a distance to other cells."""
        return self.curvature is not None

    def change(self, changes: Changes) -> Floats:
        """How much it changes by each of a batch of simulated changes, shape (n_perturbations,)."""
        shared, mine, theirs = np.intersect1d(self.weights.genes, changes.genes, return_indices=True)
        values = changes.values[:, theirs].astype(np.float64)
        total = np.einsum("jg,jgp->p", self.weights.values[:, mine].astype(np.float64), values)
        if self.curvature is not None and len(shared):
            total += np.einsum("g,jgp->p", self.curvature[mine], values[self.cells] ** 2)
        return np.asarray(total)


def read_readout(
    model: FittedModel, readout: ReadoutLike | None, *, of: CellsLike, weights: str | None, towards: CellsLike
) -> Readout:
    """Turn what a user wants to move into weights.

    Raises
    ------
    KeyError
        For unknown genes, cells or columns.
    ValueError
        For weights that are no finite numbers, cells that are not there, or genes that nothing can move.
    """
    obs, modelled = model.adata.obs, list(map(str, model.fit.target_names))
    if readout is None and towards is None:
        msg = "Expected `readout` to be a gene or genes with weights, or `towards` to be cells, found neither."
        raise ValueError(msg)
    wanted = _gene_weights(modelled if readout is None else readout)
    assert_genes(wanted, model.genes, name="readout")
    without = [gene for gene in wanted if gene not in set(modelled)]
    if len(without) == len(wanted):
        msg = (
            f"Expected `readout` to hold a modelled gene, found `{', '.join(without[:5])}`, which no perturbation "
            "changes; call `st.tl.fit_betas` with it among the targets."
        )
        raise ValueError(msg)
    if without:
        warn(f"{', '.join(map(repr, without[:5]))} of `readout` have no model: only perturbing them changes them.")
    inside = named_cells(of, obs, name="of")
    share = _cell_weights(model, weights, inside)
    names = list(wanted)
    index = model.genes.get_indexer(names)
    order = np.argsort(index)
    names, index = [names[i] for i in order], index[order]
    by_gene = np.array([wanted[name] for name in names])
    if towards is None:
        values = (share[:, None] * by_gene).astype(np.float32)
        label = " + ".join(n if w == 1 else f"{w:g} {n}" for n, w in zip(names, by_gene, strict=True))
        label = label if len(names) <= 4 else f"{len(names)} genes"
        return Readout(label, names, by_gene, inside, Weights(index.astype(np.int64), values))
    if (by_gene < 0).any():
        msg = f"Expected weights of `readout` to be at least zero with `towards`, found `{by_gene.min():g}`."
        raise ValueError(msg)
    there = named_cells(towards, obs, name="towards")
    return _distance(model, names, index.astype(np.int64), by_gene, inside, share, there)


def _distance(
    model: FittedModel, names: list[str], index: Any, by_gene: Floats, inside: Bools, share: Floats, there: Bools
) -> Readout:
    """Mean squared distance of cells to the mean of others, each gene in its standard deviations over both."""
    values = model.expression[:, index].astype(np.float64)
    mean, sd = values[there].mean(axis=0), values[inside | there].std(axis=0)
    varies = sd > 0
    if not varies.any():
        msg = "Expected genes of `readout` to vary over the cells of `of` and `towards`, found that none do."
        raise ValueError(msg)
    by_gene = np.where(varies, by_gene, 0)
    scale = by_gene / np.where(varies, sd, 1) ** 2 / by_gene.sum()
    slope = 2 * share[:, None] * (values - mean) * scale
    if not np.allclose(share[inside], share[inside][0]):
        msg = "Expected `weights` to be None with `towards`, found weights that differ between cells."
        raise ValueError(msg)
    weights = Weights(index, slope.astype(np.float32))
    return Readout("distance", names, by_gene, inside, weights, scale / inside.sum())


def _gene_weights(readout: ReadoutLike) -> dict[str, float]:
    if isinstance(readout, str):
        return {readout: 1.0}
    if not isinstance(readout, Mapping):
        names = [str(gene) for gene in readout]
        if not names:
            msg = "Expected `readout` to name a gene, found none."
            raise ValueError(msg)
        return dict.fromkeys(names, 1.0)
    found = {}
    for gene, weight in readout.items():
        try:
            number = float(weight)
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            msg = f"Expected the weight of `{gene}` in `readout` to be a finite number, found `{weight!r}`."
            raise ValueError(msg)
        found[str(gene)] = number
    if not any(found.values()):
        msg = "Expected `readout` to hold a gene with a weight that is not zero, found none."
        raise ValueError(msg)
    return found


def _cell_weights(model: FittedModel, weights: str | None, inside: Bools) -> Floats:
    """Part of each cell in the mean, zero outside."""
    if weights is None:
        return inside / inside.sum()
    assert_key(model.adata, "obs", weights, name="weights")
    column = model.adata.obs[weights]
    values = column.to_numpy(dtype=float, na_value=np.nan) if pd.api.types.is_numeric_dtype(column) else None
    if values is None or not np.isfinite(values[inside]).all() or (values[inside] < 0).any():
        msg = f"Expected `weights`, adata.obs[{weights!r}], to hold finite numbers of at least zero, found others."
        raise ValueError(msg)
    values = np.where(inside, np.nan_to_num(values), 0.0)
    if not values.sum():
        msg = f"Expected `weights`, adata.obs[{weights!r}], to be above zero in a cell of `of`, found zeros only."
        raise ValueError(msg)
    return np.asarray(values / values.sum())
