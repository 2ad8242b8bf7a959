"""Fit all targets of a tissue, block by block, in memory, into a store, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr._anndata._fit import FitData
from spacetravlr._anndata._modulators import terms_table
from spacetravlr._core.space.niche import niche_composition
from spacetravlr._core.space.spatial_cv import spatial_folds
from spacetravlr._utils import resolve_n_jobs
from spacetravlr._workers import run_on_workers
from spacetravlr.io._store import BetaStore, block_name, digest
from spacetravlr.models.bodies._inputs import BodyOptions, Counting, FitInputs
from spacetravlr.models.bodies._reference import QueryCells, Reference
from spacetravlr.models.bodies._registry import reads_functions
from spacetravlr.models.fit._block import BlockResult, fit_targets
from spacetravlr.models.fit._called import call_terms
from spacetravlr.models.fit._lazy import lazy_betas
from spacetravlr.models.fit._options import BLOCK_SIZE

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: One in this many cells, in spatial blocks, tells a network when to stop. More of them cost training cells: with one
#: in five, networks on small tissues often stayed with the seed where they were compared with it.
STOPPING = 8


@dataclass
class FitResult:
    """Coefficients and tables of all targets."""

    betas: Any
    """Cells x columns, float32: ndarray, or a dask array over the store."""
    sd: Any | None
    terms: pd.DataFrame
    scores: pd.DataFrame
    training: pd.DataFrame
    by_type: dict[str, Any] | None
    """Errors, p-values and q-values of each column in each cell type, where they are known."""
    bodies: dict[str, Any]
    """What the bodies refer to (``reference``), and the bodies of each block unless they are in the store."""
    held_out: Floats | None
    """What is predicted of the reporting cells (in the order of the fit) by a fit without them, reporting cells x
    targets; ``None`` with a store, which does not hold it."""


def fit_inputs(tissue: FitData, *, n_folds: int, rng_seed: int, n_jobs: int | None = None) -> FitInputs:
    """Arrays of a fit: the tissue, its niches and its spatial folds (``n_folds`` that choose and one that reports)."""

    def folds(n: int, *stream: int) -> tuple[Ints, Ints]:
        rng = np.random.default_rng([rng_seed, *stream] if stream else rng_seed)
        return spatial_folds(tissue.coordinates, n, slides=tissue.slides, rng=rng)

    fold, cv_block = folds(n_folds + 1)
    return FitInputs(
        expression=tissue.expression,
        received=tissue.received,
        terms=tissue.terms,
        targets=tissue.targets,
        target_names=tissue.target_names,
        cell_type=tissue.cell_type,
        n_types=len(tissue.type_names),
        coordinates=tissue.coordinates,
        slides=tissue.slides,
        radius=tissue.radius,
        composition=niche_composition(
            tissue.coordinates,
            tissue.cell_type,
            len(tissue.type_names),
            tissue.radius,
            libraries=tissue.slides,
            n_jobs=n_jobs,
        ),
        fold=fold,
        n_folds=n_folds,
        cv_block=cv_block,
        stopping=folds(STOPPING, 1)[0] == 0,
        counting=None if tissue.scale is None else Counting(tissue.scale, tissue.log_unit),
        raw=tissue.raw,
    )


def target_blocks(n_targets: int, block_size: int) -> list[Ints]:
    """Consecutive targets, ``block_size`` at a time."""
    return [np.arange(s, min(s + block_size, n_targets)) for s in range(0, n_targets, block_size)]


def missing_blocks(n_targets: int, block_size: int, store: BetaStore | None) -> dict[int, Ints]:
    """Blocks of targets that are still to be fitted, by number."""
    return {
        b: block for b, block in enumerate(target_blocks(n_targets, block_size)) if store is None or not store.has(b)
    }


def fit_tissue(
    tissue: FitData,
    inputs: FitInputs,
    options: BodyOptions,
    *,
    block_size: int = BLOCK_SIZE,
    store: BetaStore | None = None,
    client: Any = None,
    n_jobs: int | None = None,
    processes: bool = False,
    fdr: float = 0.1,
    progress: Callable[[int], None] | None = None,
) -> FitResult:
    """Fit every target of ``inputs``.

    Parameters
    ----------
    tissue, inputs, options
        What to fit and how.
    block_size
        Targets a block.
    store
        Blocks are written there as they finish, and those already there are not fitted again.
    client
        ``dask.distributed.Client`` that blocks are sent to.
    n_jobs
        Threads of a block; ``None`` is ``st.settings.n_jobs``, or with ``client`` the threads of the worker.
    processes
        Whether targets are fitted in processes, where there is no ``client``.
    fdr
        False discovery rate at which terms count as active.
    progress
        Called with the number of targets finished since the last call; those in the store are not counted.
    """
    blocks = target_blocks(len(inputs.targets), block_size)
    missing = list(missing_blocks(len(inputs.targets), block_size, store))
    widths = np.diff(inputs.targets.indptr) + 1
    if store is not None and missing:
        store.assert_room(
            [store.bytes_of(inputs.n_cells, int(widths[blocks[b]].sum()), with_sd=options.uncertainty) for b in missing]
        )
    report = progress or (lambda _: None)
    done: dict[int, BlockResult] = {}
    position = tissue.order.position
    # blocks in memory are written where they end up: put together afterwards they would need that memory twice
    columns = np.cumsum([0, *(int(widths[block].sum()) for block in blocks)])
    shape = (inputs.n_cells, int(columns[-1]))
    betas, sd = (np.empty(shape if w and store is None else (0, 0), np.float32) for w in (True, options.uncertainty))

    def room(b: int) -> Floats | None:
        return betas[:, columns[b] : columns[b + 1]] if store is None else None

    fitted = (
        _local(inputs, options, blocks, missing, position, room, resolve_n_jobs(n_jobs), processes, report)
        if client is None
        else _remote(inputs, options, blocks, missing, position, client, n_jobs, report)
    )
    with closing(fitted):
        for b, result in fitted:
            if store is None:
                if client is not None:
                    betas[:, columns[b] : columns[b + 1]] = result.betas
                if result.sd is not None:
                    sd[:, columns[b] : columns[b + 1]] = result.sd
                done[b] = replace(result, betas=betas[:0], sd=None)
            else:
                store.write(
                    b,
                    betas=result.betas,
                    terms=result.terms,
                    scores=result.scores,
                    training=result.training,
                    sd=result.sd,
                    bodies=result.bodies,
                    targets={inputs.target_names[t]: int(widths[t]) for t in blocks[b]},
                )
    reference = Reference.of_fit(tissue.section, inputs, with_functions=reads_functions(options.body, options.noise))
    parts = [done[b] if store is None else store.read(b) for b in range(len(blocks))]
    arrays: tuple[Any, Any] = (betas, sd if options.uncertainty else None)
    if store is not None:
        arrays = _stored(store, parts, reference.view_of_fit(inputs, position))
    bodies = {"reference": reference.state(), **{block_name(b): part.bodies for b, part in done.items()}}
    held_out = np.hstack([done[b].held_out for b in range(len(blocks))]) if store is None else None
    terms, scores, training = _tables(tissue, parts)
    terms, by_type = call_terms(terms, scores, tissue.type_names, fdr)
    return FitResult(*arrays, terms, scores, training, by_type, bodies, held_out)


def _local(
    inputs: FitInputs,
    options: BodyOptions,
    blocks: list[Ints],
    missing: list[int],
    position: Ints,
    room: Callable[[int], Floats | None],
    n_jobs: int,
    processes: bool,
    report: Callable[[int], None],
) -> Generator[tuple[int, BlockResult]]:
    functions = inputs.functions() if reads_functions(options.body, options.noise) and missing else None
    for b in missing:
        yield b, fit_targets(
            inputs, options, blocks[b], functions=functions, position=position, betas=room(b), n_jobs=n_jobs,
            processes=processes, progress=report,
        )  # fmt: skip


def _remote(
    inputs: FitInputs,
    options: BodyOptions,
    blocks: list[Ints],
    missing: list[int],
    position: Ints,
    client: Any,
    n_jobs: int | None,
    report: Callable[[int], None],
) -> Generator[tuple[int, BlockResult]]:
    if not missing:
        return
    shipped = BodyOptions(**{f.name: getattr(options, f.name) for f in fields(BodyOptions)})
    tasks = ((b, (shipped, blocks[b], position)) for b in missing)
    for b, result in run_on_workers(client, _fit_on_worker, inputs, tasks, n_jobs=n_jobs):
        report(len(blocks[b]))
        yield b, result


def _fit_on_worker(inputs: FitInputs, options: BodyOptions, index: Ints, position: Ints) -> BlockResult:
    return fit_targets(inputs, options, index, position=position, n_jobs=resolve_n_jobs(None))


def _stored(store: BetaStore, parts: Sequence[Any], cells: QueryCells) -> tuple[Any, Any]:
    """Coefficients and standard deviations that stay in the store."""
    if store.store_as == "bodies":
        betas = lazy_betas(store.path, len(parts), cells)
    else:
        betas = store.matrix("betas", len(parts))
    return betas, None if parts[0].sd is None else store.matrix("sd", len(parts))


def _tables(tissue: FitData, parts: Sequence[Any]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Terms, scores and learning curves of all blocks."""
    terms = terms_table(tissue.design)
    found = pd.concat([part.terms for part in parts], ignore_index=True)
    for column in found.columns:
        terms[column] = found[column].to_numpy()
    scores = pd.concat([part.scores for part in parts], ignore_index=True)
    codes = scores["cell_type"].to_numpy(int)
    scores["cell_type"] = pd.Categorical(np.array(tissue.type_names, dtype=object)[codes], categories=tissue.labels)
    for column in ("target", "kept"):
        scores[column] = pd.Categorical(scores[column].astype(str))
    scores.index = scores.index.astype(str)
    training = pd.concat([part.training for part in parts], ignore_index=True)
    training.index = training.index.astype(str)
    if len(training):
        training["target"] = pd.Categorical(training["target"].astype(str))
    return terms, scores, training


def fingerprint(
    tissue: FitData, inputs: FitInputs, options: BodyOptions, block_size: int, obs_names: pd.Index
) -> dict[str, str]:
    """What must agree for the blocks of a store to be reused, as short digests that name what differs."""
    return {
        "cells": digest(list(obs_names)),
        "targets": digest(tissue.target_names),
        "expression": digest(inputs.expression, inputs.received),
        "raw expression": digest(inputs.raw),
        "counts": digest(None if inputs.counting is None else inputs.counting.scale),
        "modulators": digest(
            *(getattr(inputs.terms, n) for n in ("kind", "gene", "signal")), inputs.targets.indptr, inputs.targets.term
        ),
        "cell types": digest(inputs.cell_type, tissue.type_names),
        "coordinates": digest(inputs.coordinates, inputs.slides, inputs.radius),
        "folds": digest(inputs.fold, inputs.n_folds),
        "settings": digest(_deciding(options)),
        "block_size": str(block_size),
    }


def _deciding(options: BodyOptions) -> dict[str, Any]:
    """Options that decide what comes out; a fit may go on on another device."""
    values = {f.name: getattr(options, f.name) for f in fields(BodyOptions)}
    if options.network is not None:
        values["network"] = options.network.plain() | {"device": ""}
    return values
