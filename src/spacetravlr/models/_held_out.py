"""Scores of a fit, by target: what its simulated changes may be believed to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr._core.scores import LEAST_CEILING

if TYPE_CHECKING:
    from spacetravlr._types import Floats


def target_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Summarise scores over cell types.

    R2 columns are averaged with the held-out variance of each type as the weight (cells, where it is not recorded), so
    that the average is again one minus the ratio of sums of squares.

    Parameters
    ----------
    scores
        One row per target and cell type.

    Returns
    -------
    One row per target: ``n_cells``, ``n_report``, ``sst_report``, the R2 columns, with counts ``ceiling``,
    ``explained`` and what else is known of the whole target, ``gain`` of the averages (see :func:`held_out_gain`),
    ``kept`` (the body of most cells) and ``kept_fraction`` (part of the cells for which anything was kept).
    """
    numeric = [c for c in scores.columns if c.startswith("r2_") or c == "ceiling"]
    of_target = [c for c in ("explained_low", "explained_high", "evidence_gain", "p_terms") if c in scores.columns]
    totals = [c for c in ("n_cells", "n_report", "sst_report") if c in scores.columns]
    weight_name = next((c for c in ("sst_report", "n_report", "n_cells") if c in scores.columns), None)
    if scores.empty:  # coefficients that were read from files of the published programs
        return pd.DataFrame(columns=["target", *totals, *numeric, *of_target, "gain", "kept", "kept_fraction"])
    rows = {}
    for target, group in scores.groupby(scores["target"].astype(str), sort=False):
        weight = np.ones(len(group)) if weight_name is None else group[weight_name].to_numpy(float)
        row: dict[str, object] = {c: group[c].sum() for c in totals}
        for column in numeric:
            values = group[column].to_numpy(float)
            good = np.isfinite(values) & (weight > 0)
            row[column] = float(np.average(values[good], weights=weight[good])) if good.any() else np.nan
        row |= {c: group[c].iloc[0] for c in of_target}
        if "ceiling" in row:
            ceiling = float(row["ceiling"])  # type: ignore[arg-type]
            row["explained"] = float(row["r2_kept"]) / ceiling if ceiling >= LEAST_CEILING else np.nan  # type: ignore[arg-type]
        if "kept" in group:
            cells = group["n_cells"].to_numpy(float) if "n_cells" in group else np.ones(len(group))
            by_body = pd.Series(cells, index=group["kept"].astype(str).to_numpy()).groupby(level=0).sum()
            row["kept"] = by_body.idxmax()
            row["kept_fraction"] = 1 - by_body.get("zero", 0.0) / max(cells.sum(), 1)
        rows[target] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("target").reset_index()
    place = table.columns.get_loc("kept") if "kept" in table else table.shape[1]
    table.insert(place, "gain", held_out_gain(table))
    return table


def held_out_gain(scores: pd.DataFrame) -> Floats:
    """By how much regulators raise the held-out R2 over what explains a target without them.

    What explains it without them is the best of what is known: the mean of the type, type and smooth position, and both
    with adjustment terms. Of fits to counts the model counts whether it was kept or not; of others, what was kept.

    Parameters
    ----------
    scores
        Any table with the R2 columns of a fit.

    Returns
    -------
    One value per row; NaN where the model or what it had to beat is not known.
    """

    def column(name: str) -> Floats:
        return scores[name].to_numpy(float) if name in scores else np.full(len(scores), np.nan)

    pooled = column("r2_pooled")
    model = np.where(np.isfinite(pooled), pooled, column("r2_kept"))
    rivals = [column(name) for name in ("r2_zero", "r2_field", "r2_adjusted")]
    return np.asarray(model - np.fmax.reduce(rivals))


def held_out_r2(scores: pd.DataFrame, genes: pd.Index, cell_type: str | None = None) -> np.ndarray:
    """Accuracy of the model of each gene, in one cell type or over all; NaN for genes without a model.

    The held-out R2 of what was kept, against values before imputation if that is known. For transferred coefficients,
    the R2 at the cells of the query (``r2_query``), regardless of their score in the reference.
    """
    column = next((c for c in ("r2_query", "r2_kept_raw", "r2_kept") if c in scores), "")
    if not column:
        return np.full(len(genes), np.nan)
    if column == "r2_query":
        weights = {"sst_report": "sst_query", "n_cells": "n_query"}
        scores = scores.drop(columns=["sst_report", "n_report", "n_cells"], errors="ignore")
        scores = scores.rename(columns={new: old for old, new in weights.items()})
    table = target_scores(scores) if cell_type is None else scores[scores["cell_type"].astype(str) == cell_type]
    values = pd.Series(table[column].to_numpy(float), index=table["target"].astype(str).to_numpy())
    return np.asarray(values.reindex(genes).to_numpy(dtype=float))
