"""Tables of a block of targets: its terms, its scores and its learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr._core.scores import (
    LEAST_CEILING,
    centred_by_type,
    r2,
    ratio_interval,
    squared_errors,
    squares_within_types,
    sums_by_type,
    type_means,
)
from spacetravlr._utils import InterruptiblePool
from spacetravlr.models.bodies._registry import BODY_NAMES
from spacetravlr.models.fit._choose import of_kept

if TYPE_CHECKING:
    from spacetravlr._core.standardise import BlockDesign
    from spacetravlr._core.surfaces.inference import TermInference
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.bodies._base import Body, BodyResult
    from spacetravlr.models.bodies._inputs import FitInputs

#: Columns that are there for each cell type too, with its number.
OF_TYPE = ("se", "low", "high", "p")
_ACTIVE_SHARE = 0.05  # of the median importance, where there is no evidence: the threshold of the published analyses


def terms_of_block(
    block: BlockDesign,
    inputs: FitInputs,
    bodies: Mapping[str, Body],
    kept: Ints,
    betas: Floats,
    position: Ints,
    places: Ints,
    n_jobs: int,
) -> pd.DataFrame:
    """``importance``, ``evidence`` and ``active`` of each column of the block.

    ``position`` are the cells of the rows of ``betas``, ``places`` its columns in the order of the block.
    """
    centred = centred_by_type(block.values, inputs.cell_type, inputs.n_types)[position]
    starts = np.cumsum([0, *(len(block.columns(t)) + 1 for t in range(len(block)))])

    def importance_of(t: int) -> Floats:
        start, stop = int(starts[t]), int(starts[t + 1])
        importance = np.zeros(stop - start - 1)
        if len(importance):  # columns of a target lie together, in an order of their own
            order = np.argsort(places[start + 1 : stop])
            first = places[start + 1 + order[0]]
            contribution = betas[:, first : first + len(order)] * centred[:, block.columns(t)[order]]
            importance[order] = _root_mean_square(contribution) / block.y_spread[t]
        return importance

    rows: list[dict[str, Floats]] = []
    with InterruptiblePool(n_jobs) as pool:
        for t, importance in enumerate(pool.map(importance_of, range(len(block)))):
            evidence = {b: (x.evidence(t), x.least_evidence) for b, x in bodies.items()}
            row = _describe(importance, kept[t], evidence)
            inference = next((found for x in bodies.values() if (found := x.inference(t)) is not None), None)
            rows.append(row if inference is None else row | _errors(inference, kept=bool(kept[t].any())))
    return pd.DataFrame({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def _describe(importance: Floats, kept: Ints, evidence: Mapping[str, tuple[Floats | None, float]]) -> dict[str, Floats]:
    """How much each term contributes, how well it is supported, and whether it counts as active.

    The importance is the standard deviation of a term's contribution within cell types. Evidence comes from a body that
    some type keeps; it is NaN for terms that the body never included. Included terms with more than the minimum
    evidence of that body are active. If no body that is kept provides evidence, there is none, and terms above a small
    share of the median importance are active.
    """
    delivered = (evidence.get(body) for code, body in enumerate(BODY_NAMES) if (kept == code).any())
    known, least = next((found for found in delivered if found is not None and found[0] is not None), (None, 0.0))
    if known is None:
        log_bayes = np.full(len(importance), np.nan)
        positive = importance[importance > 0]
        active = importance > _ACTIVE_SHARE * (np.median(positive) if len(positive) else np.inf)
    else:
        log_bayes = np.where(np.isfinite(known), known, np.nan)
        active = np.isfinite(known) & (known > least) & (importance > 0)
    return {
        "importance": np.concatenate([[np.nan], importance]),
        "evidence": np.concatenate([[np.nan], log_bayes]),
        "active": np.concatenate([[True], active]),
    }


def _errors(inference: TermInference, *, kept: bool) -> dict[str, Floats]:
    """Errors, intervals and p-values of each column, over all cells and in each type (``se_0``, ``p_0``, ...).

    If no model is kept, coefficients are zero, and errors are about zero.
    """
    se = inference.se if kept else np.hypot(inference.se, inference.estimate)
    found = {"se": se, "low": inference.low, "high": inference.high, "p": inference.p_group}
    columns = {name: values[:, -1] for name, values in found.items()}
    columns |= {"p": inference.p, "p_varies": inference.p_varies}
    for c in range(se.shape[1] - 1):
        columns |= {f"{name}_{c}": values[:, c] for name, values in found.items()}
    return {name: np.concatenate([[np.nan], values]) for name, values in columns.items()}


def _root_mean_square(values: Floats) -> Floats:
    return np.sqrt(np.einsum("jk,jk->k", values, values, dtype=np.float64) / max(len(values), 1))


def scores_of_block(
    block: BlockDesign, inputs: FitInputs, bodies: Mapping[str, BodyResult], kept: Ints
) -> pd.DataFrame:
    """Cells, held-out and training R2 of each body, and what is kept: one row per target and cell type (a code)."""
    report, n_types = inputs.report, inputs.n_types
    types = inputs.cell_type[report]
    names = np.array([inputs.target_names[i] for i in block.index], dtype=object)
    total = squares_within_types(block.y[report], types, n_types)
    columns: dict[str, Floats] = {
        "target": np.repeat(names, n_types),
        "cell_type": np.tile(np.arange(n_types), len(block)),
        "n_cells": np.tile(np.bincount(inputs.cell_type, minlength=n_types), len(block)),
        "n_report": np.tile(np.bincount(types, minlength=n_types), len(block)),
        "sst_report": total.ravel(),
    }
    errors = {b: squared_errors(block.y[report], r.prediction[report], types, n_types) for b, r in bodies.items()}
    missing = np.full(total.size, np.nan)
    for body in BODY_NAMES:
        columns[f"r2_{body}"] = r2(errors[body], total) if body in bodies else missing
    columns["r2_kept"] = r2(of_kept(kept, errors), total)
    if inputs.raw is not None:
        raw = inputs.raw[report][:, block.index]
        raw_errors = {b: squared_errors(raw, r.prediction[report], types, n_types) for b, r in bodies.items()}
        columns["r2_kept_raw"] = r2(of_kept(kept, raw_errors), squares_within_types(raw, types, n_types))
    columns |= _noise_columns(block, inputs, bodies, kept)
    for body in BODY_NAMES[1:]:
        columns[f"r2_train_{body}"] = _training_r2(block, inputs, bodies[body]) if body in bodies else missing
    columns["kept"] = np.array(BODY_NAMES, dtype=object)[kept.ravel()]
    return pd.DataFrame(columns)


def _noise_columns(
    block: BlockDesign, inputs: FitInputs, bodies: Mapping[str, BodyResult], kept: Ints
) -> dict[str, Floats]:
    """Score columns that need the noise of expression; none if it is treated as exact.

    ``ceiling`` is the share of the variance within a type that is not counting noise, ``explained`` the part of it that
    the model explains, with an interval over all types of the target. Below a least ceiling there is nothing to
    explain, and both are NaN: a ratio to almost nothing tells nothing. ``r2_field`` is the R2 of type and smooth
    position alone, ``r2_adjusted`` that with adjustment terms, ``evidence_gain`` the log evidence that the other terms
    add to these, and ``p_terms`` the p-value that all terms predict no better than type and position.
    """
    calibration = inputs.calibration
    if calibration is None:
        return {}
    report, n_types = inputs.report, inputs.n_types
    types, y = inputs.cell_type[report], block.y[report].astype(np.float64)
    noise = calibration.noise[report][:, inputs.targets.gene[block.index]].astype(np.float64)
    total = squares_within_types(block.y[report], types, n_types)
    with np.errstate(divide="ignore", invalid="ignore"):
        ceiling = np.where(total > 0, np.clip(1 - sums_by_type(noise, types, n_types) / total, 0, 1), np.nan)
    squared = {b: (y - r.prediction[report]) ** 2 for b, r in bodies.items()}
    of_cells = kept.T[types]
    error = np.select([of_cells == BODY_NAMES.index(b) for b in squared], list(squared.values()))
    means = type_means(y, types, n_types, np.ones(len(y), dtype=bool))
    about_mean = (y - means[types]) ** 2
    signal = about_mean - noise
    is_measured = signal.sum(axis=0) >= LEAST_CEILING * about_mean.sum(axis=0)
    low, high = (
        np.where(is_measured, end, np.nan) for end in ratio_interval(error - noise, signal, inputs.cv_block[report])
    )
    explained = r2(sums_by_type(error - noise, types, n_types), sums_by_type(signal, types, n_types))
    out = {
        "ceiling": ceiling.ravel(),
        "explained": np.where(ceiling.ravel() >= LEAST_CEILING, explained, np.nan),
        "explained_low": np.repeat(low, n_types),
        "explained_high": np.repeat(high, n_types),
    }
    known = next((r for r in bodies.values() if r.without_terms is not None), None)
    if known is not None and known.without_terms is not None and known.without_claims is not None:
        out["r2_field"] = r2(squared_errors(y, known.without_terms[report], types, n_types), total)
        out["r2_adjusted"] = r2(squared_errors(y, known.without_claims[report], types, n_types), total)
        out["evidence_gain"] = np.repeat(np.asarray(known.evidence_gain), n_types)
        out["p_terms"] = np.repeat(np.asarray(known.p_terms), n_types)
    return out


def _training_r2(block: BlockDesign, inputs: FitInputs, body: BodyResult) -> Floats:
    rows = ~inputs.report & np.isfinite(body.train).all(axis=1)
    y, types = block.y[rows], inputs.cell_type[rows]
    errors = squared_errors(y, body.train[rows], types, inputs.n_types)
    return r2(errors, squares_within_types(y, types, inputs.n_types))


def curves_of_block(block: BlockDesign, inputs: FitInputs, bodies: Mapping[str, Body]) -> pd.DataFrame:
    """Learning curves: target, epoch, train, validation; empty where nothing was trained."""
    curves = next((body.curves for body in bodies.values() if body.curves), None)
    if curves is None:
        return pd.DataFrame({"target": pd.Series(dtype=object), "epoch": pd.Series(dtype=int),
                             "train": pd.Series(dtype=float), "validation": pd.Series(dtype=float)})  # fmt: skip
    n_epochs = len(curves["train"])
    return pd.DataFrame(
        {
            "target": np.repeat([inputs.target_names[i] for i in block.index], n_epochs),
            "epoch": np.tile(np.arange(n_epochs), len(block)),
            "train": np.asarray(curves["train"]).T.ravel(),
            "validation": np.asarray(curves["validation"]).T.ravel(),
        }
    )
