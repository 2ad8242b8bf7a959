"""What controls each target, by cell type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._betas import BetaModel, read_betas
from spacetravlr._anndata._modulators import INTERCEPT, column_names
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._validators import assert_genes
from spacetravlr.models.perturb._coefficients import coefficient_reader

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Bools, Floats, Ints

ALL = "all"
_TERM_COLUMNS = ("target", "kind", "tf", "ligand", "receptor", "range")


def modulators(
    adata: AnnData | SpatialData, *, target: str | Sequence[str] | None = None, betas_key: str = _keys.BETAS
) -> pd.DataFrame:
    """Tabulate the coefficients of each modulator, by cell type.

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`.
    target
        Modelled genes; all by default.
    betas_key
        Key of the coefficients.

    Returns
    -------
    One row a target, modulator and cell type (the type ``"all"`` first), with columns

    ``target``, ``modulator``, ``kind``, ``tf``, ``ligand``, ``receptor``, ``range``
        Which term; ``modulator`` is its short name, such as ``TGFB1$TGFBR1``.
    ``cell_type``, ``n_cells``, ``mean``, ``mean_abs``, ``sd``
        Coefficient over the cells of the type, in original units of expression.
    ``importance``, ``evidence``, ``active``
        What the fit found of the term as a whole, where it recorded that.

    Raises
    ------
    KeyError
        When there are no coefficients, or none of ``target``.
    """
    adata = unwrap(adata)
    model = read_betas(adata, betas_key)
    names = model.target_names
    wanted = names if target is None else [target] if isinstance(target, str) else list(target)
    assert_genes(wanted, names, name="target", where="the fitted targets")
    position = np.array([names.index(t) for t in wanted], dtype=np.int64)
    groups = _groups(adata, str(model.params.get("cluster_key") or ""))

    columns = np.concatenate([np.arange(*model.design.targets.columns_of(int(t)).indices(10**12)) for t in position])
    stats = _group_stats(model, position, [mask for _, mask in groups])[:, :, columns]
    table = model.table.iloc[columns].reset_index(drop=True)
    table = table.astype(dict.fromkeys(_TERM_COLUMNS, str))
    labels = [n for _, rows in table.groupby("target", sort=False) for n in column_names(rows)]
    # groupby keeps first appearance, which is the order of the columns: a target's columns are contiguous
    table.insert(1, "modulator", [label.removeprefix("beta_") for label in labels])
    keep = (table["kind"] != INTERCEPT).to_numpy()
    found = [c for c in ("importance", "evidence", "active") if c in table]
    parts = []
    for g, (name, mask) in enumerate(groups):
        part = table.loc[keep, ["target", "modulator", *_TERM_COLUMNS[1:]]].copy()
        part["cell_type"], part["n_cells"] = name, int(mask.sum())
        part["mean"], part["mean_abs"], part["sd"] = stats[:, g][:, keep]
        parts.append(pd.concat([part, table.loc[keep, found]], axis=1).assign(_term=np.flatnonzero(keep), _group=g))
    tidy = pd.concat(parts).sort_values(["_term", "_group"], kind="stable")
    return tidy.drop(columns=["_term", "_group"]).reset_index(drop=True)


def _groups(adata: AnnData, cluster_key: str) -> list[tuple[str, Bools]]:
    """All cells, then the cells of each type."""
    groups = [(ALL, np.ones(adata.n_obs, dtype=bool))]
    if cluster_key in adata.obs:
        types = pd.Categorical(adata.obs[cluster_key]).remove_unused_categories()
        groups += [(str(name), np.asarray(types.codes == i)) for i, name in enumerate(types.categories)]
    return groups


def _group_stats(model: BetaModel, targets: Ints, masks: Sequence[Bools]) -> Floats:
    """Mean, mean size and standard deviation of each column in each group, read block by block."""
    sums = np.zeros((3, len(masks), model.design.targets.n_columns))
    weights = np.stack(masks).astype(np.float32)
    for block in coefficient_reader(model.betas, model.design.targets)(np.unique(targets)):
        for t in block.targets:
            columns = model.design.targets.columns_of(int(t))
            values = block.values[:, columns.start - block.first_column : columns.stop - block.first_column]
            inside = weights[:, block.cells].astype(np.float64)
            values = values.astype(np.float64)
            for power, transformed in enumerate((values, np.abs(values), values**2)):
                sums[power][:, columns] += inside @ transformed
    size = np.maximum(weights.sum(axis=1, dtype=np.float64), 1)[:, None]
    mean, mean_abs, square = sums / size
    return np.stack([mean, mean_abs, np.sqrt(np.maximum(square - mean**2, 0))])
