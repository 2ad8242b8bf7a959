"""Groups of cells: which column of ``obs`` names their types, and what all of them together are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Bools

#: What all cells together are called in tables, unless a cell type is called so.
ALL = "all"


class CellGroup(NamedTuple):
    """Cells that a table summarises together."""

    name: str
    cells: Bools
    """Mask, shape (n_cells,)."""


def cluster_key_of(adata: AnnData, cluster_key: str | None = None, *, betas_key: str = _keys.BETAS) -> str | None:
    """Column of ``obs`` with the cell types.

    The first of: the argument, the column that the fit used, the column that the modulators used, ``"cell_type"``.
    ``None`` if the fit or the modulators were run without types, or if none of these is given and there is no column
    ``"cell_type"``.
    """
    if cluster_key is not None:
        return cluster_key
    for key in (betas_key, _keys.MODULATORS):
        params = _params(adata, key)
        if "cluster_key" in params:
            return str(params["cluster_key"]) or None
    return _keys.CELL_TYPE if _keys.CELL_TYPE in adata.obs else None


def aggregate_name(types: Iterable[Any]) -> str:
    """Name for all cells together, given these cell types: ``"all"``, unless a type has that name."""
    taken = {str(name) for name in types}
    name = ALL if ALL not in taken else "all cells"
    while name in taken:
        name = f"({name})"
    return name


def cell_groups(adata: AnnData, key: str | None) -> list[CellGroup]:
    """All cells, then the cells of each label that occurs in ``obs[key]``, in the order of the categories."""
    everything = np.ones(adata.n_obs, dtype=bool)
    if key is None:
        return [CellGroup(ALL, everything)]
    labels = pd.Categorical(adata.obs[key]).remove_unused_categories()
    groups = [CellGroup(str(name), np.asarray(labels.codes == i)) for i, name in enumerate(labels.categories)]
    return [CellGroup(aggregate_name(labels.categories), everything), *groups]


def _params(adata: AnnData, key: str) -> Any:
    stored = adata.uns.get(key)
    params = stored.get("params") if hasattr(stored, "get") else None
    return params if hasattr(params, "get") else {}
