"""Mean changes of expression, perturbations x genes, whatever form they come in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._expression import get_expression, read_matrix
from spacetravlr._utils import warn
from spacetravlr._validators import assert_key, assert_unique_names, listed
from spacetravlr.models.perturb._screen_table import SCREEN, type_layer

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Bools, Floats, Ints

_KNOCKOUT = "knockout"
_NOT_A_NAME = re.compile(r"[\s+,;&|=]+|_")


@dataclass(frozen=True)
class Effects:
    """Mean changes; NaN where they are not known."""

    names: pd.Index
    """Perturbations."""
    genes: pd.Index
    overall: Floats
    """Perturbations x genes, over all cells."""
    types: dict[str, Floats] = field(default_factory=dict)
    """The same over the cells of each type."""
    cells: Callable[[str, Ints], tuple[Floats, Floats]] | None = field(default=None, repr=False)
    """For a perturbation and positions of genes, expression of cells without and with it; ``None`` for tables."""
    knockouts: bool = True
    """Whether a bare gene name may stand for the knockout of the gene."""

    def group(self, cell_type: str | None) -> Floats:
        """Changes over all cells, or over those of a type; NaN throughout for a type that is not known."""
        if cell_type is None:
            return self.overall
        return self.types.get(cell_type, np.full_like(self.overall, np.nan))


def perturbed_genes(name: str, genes: pd.Index) -> list[str]:
    """Genes that a name such as ``FOXO1``, ``FOXO1=0, PAX5=0`` or ``FOXO1+PAX5`` speaks of."""
    if name in genes:
        return [name]
    return [part for part in _NOT_A_NAME.split(name) if part in genes]


def without_perturbed(values: Floats, names: Sequence[str], genes: pd.Index) -> Floats:
    """Changes with NaN at the genes that were perturbed by hand."""
    out = np.array(values, dtype=np.float64)
    for p, name in enumerate(names):
        out[p, genes.get_indexer(perturbed_genes(str(name), genes))] = np.nan
    return out


def read_effects(
    adata: AnnData,
    *,
    name: str,
    perturbation_key: str | None = None,
    control: str | None = None,
    layer: str | None = None,
    cluster_key: str | None = None,
    perturbed_key: str = "",
    min_cells: int = 1,
) -> Effects:
    """Read mean changes from a screen, a table of changes, cells after ``tl.perturb``, or cells of an experiment.

    Parameters
    ----------
    adata
        One of these.
    name
        Of the argument, for messages.
    perturbation_key, control
        Column of ``obs`` with the perturbation of each cell, and its value for cells without one.
    layer
        Normalised expression of the cells, or the changes of a table.
    cluster_key
        Column of ``obs`` with the types of cells.
    perturbed_key
        Key of a simulated perturbation.
    min_cells
        Cells below which a mean is not believed.
    """
    assert_unique_names(adata)
    if perturbation_key is not None:
        return _of_experiment(adata, name, perturbation_key, control, layer, cluster_key, min_cells)
    if perturbed_key and perturbed_key in adata.uns and perturbed_key in adata.layers:
        return _of_simulation(adata, perturbed_key, cluster_key)
    values = _dense(adata, layer)
    if not adata.n_obs:
        msg = f"Expected `{name}` to hold at least one perturbation, found none."
        raise ValueError(msg)
    if bad := int((~np.isfinite(values)).sum()):
        warn(f"{bad} changes of `{name}` are NaN or infinite; they are left out.")
    return Effects(
        adata.obs_names,
        adata.var_names,
        values,
        {} if layer is not None else types_of_screen(adata),
        knockouts=str(adata.uns.get(SCREEN, {}).get("mode", _KNOCKOUT)) == _KNOCKOUT,
    )


def types_of_screen(adata: AnnData) -> dict[str, Floats]:
    """Changes over the cells of each type of a screen, by name; nothing where it is none."""
    types = np.atleast_1d(adata.uns.get(SCREEN, {}).get("cell_types", []))
    return {str(t): _dense(adata, type_layer(i)) for i, t in enumerate(types)}


def _dense(adata: AnnData, layer: str | None) -> Floats:
    values = read_matrix(adata, layer)
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


def _of_simulation(adata: AnnData, key: str, cluster_key: str | None) -> Effects:
    stored = adata.uns[key]
    before = get_expression(adata, layer=str(stored["layer"]) or None, check=False)
    after = get_expression(adata, layer=key, check=False)
    change = (after - before).astype(np.float64)
    cluster_key = cluster_key or cluster_key_of(adata, betas_key=str(stored.get("betas_key", "betas")))
    types = {}
    if cluster_key is not None and cluster_key in adata.obs:
        labels = adata.obs[cluster_key].astype(str).to_numpy()
        types = {str(t): change[labels == t].mean(axis=0)[None] for t in pd.unique(labels)}
    genes = [str(g) for g in np.atleast_1d(stored["genes"])]
    name = genes[0] if len(genes) == 1 else "+".join(genes)
    return Effects(
        pd.Index([name]), adata.var_names, change.mean(axis=0)[None], types,
        lambda _, wanted: (before[:, wanted], after[:, wanted]),
        bool(((np.atleast_1d(stored["values"]) == 0) | (np.atleast_1d(stored["folds"]) == 0)).all()),
    )  # fmt: skip


def _of_experiment(
    adata: AnnData,
    name: str,
    perturbation_key: str,
    control: str | None,
    layer: str | None,
    cluster_key: str | None,
    min_cells: int,
) -> Effects:
    assert_key(adata, "obs", perturbation_key, name="perturbation_key")
    labels = adata.obs[perturbation_key].astype(str).to_numpy()
    found = list(pd.unique(labels[adata.obs[perturbation_key].notna().to_numpy()]))
    if control is None or str(control) not in found:
        msg = (
            f"Expected `control` to be one of the values of adata.obs[{perturbation_key!r}] ({listed(found)}), "
            f"found `{control!r}`."
        )
        raise ValueError(msg)
    names = sorted(set(found) - {str(control)})
    if not names:
        msg = f"Expected adata.obs[{perturbation_key!r}] of `{name}` to name a perturbation other than {control!r}."
        raise ValueError(msg)
    values = get_expression(adata, layer=layer)
    without = labels == str(control)
    types: dict[str, Floats] = {}
    weights = []
    cluster_key = cluster_key or cluster_key_of(adata)
    if cluster_key is not None and cluster_key in adata.obs:
        of_cell = adata.obs[cluster_key].astype(str).to_numpy()
        for cell_type in sorted(set(of_cell)):
            inside = of_cell == cell_type
            types[cell_type] = _changes(values, labels, names, without, inside, min_cells)
            weights.append(float((inside & without).sum()))
        overall = _weighted(np.stack(list(types.values())), np.array(weights))
    else:
        overall = _changes(values, labels, names, without, np.ones(adata.n_obs, dtype=bool), min_cells)
    if few := [n for n, row in zip(names, overall, strict=True) if not np.isfinite(row).any()]:
        warn(
            f"Fewer than {min_cells} perturbed or control cells (`min_cells`) in every cell type for {listed(few, 5)}: "
            "their changes are unknown."
        )

    def cells(label: str, wanted: Ints) -> tuple[Floats, Floats]:
        return values[without][:, wanted], values[labels == label][:, wanted]

    return Effects(pd.Index(names), adata.var_names, overall, types, cells)


def _changes(
    values: Floats, labels: np.ndarray, names: Sequence[str], without: Bools, inside: Bools, min_cells: int
) -> Floats:
    """Mean of the cells of each perturbation less that of controls; NaN where either are too few."""
    out = np.full((len(names), values.shape[1]), np.nan)
    controls = without & inside
    if controls.sum() < min_cells:
        return out
    base = values[controls].mean(axis=0, dtype=np.float64)
    for p, name in enumerate(names):
        chosen = (labels == name) & inside
        if chosen.sum() >= min_cells:
            out[p] = values[chosen].mean(axis=0, dtype=np.float64) - base
    return out


def _weighted(changes: Floats, weights: Floats) -> Floats:
    """Mean over types (first axis) with the weight of each, those that are not known left out."""
    known = np.isfinite(changes)
    shares = weights[:, None, None] * known
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(known, changes * shares, 0.0).sum(axis=0) / shares.sum(axis=0))
