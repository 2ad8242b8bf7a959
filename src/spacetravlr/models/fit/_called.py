"""Which terms of all targets are called, at one false discovery rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._anndata._modulators import ADJUSTMENT
from spacetravlr._core.inference.fdr import benjamini_hochberg
from spacetravlr.models.fit._tables import OF_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from spacetravlr._types import Bools, Floats


def call_terms(
    terms: pd.DataFrame, scores: pd.DataFrame, type_names: Sequence[str], fdr: float
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """Add q-values and, if there are any, use them to decide which terms are active.

    Causal terms are one family of tests, over all targets with or without a model; adjustment terms are another. For a
    target without a model nothing is claimed: its q-values are one.

    Parameters
    ----------
    terms
        One row per column, with what the fit of each target found of it.
    scores
        One row per target and cell type.
    type_names
        Cell types in the order of their numbers in the column names of ``terms``.
    fdr
        False discovery rate at which a term counts as active.

    Returns
    -------
    The table, and errors, intervals, p-values and q-values in each cell type (arrays, columns x types); ``None`` where
    no target has them.
    """
    if "p" not in terms:
        return terms, None
    numbers = range(len(type_names))
    of_type = {name: terms[[f"{name}_{c}" for c in numbers]].to_numpy(float) for name in OF_TYPE}
    terms = terms.drop(columns=[f"{name}_{c}" for name in OF_TYPE for c in numbers])
    adjustment = terms["kind"].astype(str).isin(ADJUSTMENT).to_numpy()
    keeps = scores.groupby(scores["target"].astype(str))["kept"].agg(lambda kept: (kept.astype(str) != "zero").any())
    kept = keeps.reindex(terms["target"].astype(str)).to_numpy(bool)
    for name, of in (("q", "p"), ("q_varies", "p_varies")):
        terms[name] = _q_values(terms[of].to_numpy(float), adjustment, kept)
    judged = np.isfinite(terms["p"].to_numpy(float))
    called = (terms["q"].to_numpy(float) <= fdr) & (terms["importance"].to_numpy(float) > 0)
    terms["active"] = np.where(judged, called, terms["active"].to_numpy(bool))
    of_type["q"] = _q_values(of_type["p"], adjustment, kept)
    by_type: dict[str, Any] = {name: values.astype(np.float32) for name, values in of_type.items()}
    by_type["cell_types"] = np.array(type_names, dtype=object)
    return terms, by_type


def _q_values(p: Floats, adjustment: Bools, kept: Bools) -> Floats:
    """q-values, those of adjustment by themselves, one where nothing is kept; one row per term."""
    q = np.full(p.shape, np.nan)
    for family in (adjustment, ~adjustment):
        q[family] = benjamini_hochberg(p[family])
    q[~kept] = np.where(np.isfinite(q[~kept]), 1.0, np.nan)
    return q
