"""A screen: every possible target perturbed, one at a time, and what each does to the tissue."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from spacetravlr._core.response.change_summary import summarise_changes
from spacetravlr._core.response.propagation import Workspace
from spacetravlr._settings import settings
from spacetravlr._utils import numba_threads
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr._workers import run_on_workers
from spacetravlr.io._disk import assert_room
from spacetravlr.models.fit._estimate import physical_memory, spoken
from spacetravlr.models.perturb._screen_files import ScreenFolder, ScreenResult, fingerprint
from spacetravlr.models.perturb._screen_table import screen_table
from spacetravlr.models.perturb._simulator import assert_run
from spacetravlr.models.perturb._spec import CellsLike, PerturbationSpec, select_cells

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

    from spacetravlr._core.response.propagation import InputChange
    from spacetravlr._core.response.round import Derivative
    from spacetravlr._types import Bools, Ints
    from spacetravlr.models.perturb._gene_factory import GeneFactory
    from spacetravlr.models.perturb._simulator import Simulator

logger = logging.getLogger(__name__)

ScreenMode = Literal["knockout", "overexpression"]

#: A gene counts as changed at a cell when it changes by more than this part of its largest expression.
CHANGED = 0.01
# Memory of a batch: at most this much, and this part of the machine's.
_BATCH_BYTES, _BATCH_SHARE = 5 << 30, 0.2
_LARGEST_BATCH = 32


def run_screen(
    factory: GeneFactory,
    save_to: str | PathLike[str] | None,
    *,
    mode: ScreenMode,
    n_propagation: int,
    derivative: Derivative,
    genes: Sequence[str] | None,
    cells: CellsLike,
    batch_size: int | None,
    save_cells: bool,
    client: Any,
    show_progress_bar: bool | None,
) -> AnnData:
    """Run or resume a screen; see :meth:`GeneFactory.genome_screen`."""
    from tqdm.auto import tqdm

    assert_one_of(mode, get_args(ScreenMode), name="mode")
    assert_run(n_propagation, derivative)
    possible = factory.possible_targets()
    if genes is not None:
        assert_genes([genes] if isinstance(genes, str) else genes, factory.adata.var_names, name="genes")
    wanted_genes = possible if genes is None else [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    if not wanted_genes:
        msg = "Expected the model to have at least one TF, ligand or receptor to perturb, found none."
        raise ValueError(msg)
    if batch_size is not None and batch_size < 1:
        msg = f"Expected `batch_size` to be at least 1 or None, found `{batch_size}`."
        raise ValueError(msg)
    mask = select_cells(cells, factory.adata.obs)
    groups, cell_types = _groups(factory)
    run = {"mode": mode, "n_propagation": int(n_propagation), "derivative": derivative}
    folder = None
    if save_to is not None:
        folder = ScreenFolder.open(
            Path(save_to), {**run, "save_cells": bool(save_cells)}, fingerprint(factory, mask, groups)
        )

    results: dict[str, ScreenResult] = {}
    todo = []
    for gene in wanted_genes:
        found = folder.read(gene) if folder else None
        if found is None:
            todo.append(gene)
        else:
            results[gene] = found
    if folder and todo:
        item = _result_bytes(factory.simulator, len(cell_types), cells=save_cells)
        assert_room(folder.path, largest=item, whole=item * len(todo), name="save_to")
    size = batch_size or _default_batch(factory.simulator)
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    shown = settings.show_progress_bar if show_progress_bar is None else show_progress_bar
    arguments = (n_propagation, derivative, groups, len(cell_types), save_cells)
    with (
        tqdm(
            total=len(wanted_genes), initial=len(results), smoothing=0, desc=f"{mode} screen", disable=not shown
        ) as bar,
        closing(_run_batches(factory, batches, mode, mask, arguments, client)) as finished,
    ):
        start = time.perf_counter()
        for i, batch in enumerate(finished):
            if i == 0 and len(batches) > 1:
                workers = 1 if client is None else max(1, len(client.nthreads()))
                left = (time.perf_counter() - start) * -(-(len(batches) - 1) // workers)
                logger.info("screening %d genes, %d at a time: %s from now", len(todo), size, spoken(left))
            for result in batch:
                if folder:
                    folder.write(result)
                result.change = None  # at every cell: on disk only
                results[result.gene] = result
                bar.update()
    ordered = [results[g] for g in wanted_genes]
    return screen_table(factory, ordered, run=run, cells=mask, cell_types=cell_types, groups=groups)


def run_batch(
    simulator: Simulator,
    names: Sequence[str],
    inputs: Sequence[InputChange],
    n_propagation: int,
    derivative: Derivative,
    groups: Ints,
    n_groups: int,
    save_cells: bool,
    *,
    workspace: Workspace | None = None,
) -> list[ScreenResult]:
    """Perturb one batch of genes and summarise."""
    changes = simulator.propagate(inputs, n_propagation=n_propagation, derivative=derivative, workspace=workspace)
    threshold = CHANGED * simulator.tissue.maximum[changes.genes]
    with numba_threads(simulator.n_jobs):
        summary = summarise_changes(changes.values, groups, n_groups, threshold)
    results = []
    for p, (name, given) in enumerate(zip(names, inputs, strict=True)):
        own = np.union1d(simulator.targets.gene, given.genes)
        columns = np.flatnonzero(np.isin(changes.genes, own))
        results.append(
            ScreenResult(
                gene=name,
                gene_index=changes.genes[columns],
                mean=summary.mean[p][:, columns],
                mean_abs=summary.mean_abs[p][:, columns],
                fraction=summary.fraction[p][:, columns],
                n_perturbed=int((given.change != 0).any(axis=1).sum()),
                change=np.ascontiguousarray(changes.values[:, columns, p]) if save_cells else None,
            )
        )
    return results


def _run_batches(
    factory: GeneFactory,
    batches: Sequence[Sequence[str]],
    mode: ScreenMode,
    mask: Bools,
    arguments: tuple[Any, ...],
    client: Any,
) -> Generator[list[ScreenResult]]:
    value: Any = 0.0 if mode == "knockout" else "max"

    def inputs(batch: Sequence[str]) -> list[InputChange]:
        return factory.input_changes([PerturbationSpec({g: value}, {}) for g in batch], mask)

    if client is None or not batches:
        workspace = Workspace()
        for batch in batches:
            yield run_batch(factory.simulator, batch, inputs(batch), *arguments, workspace=workspace)
        return
    tasks = ((f"of {', '.join(batch)}", (batch, inputs(batch), *arguments)) for batch in batches)
    for _, results in run_on_workers(client, run_batch, factory.simulator, tasks, n_jobs=factory.n_jobs):
        yield results


def _result_bytes(simulator: Simulator, n_types: int, *, cells: bool) -> int:
    """Size of the result of one perturbation in memory."""
    rows = 3 * (n_types + 1) + (len(simulator.tissue.expression) if cells else 0)
    return 4 * rows * (len(simulator.targets) + 1)


def _groups(factory: GeneFactory) -> tuple[Ints, list[str]]:
    """Cell type of each cell as a code, -1 for none, and the names."""
    key = str(factory.model.params.get("cluster_key") or "")
    if key not in factory.adata.obs:
        return np.full(factory.adata.n_obs, -1), []
    types = pd.Categorical(factory.adata.obs[key]).remove_unused_categories()
    return types.codes.astype(np.int64), [str(c) for c in types.categories]


def _default_batch(simulator: Simulator) -> int:
    room = int(min(_BATCH_BYTES, _BATCH_SHARE * physical_memory()) // max(simulator.bytes_per_perturbation(), 1))
    size = int(np.clip(room, 1, _LARGEST_BATCH))
    return size // 8 * 8 if size >= 8 else size
