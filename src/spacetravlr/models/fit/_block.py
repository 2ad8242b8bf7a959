"""Fit a block of targets: every body, which one each cell type keeps, and how well it does on cells held out."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from spacetravlr._utils import InterruptiblePool, take_rows
from spacetravlr.models.bodies._base import BlockTask, Body, EvaluationCells
from spacetravlr.models.bodies._fitted import FittedBlock
from spacetravlr.models.bodies._inputs import niches
from spacetravlr.models.bodies._registry import BODY_NAMES, bodies_of, reads_functions
from spacetravlr.models.fit._choose import choose_bodies, prediction_of_kept
from spacetravlr.models.fit._tables import curves_of_block, scores_of_block, terms_of_block

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.bodies._inputs import BodyOptions, FitInputs
    from spacetravlr.nn import NicheData


@dataclass
class BlockResult:
    """What a fit of a block leaves; columns are, per target, the intercept and then the terms."""

    index: Ints
    """Which targets."""
    betas: Floats
    """Cells (in the order asked for) x columns, float32."""
    terms: pd.DataFrame
    """``importance``, ``evidence`` and ``active`` of each column."""
    scores: pd.DataFrame
    """One row per target and cell type; ``cell_type`` holds codes."""
    training: pd.DataFrame
    """Learning curves: target, epoch, train, validation."""
    held_out: Floats
    """What is predicted of the reporting cells by the bodies that are kept, fitted without them: reporting cells x
    targets, float32."""
    sd: Floats | None = None
    """Posterior standard deviations (as ``betas``, float32), NaN where another body than a surface
    of its own was kept."""
    bodies: dict[str, Any] = field(default_factory=dict)
    """State of :class:`FittedBlock`: what is needed to evaluate the coefficients at other cells."""


def fit_targets(
    inputs: FitInputs,
    options: BodyOptions,
    index: Ints,
    *,
    functions: CellFunctions | None = None,
    position: Ints | None = None,
    betas: Floats | None = None,
    n_jobs: int = 1,
    processes: bool = False,
    progress: Callable[[int], None] | None = None,
) -> BlockResult:
    """Fit the targets at ``index``, in the order of their names whatever the order of ``index``.

    Parameters
    ----------
    inputs, options
        The tissue and how to fit.
    index
        Which targets of ``inputs.targets``.
    functions
        ``inputs.functions()``, when the caller has it already.
    position
        Cells of ``inputs`` in the order in which they are delivered, the same by default.
    betas
        Array to write coefficients into; a new one by default.
    n_jobs
        Threads.
    processes
        Whether targets are fitted in as many processes, where they are fitted one by one.
    progress
        Called with the number of targets finished since the last call.
    """
    report = progress or (lambda _: None)
    index = np.asarray(index)
    by_name = np.argsort(np.array([inputs.target_names[t] for t in index], dtype=object), kind="stable")
    block = inputs.design(index[by_name])
    if functions is None and reads_functions(options.body, options.noise):
        functions = inputs.functions()
    with InterruptiblePool(n_jobs) as pool:
        task = BlockTask(block, inputs, options, functions, n_jobs, pool, lambda: report(1), processes)
        bodies = _compare(task)
        results = {name: body.result for name, body in bodies.items()}
        kept = choose_bodies(block, inputs, results, options.score_threshold)
        with threadpool_limits(1):
            for name, body in bodies.items():
                body.finish((kept == BODY_NAMES.index(name)).any(axis=1))
    if not any(body.reports_progress for body in bodies.values()):
        report(len(block))
    columns = inputs.targets.places_of_columns(index, by_name)
    fitted = FittedBlock.collect(kept, bodies, [block.scaling(t) for t in range(len(block))], columns)
    position = np.arange(inputs.n_cells) if position is None else position
    rows = np.argsort(position)
    betas = fitted.evaluate(_cells(inputs, functions, n_jobs), n_jobs=n_jobs, out=betas, rows=rows)
    sd = None
    if options.uncertainty:
        sd = np.hstack([_deviations(t, kept, bodies, task) for t in range(len(block))])[:, columns]
        sd = take_rows(sd, position, np.empty_like(sd), n_jobs)
    held_out = prediction_of_kept(kept, results, inputs.cell_type, inputs.report)
    terms = terms_of_block(block, inputs, bodies, kept, betas, position, np.argsort(columns), n_jobs)
    return BlockResult(
        index=index,
        betas=betas,
        terms=terms.iloc[columns].reset_index(drop=True),
        scores=_in_order(scores_of_block(block, inputs, results, kept), by_name),
        training=_in_order(curves_of_block(block, inputs, bodies), by_name),
        held_out=held_out[:, np.argsort(by_name)].astype(np.float32),
        sd=sd,
        bodies=fitted.state(),
    )


def _in_order(table: pd.DataFrame, order: Ints) -> pd.DataFrame:
    """A table with as many rows per target, from the order of the fit to the one asked for."""
    rows = np.arange(len(table)).reshape(len(order), -1)
    return table.iloc[rows[np.argsort(order)].ravel()].reset_index(drop=True)


def _compare(task: BlockTask) -> dict[str, Body]:
    """Fit every body as far as the choice needs it; those in the background run beside the others."""
    kinds = bodies_of(task.options.body, task.options.noise)
    bodies: dict[str, Body] = {}
    for kind in kinds:
        if not kind.after:
            bodies[kind.name] = kind(task, bodies)
            bodies[kind.name].compare()
    waiting: list[Future[None]] = []
    with threadpool_limits(1):
        later = {kind.name: kind(task, bodies) for kind in kinds if kind.after}
        for body in later.values():
            if body.in_background:
                waiting.append(task.pool.submit(body.compare))
        for body in later.values():
            if not body.in_background:
                body.compare()
        for future in waiting:
            future.result()
    return bodies | later


def _cells(inputs: FitInputs, functions: CellFunctions | None, n_jobs: int) -> EvaluationCells:
    """Cells of the fit itself."""

    def network() -> NicheData:
        from spacetravlr.nn import NicheData

        return NicheData(**niches(inputs, n_jobs))

    return EvaluationCells(inputs.cell_type, lambda: functions or inputs.functions(), network)


def _deviations(t: int, kept: Ints, bodies: Mapping[str, Body], task: BlockTask) -> Floats:
    """Standard deviations of the coefficients of a target, NaN at cells whose body does not know them."""
    cell_type = task.inputs.cell_type
    sd = np.full((len(cell_type), len(task.block.columns(t)) + 1), np.nan, dtype=np.float32)
    for name, body in bodies.items():
        rows = kept[t][cell_type] == BODY_NAMES.index(name)
        values = body.standard_deviations(t) if rows.any() else None
        if values is not None:
            sd[rows] = values[rows]
    return sd
