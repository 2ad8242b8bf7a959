"""Fit a block of targets: every body, which one each cell type keeps, and how well it does on cells held out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from spacetravlr.models.bodies._base import BodyResult, fit_zero, sums_by_type
from spacetravlr.models.bodies._fitted import BODIES, EvaluationCells, FittedBlock
from spacetravlr.models.bodies._inputs import BlockDesign, BodyOptions, FitInputs, block_design
from spacetravlr.models.bodies._network import Networks, niches
from spacetravlr.models.bodies._seed import fit_seed
from spacetravlr.models.bodies._surface import SurfaceExtras, fit_surfaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.nn import NicheData

_PRIOR_CELLS = 50  # held-out cells of a type at which its own errors weigh as much as those over all types
_TIE = 1e-6  # of the type mean's error: a network that stopped where it began differs from its seed by rounding alone
# Standard errors by which a network must win beside a surface. In trials those that won by one to two were worse on the
# reporting cells more often than better: among a dozen cell types some network wins by chance.
_MARGIN = 2.0
_ACTIVE_SHARE = 0.05  # of the median importance, where there is no evidence: the threshold of the published analyses


@dataclass
class BlockResult:
    """What a fit of a block leaves; columns are, per target, the intercept and then the terms."""

    index: Ints
    """Which targets."""
    betas: Floats
    """Cells x columns, float32."""
    terms: pd.DataFrame
    """``importance``, ``evidence`` and ``active`` of each column."""
    scores: pd.DataFrame
    """One row a target and cell type; ``cell_type`` holds codes."""
    training: pd.DataFrame
    """Learning curves: target, epoch, train, validation."""
    sd: Floats | None = None
    """Posterior standard deviations (cells x columns, float32), NaN where another body than a surface
    of its own was kept."""
    bodies: dict[str, Any] = field(default_factory=dict)
    """State of :class:`FittedBlock`: what is needed to evaluate the coefficients at other cells."""


def fit_targets(
    inputs: FitInputs,
    options: BodyOptions,
    index: Ints,
    *,
    functions: CellFunctions | None = None,
    n_jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> BlockResult:
    """Fit the targets at ``index``.

    Parameters
    ----------
    inputs, options
        The tissue and how to fit.
    index
        Which targets of ``inputs.targets``.
    functions
        ``inputs.functions()``, when the caller has it already.
    n_jobs
        Threads.
    progress
        Called with the number of targets finished since the last call.
    """
    report = progress or (lambda _: None)
    block = block_design(inputs, np.asarray(index))
    bodies: dict[str, BodyResult] = {"zero": fit_zero(block, inputs)}
    bodies["seed"], seeds = fit_seed(block, inputs, options, n_jobs)
    extras: SurfaceExtras | None = None
    networks = Networks(block, inputs, options, seeds, n_jobs) if options.with_network else None
    with threadpool_limits(1), ThreadPoolExecutor(n_jobs) as pool:
        comparison = pool.submit(networks.compare) if networks else None  # beside the surfaces, which do not need it
        if options.with_surface:
            functions = functions or inputs.functions()
            bodies["surface"], extras = fit_surfaces(
                block, inputs, options, functions, bodies["seed"], seeds, pool, lambda: report(1)
            )
        if comparison:
            bodies["network"] = comparison.result()
        kept = choose_bodies(block, inputs, bodies, options.score_threshold)
        if networks:
            networks.finish(bodies["network"], (kept == BODIES.index("network")).any(axis=1), pool)
    if not options.with_surface:
        report(len(block))
    fitted = FittedBlock.collect(
        kept, lambda body, t: bodies[body].state(t), [block.scaling(t) for t in range(len(block))]
    )
    betas = fitted.evaluate(_cells(inputs, functions, n_jobs))
    sd = None
    if options.uncertainty:
        sd = np.hstack([_deviations(t, kept, extras, block, inputs, functions) for t in range(len(block))])
    centred = _centred(block, inputs)
    return BlockResult(
        index=block.index,
        betas=betas,
        terms=pd.concat(
            [
                _describe(t, betas[:, fitted.indptr[t] : fitted.indptr[t + 1]], centred, block, extras)
                for t in range(len(block))
            ],
            ignore_index=True,
        ),
        scores=_scores(block, inputs, bodies, kept),
        training=_training(block, inputs, networks.curves if networks else {}),
        sd=sd,
        bodies=fitted.state(),
    )


def choose_bodies(block: BlockDesign, inputs: FitInputs, bodies: dict[str, BodyResult], threshold: float) -> Ints:
    """Index into ``BODIES`` of what each target and cell type keeps, by errors on choosing folds only.

    Each body must beat what was kept before it, and the mean of the type by ``threshold`` of R2. A network is compared
    on the one fold that did not train it; where there is a surface too, it must win by more than two standard errors
    of the difference there. The fewer held-out cells a type has, the more all types decide together.

    Returns
    -------
    Targets x types.
    """
    last = inputs.fold == inputs.n_folds - 1
    kept = np.zeros((len(block), inputs.n_types), dtype=np.int64)
    for code, body in enumerate(BODIES[1:], start=1):
        if body not in bodies:
            continue
        rows = last if body == "network" else ~inputs.report
        ratios = {b: _error_ratios(block, inputs, bodies, b, rows) for b in BODIES[: code + 1] if b in bodies}
        current = _kept(kept, {b: r for b, r in ratios.items() if b != body})
        contested = body == "network" and "surface" in bodies
        margin = _MARGIN * _standard_error(block, inputs, bodies, kept, rows) if contested else 0.0
        better = (ratios[body] < current - _TIE - margin) & (ratios[body] < 1 - threshold)
        kept[better] = code
    return kept


def _error_ratios(
    block: BlockDesign, inputs: FitInputs, bodies: dict[str, BodyResult], body: str, rows: Bools
) -> Floats:
    """Held-out error relative to the type mean's, drawn towards the ratio over all types where cells are few.

    Where a target does not vary within a type, nothing beats the mean: the ratio is infinite.
    """
    errors, zero = (_errors(block, inputs, bodies[b], rows) for b in (body, "zero"))
    counts = np.bincount(inputs.cell_type[rows], minlength=inputs.n_types)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(zero > 1e-12, errors / zero, np.where(counts > 0, np.inf, 1.0))
        overall = np.where(zero.sum(axis=1) > 1e-12, errors.sum(axis=1) / zero.sum(axis=1), 1.0)[:, None]
    return (counts * own + _PRIOR_CELLS * overall) / (counts + _PRIOR_CELLS)


def _standard_error(
    block: BlockDesign, inputs: FitInputs, bodies: dict[str, BodyResult], kept: Ints, rows: Bools
) -> Floats:
    """Standard error of the difference of :func:`_error_ratios` between what is kept and the network."""
    types = inputs.cell_type[rows]
    y, current = block.y[rows], np.empty((rows.sum(), len(block)))
    for code in np.unique(kept):
        mine = (kept == code).T[types]
        current[mine] = bodies[BODIES[code]].prediction[rows][mine]
    gain = (y - current) ** 2 - (y - bodies["network"].prediction[rows]) ** 2
    counts = np.bincount(types, minlength=inputs.n_types)
    mean = sums_by_type(gain, types, inputs.n_types) / np.maximum(counts, 1)
    spread = np.sqrt(sums_by_type((gain - mean.T[types]) ** 2, types, inputs.n_types))
    zero = _errors(block, inputs, bodies["zero"], rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(zero > 1e-12, spread / zero, 0.0)
    return counts * own / (counts + _PRIOR_CELLS)


def _errors(block: BlockDesign, inputs: FitInputs, body: BodyResult, rows: Bools) -> Floats:
    squared = (block.y[rows] - body.prediction[rows]) ** 2
    return sums_by_type(squared, inputs.cell_type[rows], inputs.n_types)


def _cells(inputs: FitInputs, functions: CellFunctions | None, n_jobs: int) -> EvaluationCells:
    """Cells of the fit itself."""

    def network() -> NicheData:
        from spacetravlr.nn import NicheData

        return NicheData(**niches(inputs, n_jobs))

    return EvaluationCells(inputs.cell_type, lambda: functions or inputs.functions(), network)


def _deviations(
    t: int,
    kept: Ints,
    extras: SurfaceExtras | None,
    block: BlockDesign,
    inputs: FitInputs,
    functions: CellFunctions | None,
) -> Floats:
    columns = block.columns(t)
    sd = np.full((inputs.n_cells, len(columns) + 1), np.nan, dtype=np.float32)
    if extras is None or functions is None:
        return sd
    if len(columns) and np.isnan(extras.evidence[t]).all():  # a departure from the seed, whose own error is not known
        return sd
    values = extras.fits[t].standard_deviations(functions) * block.y_spread[t]
    values[:, :-1] /= block.spread[columns]
    rows = kept[t][inputs.cell_type] == BODIES.index("surface")
    sd[rows, 0], sd[rows, 1:] = values[rows, -1], values[rows, :-1]
    return sd


def _centred(block: BlockDesign, inputs: FitInputs) -> Floats:
    """Terms less their mean in the type of the cell, float32."""
    counts = np.maximum(np.bincount(inputs.cell_type, minlength=inputs.n_types), 1)[:, None]
    means = sums_by_type(block.values, inputs.cell_type, inputs.n_types).T / counts
    return (block.values - means[inputs.cell_type]).astype(np.float32)


def _describe(t: int, betas: Floats, centred: Floats, block: BlockDesign, extras: SurfaceExtras | None) -> pd.DataFrame:
    """How much each column contributes, how well it is supported, and whether it counts as active.

    The importance is the standard deviation of a term's contribution within cell types, in units of the target's.
    """
    columns = block.columns(t)
    contribution = betas[:, 1:] * centred[:, columns]
    importance = np.sqrt(np.einsum("jk,jk->k", contribution, contribution, dtype=np.float64) / max(len(betas), 1))
    importance /= block.y_spread[t]
    evidence = np.full(len(columns), np.nan) if extras is None else extras.evidence[t]
    active = np.isfinite(evidence)
    if not len(columns) or np.isnan(evidence).all():
        positive = importance[importance > 0]
        active = importance > _ACTIVE_SHARE * (np.median(positive) if len(positive) else np.inf)
    return pd.DataFrame(
        {
            "importance": np.concatenate([[np.nan], importance]),
            "evidence": np.concatenate([[np.nan], evidence]),
            "active": np.concatenate([[True], active]),
        }
    )


def _scores(block: BlockDesign, inputs: FitInputs, bodies: dict[str, BodyResult], kept: Ints) -> pd.DataFrame:
    report, n_types = inputs.report, inputs.n_types
    types = inputs.cell_type[report]
    fitted = ~report
    names = np.array([inputs.target_names[i] for i in block.index], dtype=object)
    sst = _within(block.y[report], types, n_types)
    columns: dict[str, Floats] = {
        "target": np.repeat(names, n_types),
        "cell_type": np.tile(np.arange(n_types), len(block)),
        "n_cells": np.tile(np.bincount(inputs.cell_type, minlength=n_types), len(block)),
        "n_report": np.tile(np.bincount(types, minlength=n_types), len(block)),
        "sst_report": sst.ravel(),
    }
    errors = {}
    for body in BODIES:
        if body not in bodies:
            columns[f"r2_{body}"] = np.full(sst.size, np.nan)
            continue
        errors[body] = _errors(block, inputs, bodies[body], report)
        columns[f"r2_{body}"] = _r2(errors[body], sst)
    columns["r2_kept"] = _r2(_kept(kept, errors), sst)
    if inputs.raw is not None:
        raw = inputs.raw[report][:, block.index]
        raw_errors = {
            b: sums_by_type((raw - bodies[b].prediction[report]) ** 2, types, n_types) for b in BODIES if b in bodies
        }
        columns["r2_kept_raw"] = _r2(_kept(kept, raw_errors), _within(raw, types, n_types))
    for body in BODIES[1:]:
        if body not in bodies:
            columns[f"r2_train_{body}"] = np.full(sst.size, np.nan)
            continue
        here = fitted & np.isfinite(bodies[body].train).all(axis=1)
        squared = sums_by_type((block.y[here] - bodies[body].train[here]) ** 2, inputs.cell_type[here], n_types)
        columns[f"r2_train_{body}"] = _r2(squared, _within(block.y[here], inputs.cell_type[here], n_types))
    columns["kept"] = np.array(BODIES, dtype=object)[kept.ravel()]
    return pd.DataFrame(columns)


def _kept(kept: Ints, values: dict[str, Floats]) -> Floats:
    out = np.zeros(kept.shape)
    for code, body in enumerate(BODIES):
        if body in values:
            out = np.where(kept == code, values[body], out)
    return out


def _within(y: Floats, types: Ints, n_types: int) -> Floats:
    """Sum of squares about the mean of each type: targets x types."""
    y = y.astype(np.float64)
    counts = np.maximum(np.bincount(types, minlength=n_types), 1)
    means = sums_by_type(y, types, n_types) / counts
    return sums_by_type((y - means.T[types]) ** 2, types, n_types)


def _r2(errors: Floats, sst: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sst > 1e-12, 1 - errors / sst, np.nan).ravel()


def _training(block: BlockDesign, inputs: FitInputs, curves: dict[str, Floats]) -> pd.DataFrame:
    if not curves:
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
