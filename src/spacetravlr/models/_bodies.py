"""The three bodies of a coefficient (seed, surface, network), each fitted to a block of targets in the same four steps.

1. On the choosing folds less one, predict that one: errors that decide which body a cell type keeps.
2. On all choosing folds, predict the reporting fold: scores that took no part in any choice.
3. The settings found in step 2 (penalty, parts, stopping) stay.
4. Refit on all cells: the coefficients that are delivered.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
from threadpoolctl import threadpool_limits

from spacetravlr._core.gram import fold_grams
from spacetravlr._core.group_lasso import solve_reference
from spacetravlr._core.niche import niche_images
from spacetravlr._core.seeds import fit_seeds
from spacetravlr._core.surfaces import CellFunctions, SurfaceFit, fit_surface, refit_surface
from spacetravlr._utils import resolve_n_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models._inputs import BlockDesign, FitInputs, FitSettings

_IMAGE_SIDE = 16
_CHUNK = 4096


@dataclass
class BodyResult:
    """What one body predicts, and the coefficients it would deliver."""

    prediction: Floats
    """Each cell predicted without itself: choosing cells by step 1, reporting cells by step 2; NaN where not done."""
    train: Floats
    """Predictions of step 2 at the cells it was fitted on; cells x targets, NaN elsewhere."""
    deliver: Callable[[int], Floats]
    """Coefficients of a target of the block at all cells, original units: cells x (intercept, terms)."""


def sums_by_type(values: Floats, cell_type: Ints, n_types: int) -> Floats:
    """Sum over the cells of each type: (cells x targets) to (targets x types)."""
    sums = np.zeros((n_types, values.shape[1]))
    np.add.at(sums, cell_type, values)
    return sums.T


def fit_zero(block: BlockDesign, inputs: FitInputs) -> BodyResult:
    """Predict the mean of the cell type (of all cells where a type is absent from the training cells)."""
    shape = block.y.shape
    prediction, train = np.full(shape, np.nan), np.full(shape, np.nan)
    for held in range(inputs.n_folds + 1):
        fitted = _fitted(inputs, held)
        rows = inputs.fold == held
        means = _type_means(block.y, inputs, fitted)
        prediction[rows] = means[inputs.cell_type[rows]]
        if held == inputs.n_folds:
            train[fitted] = means[inputs.cell_type[fitted]]
    final = _type_means(block.y, inputs, np.ones(inputs.n_cells, dtype=bool))

    def deliver(t: int) -> Floats:
        coefficients = np.zeros((inputs.n_cells, len(block.columns(t)) + 1))
        coefficients[:, 0] = final[inputs.cell_type, t]
        return coefficients

    return BodyResult(prediction, train, deliver)


class SeedStages(NamedTuple):
    """Seeds by what they were fitted on; each of shape (targets, types, 1 + widest target), original units."""

    without_last: Floats
    """All choosing folds but the last."""
    choosing: Floats
    final: Floats
    """All cells."""


def fit_seed(
    block: BlockDesign, inputs: FitInputs, settings: FitSettings, n_jobs: int
) -> tuple[BodyResult, SeedStages]:
    """Sparse group lasso a cell type."""
    n_folds = inputs.n_folds + 1
    grams = fold_grams(
        block.values, block.y, inputs.cell_type * n_folds + inputs.fold, n_groups=inputs.n_types * n_folds
    )
    common: dict[str, Any] = {
        "groups": block.group,
        "n_folds": n_folds,
        "min_cells": settings.min_cells,
        "alpha": settings.alpha,
        "n_jobs": n_jobs,
    }
    choosing = list(range(inputs.n_folds))
    with threadpool_limits(1):
        chosen = fit_seeds(grams, block.indptr, block.term, folds=choosing, lam=settings.lam, **common)
        lam = chosen.lam  # NaN, where nothing could be fitted, lets the solver choose again
        held = [
            fit_seeds(grams, block.indptr, block.term, folds=[f for f in choosing if f != held], lam=lam, **common).coef
            for held in choosing
        ]
        final: Floats = fit_seeds(grams, block.indptr, block.term, lam=lam, **common).coef
    if settings.solver == "group-lasso":
        final = _reference_seeds(block, inputs, settings, lam, final)
    prediction, train = np.full(block.y.shape, np.nan), np.full(block.y.shape, np.nan)
    for fold, coefficients in enumerate([*held, chosen.coef]):
        rows = np.flatnonzero(inputs.fold == fold)
        prediction[rows] = _predict_by_type(block, inputs, coefficients, rows)
    fitted = np.flatnonzero(~inputs.report)
    train[fitted] = _predict_by_type(block, inputs, chosen.coef, fitted)

    def deliver(t: int) -> Floats:
        return final[t][inputs.cell_type, : len(block.columns(t)) + 1]

    return BodyResult(prediction, train, deliver), SeedStages(held[-1], chosen.coef, final)


@dataclass
class SurfaceExtras:
    """What only surfaces know."""

    evidence: list[Floats]
    """Log Bayes factor of each term of each target."""
    fits: list[SurfaceFit]
    """Fits of step 4, standardised units."""


def fit_surfaces(
    block: BlockDesign,
    inputs: FitInputs,
    settings: FitSettings,
    functions: CellFunctions,
    n_jobs: int,
    progress: Callable[[], None],
) -> tuple[BodyResult, SurfaceExtras]:
    """Coefficient surfaces, one target a thread."""
    shape = block.y.shape
    prediction, train = np.full(shape, np.nan), np.full(shape, np.nan)
    standard_y = (block.y - block.y_mean) / block.y_spread
    choose = ~inputs.report
    at = {
        held: (functions.take(_fitted(inputs, held)), functions.take(inputs.fold == held))
        for held in range(inputs.n_folds + 1)
    }

    def one(t: int) -> tuple[SurfaceFit, SurfaceFit]:
        columns = block.columns(t)
        x = ((block.values[:, columns] - block.mean[columns]) / block.spread[columns]).astype(np.float64)
        y = standard_y[:, t]

        def predict(fit: SurfaceFit, where: CellFunctions, rows: Bools) -> Floats:
            b = fit.coefficients(where)
            return block.y_mean[t] + block.y_spread[t] * ((b[:, :-1] * x[rows]).sum(axis=1) + b[:, -1])

        inside, outside = at[inputs.n_folds]
        fit = fit_surface(x[choose], y[choose], inside, settings.surface)
        prediction[inputs.report, t] = predict(fit, outside, inputs.report)
        train[choose, t] = predict(fit, inside, choose)
        for held in range(inputs.n_folds):
            fitted, rows = _fitted(inputs, held), inputs.fold == held
            inside, outside = at[held]
            prediction[rows, t] = predict(refit_surface(fit, x[fitted], y[fitted], inside, search=True), outside, rows)
        final = refit_surface(fit, x, y, functions, search=False)
        progress()
        return fit, final

    with threadpool_limits(1), ThreadPoolExecutor(resolve_n_jobs(n_jobs)) as pool:
        fits = list(pool.map(one, range(len(block))))

    def deliver(t: int) -> Floats:
        return block.to_original(t, fits[t][1].coefficients(functions))

    extras = SurfaceExtras([fit.evidence[:-1] for fit, _ in fits], [final for _, final in fits])
    return BodyResult(prediction, train, deliver), extras


def fit_network(
    block: BlockDesign,
    inputs: FitInputs,
    settings: FitSettings,
    seeds: SeedStages,
    n_jobs: int,
) -> tuple[BodyResult, dict[str, Floats]]:
    """A network that refines the seeds; also returns its learning curves (epochs x targets).

    Each training stops by its own stopping blocks, which lie among the cells it may see. Three trainings in all, since
    a network is dear: without the last choosing fold, to be compared there; without the reporting fold, to be scored
    there; and on every cell, to be delivered (trained when first asked for).
    """
    from spacetravlr.nn import BlockData, NetworkConfig, fit_block

    config = settings.network or NetworkConfig(body="vit" if settings.body == "vit" else "cnn")
    n, width = inputs.n_cells, block.width
    term_index = np.full((len(block), width), -1, dtype=np.int64)
    group = np.full((len(block), width), -1, dtype=np.int64)
    for t in range(len(block)):
        columns = block.columns(t)
        term_index[t, : len(columns)], group[t, : len(columns)] = columns, block.group[columns]

    def standard(seeds: Floats) -> Floats:
        out = np.zeros((len(block), inputs.n_types, width + 1), dtype=np.float32)
        for t in range(len(block)):
            m = len(block.columns(t)) + 1
            out[t, :, :m] = block.to_standard(t, seeds[t, : inputs.n_types, :m])
        return out

    def images(cells: Ints) -> Floats:
        return niche_images(
            inputs.coordinates, inputs.cell_type, inputs.n_types, inputs.radius, _IMAGE_SIDE,
            cells=cells, libraries=inputs.slides, n_jobs=n_jobs,
        )  # fmt: skip

    names = [inputs.target_names[i] for i in block.index]
    choosing = ~inputs.report
    data = BlockData(
        images=images,
        composition=np.asarray(inputs.composition, dtype=np.float32),
        position=np.asarray(inputs.coordinates, dtype=np.float32),
        cell_type=inputs.cell_type.astype(np.int64),
        design=((block.values - block.mean) / block.spread).astype(np.float32),
        term_index=term_index,
        y=((block.y - block.y_mean) / block.y_spread).astype(np.float32),
        anchors=standard(seeds.choosing),
        train=choosing & ~inputs.stopping,
        validation=choosing & inputs.stopping,
        group=group,
        seeds=np.array([target_seed(settings.seed, name) for name in names], dtype=np.uint64),
    )
    # One thread: batches are small, and torch's threads spin while they wait, which on a busy machine costs twenty
    # times what they gain.
    options: dict[str, Any] = {"trainer_kwargs": settings.trainer_kwargs, "device": settings.device, "n_jobs": 1}
    fit = fit_block(data, config, **options)
    prediction, train = np.full(block.y.shape, np.nan), np.full(block.y.shape, np.nan)
    prediction[inputs.report] = _predict_network(block, data, fit, np.flatnonzero(inputs.report))
    train[choosing] = _predict_network(block, data, fit, np.flatnonzero(choosing))

    last = inputs.n_folds - 1
    seen = _fitted(inputs, last)
    without_last = replace(
        data, train=seen & ~inputs.stopping, validation=seen & inputs.stopping, anchors=standard(seeds.without_last)
    )
    rows = np.flatnonzero(inputs.fold == last)
    prediction[rows] = _predict_network(block, without_last, fit_block(without_last, config, **options), rows)
    final: list[Any] = []

    def deliver(t: int) -> Floats:
        if not final:
            everything = replace(
                data, train=~inputs.stopping, validation=inputs.stopping, anchors=standard(seeds.final)
            )
            final.append(fit_block(everything, config, **options))
        m = len(block.columns(t)) + 1
        chunks = [np.arange(s, min(s + _CHUNK, n)) for s in range(0, n, _CHUNK)]
        b = np.concatenate([final[0].coefficients(rows)[:, t, :m] for rows in chunks]).astype(np.float64)
        return block.to_original(t, np.concatenate([b[:, 1:], b[:, :1]], axis=1))

    return BodyResult(prediction, train, deliver), fit.curves


def _predict_network(block: BlockDesign, data: Any, fit: Any, cells: Ints) -> Floats:
    prediction = np.empty((len(cells), len(block)))
    for start in range(0, len(cells), _CHUNK):
        rows = cells[start : start + _CHUNK]
        coefficients, design = fit.coefficients(rows), data.design[rows]
        for t in range(len(block)):
            columns = block.columns(t)
            y = coefficients[:, t, 0] + (coefficients[:, t, 1 : len(columns) + 1] * design[:, columns]).sum(axis=1)
            prediction[start : start + len(rows), t] = block.y_mean[t] + block.y_spread[t] * y
    return prediction


def target_seed(seed: int, name: str) -> int:
    """Seed of one target, from the run's seed and the gene's name alone."""
    return int(np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(1, np.uint64)[0])


def _fitted(inputs: FitInputs, held: int) -> Bools:
    """Cells to fit on when fold ``held`` is predicted: the other choosing folds, never the reporting one."""
    return ~inputs.report & (inputs.fold != held)


def _type_means(y: Floats, inputs: FitInputs, rows: Bools) -> Floats:
    """Mean of each type over ``rows`` (types x targets)."""
    sums = sums_by_type(y[rows].astype(np.float64), inputs.cell_type[rows], inputs.n_types).T
    counts = np.bincount(inputs.cell_type[rows], minlength=inputs.n_types)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), y[rows].mean(axis=0, dtype=np.float64))


def _predict_by_type(block: BlockDesign, inputs: FitInputs, coefficients: Floats, rows: Ints) -> Floats:
    prediction = np.empty((len(rows), len(block)))
    for c in range(inputs.n_types):
        mine = np.flatnonzero(inputs.cell_type[rows] == c)
        if not len(mine):
            continue
        dense = np.zeros((block.values.shape[1], len(block)))
        for t in range(len(block)):
            columns = block.columns(t)
            dense[columns, t] = coefficients[t, c, 1 : len(columns) + 1]
        prediction[mine] = block.values[rows[mine]] @ dense + coefficients[:, c, 0]
    return prediction


def _reference_seeds(
    block: BlockDesign, inputs: FitInputs, settings: FitSettings, lam: Floats, seeds: Floats
) -> Floats:
    """The same seeds from the reference solver, at the penalties that the Gram solver chose."""
    out = seeds.copy()
    for t in range(len(block)):
        columns = block.columns(t)
        for c in range(inputs.n_types):
            rows = np.flatnonzero(inputs.cell_type == c)
            if len(rows) < max(settings.min_cells, 2) or not lam[t, c] > 0:
                continue
            solution = solve_reference(
                block.values[rows][:, columns],
                block.y[rows, t],
                block.group[columns],
                lam=float(lam[t, c]),
                alpha=settings.alpha,
            )
            out[t, c, 0], out[t, c, 1 : len(columns) + 1] = solution.intercept, solution.coef
    return out
