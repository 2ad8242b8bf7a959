"""The results of a screen as one AnnData, perturbations x genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr._anndata._modulators import ADJUSTMENT
from spacetravlr._core.inference.fdr import benjamini_hochberg
from spacetravlr.models._held_out import held_out_r2
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._screen_files import ScreenResult

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Bools, Floats, Ints

SCREEN = "screen"
ROLES = ("tf", "ligand", "receptor")


def type_layer(i: int) -> str:
    """Layer that holds the mean change in cell type ``i``; types are numbered, since their names may hold slashes."""
    return f"change_{i}"


def screen_table(
    model: FittedModel,
    results: Sequence[ScreenResult],
    *,
    run: Mapping[str, Any],
    cells: Bools,
    cell_types: Sequence[str],
    groups: Ints,
) -> AnnData:
    """Assemble the results of a screen; the contents are described in :func:`spacetravlr.tl.genome_screen`."""
    from anndata import AnnData

    names = model.genes
    genes = np.unique(np.concatenate([r.gene_index for r in results]))
    n_groups = len(cell_types) + 1
    mean = np.zeros((n_groups, len(results), len(genes)), dtype=np.float32)
    mean_abs, fraction = np.zeros(mean.shape[1:], np.float32), np.zeros(mean.shape[1:], np.float32)
    for p, result in enumerate(results):
        columns = np.searchsorted(genes, result.gene_index)
        mean[:, p, columns] = result.mean
        mean_abs[p, columns], fraction[p, columns] = result.mean_abs[0], result.fraction[0]

    screen = AnnData(
        mean[0],
        obs=_obs(model, results, cells, genes, mean_abs, fraction),
        var=_var(model, genes),
        layers={"mean_abs_change": mean_abs, "fraction_changed": fraction},
    )
    for i in range(len(cell_types)):
        screen.layers[type_layer(i)] = mean[i + 1]
    if all(r.se is not None for r in results):
        _add_errors(screen, results, genes, model.genes.get_indexer(screen.obs_names), len(mean))
    values = model.expression[:, genes]
    held_out = [held_out_r2(model.fit.scores, names[genes], t) for t in cell_types]
    if cell_types:
        inside = [groups == i for i in range(len(cell_types))]
        screen.varm["baseline"] = np.stack([values[chosen].mean(axis=0) for chosen in inside], axis=1)
        screen.varm["sd"] = np.stack([values[chosen].std(axis=0) for chosen in inside], axis=1)
        screen.varm["r2"] = np.stack(held_out, axis=1)
    screen.uns[SCREEN] = {
        **run,
        "cluster_key": str(model.fit.params.get("cluster_key") or ""),
        "cell_types": np.array(cell_types, dtype=object) if cell_types else np.array([], dtype="U1"),
        "n_cells": np.array([np.sum(groups == i) for i in range(len(cell_types))], dtype=np.int64),
    }
    return screen


def _add_errors(screen: AnnData, results: Sequence[ScreenResult], genes: Ints, own: Ints, n_groups: int) -> None:
    """Add standard errors, and q-values over all perturbations and the genes that they did not set by hand."""
    se, p_values = (np.full((n_groups, len(results), len(genes)), np.nan) for _ in range(2))
    for p, result in enumerate(results):
        columns = np.searchsorted(genes, result.gene_index)
        se[:, p, columns], p_values[:, p, columns] = result.se, result.p
    p_values[:, genes[None, :] == own[:, None]] = np.nan
    for i in range(n_groups):
        se_layer, q_layer = ("se", "q") if i == 0 else (f"se_{i - 1}", f"q_{i - 1}")
        screen.layers[se_layer] = se[i].astype(np.float32)
        screen.layers[q_layer] = benjamini_hochberg(p_values[i]).astype(np.float32)


def _var(model: FittedModel, genes: Ints) -> pd.DataFrame:
    values = model.expression[:, genes]
    names = model.genes[genes]
    return pd.DataFrame(
        {
            "baseline": values.mean(axis=0),
            "sd": values.std(axis=0),
            "r2": held_out_r2(model.fit.scores, names),
            "modelled": np.isin(genes, model.fit.design.targets.gene),
        },
        index=names,
    )


def _obs(
    model: FittedModel,
    results: Sequence[ScreenResult],
    cells: Bools,
    genes: Ints,
    mean_abs: Floats,
    fraction: Floats,
) -> pd.DataFrame:
    index = pd.Index([r.gene for r in results], name="perturbation")
    table = model.fit.table
    table = table if model.adjusted else table[~table["kind"].astype(str).isin(ADJUSTMENT)]
    position = model.genes.get_indexer(index)
    others = genes[None, :] != position[:, None]
    modelled = others & np.isin(genes, model.fit.design.targets.gene)
    plays = {f"is_{role}": index.isin(set(table[role].astype(str))) for role in ROLES}
    n_modelled = np.maximum(modelled.sum(axis=1), 1)
    return pd.DataFrame(
        {
            **plays,
            # scanpy groups by categories
            "role": pd.Categorical([" + ".join(r for r in ROLES if plays[f"is_{r}"][i]) for i in range(len(index))]),
            "baseline": model.expression[:, position].mean(axis=0),
            "n_cells": np.full(len(results), int(cells.sum())),
            "n_cells_perturbed": [r.n_perturbed for r in results],
            "effect": (mean_abs * modelled).sum(axis=1) / n_modelled,
            "n_genes_changed": ((fraction > 0) & modelled).sum(axis=1),
        },
        index=index,
    )
