"""A screen: every possible target perturbed, one at a time, and what each does to the tissue."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacetravlr._core.response.change_summary import summarise_changes
from spacetravlr._core.response.start import Start, Workspace
from spacetravlr._resources import available_memory, spoken
from spacetravlr._settings import settings
from spacetravlr._utils import numba_threads
from spacetravlr._workers import run_on_workers
from spacetravlr.io._disk import assert_room
from spacetravlr.models.perturb._cells import select_cells
from spacetravlr.models.perturb._draws import DrawnCoefficients
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._sample_errors import effect_errors
from spacetravlr.models.perturb._screen_files import ScreenFolder, ScreenResult, fingerprint
from spacetravlr.models.perturb._screen_options import ScreenOptions
from spacetravlr.models.perturb._screen_table import screen_table
from spacetravlr.models.perturb._simulator import Simulator, assert_finite
from spacetravlr.models.perturb._spec import PerturbationSpec

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

    from spacetravlr._core.response.round import Derivative
    from spacetravlr._core.response.start import InputChange
    from spacetravlr._types import Bools, Ints

logger = logging.getLogger(__name__)

#: A gene counts as changed at a cell when it changes by more than this part of its largest expression.
CHANGED = 0.01
# Memory of a batch: at most this much, and this part of the machine's.
_BATCH_BYTES, _BATCH_SHARE = 5 << 30, 0.2
_LARGEST_BATCH = 32


class BatchSettings(NamedTuple):
    """How the batches of a screen are propagated and summarised."""

    n_propagation: int
    derivative: Derivative
    groups: Ints
    """Cell type of each cell, -1 for none."""
    n_groups: int
    save_cells: bool
    genes: Sequence[str]
    """Names of all genes, for messages."""
    n_samples: int = 0
    """Draws of the coefficients for standard errors."""


def run_screen(model: FittedModel, save_to: str | PathLike[str] | None, options: ScreenOptions) -> AnnData:
    """Run or resume a screen; see :func:`spacetravlr.tl.genome_screen`."""
    from tqdm.auto import tqdm

    options.check(model.genes)
    drawn = DrawnCoefficients.of(model, options.n_samples) if options.n_samples else None
    run = {**options.run, "adjusted": model.adjusted}
    chosen_genes = options.chosen_genes(model.possible_targets())
    mask = select_cells(options.cells, model.adata.obs)
    groups, cell_types = model.cell_types()
    folder = None
    if save_to is not None:
        folder = ScreenFolder.open(
            save_to,
            {**run, "save_cells": bool(options.save_cells)},
            fingerprint(model, mask, groups),
            model.genes,
        )

    results: dict[str, ScreenResult] = {}
    todo = []
    for gene in chosen_genes:
        found = folder.read(gene) if folder else None
        if found is None:
            todo.append(gene)
        else:
            results[gene] = found
    if folder and todo:
        item = _result_bytes(model.simulator, len(cell_types), cells=options.save_cells)
        assert_room(folder.path, largest=item, whole=item * len(todo), name="save_to")
    size = options.batch_size or _default_batch(model.simulator, with_draws=drawn is not None)
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    shown = settings.show_progress_bar if options.show_progress_bar is None else options.show_progress_bar
    batch_settings = BatchSettings(
        options.n_propagation, options.derivative, groups, len(cell_types), options.save_cells, list(model.genes),
        options.n_samples,
    )  # fmt: skip
    value = 0.0 if options.mode == "knockout" else "max"
    specs = {gene: PerturbationSpec({gene: value}, {}) for gene in todo}  # type: ignore[dict-item]
    with (
        tqdm(
            total=len(chosen_genes), initial=len(results), smoothing=0, desc=f"{options.mode} screen", disable=not shown
        ) as bar,
        closing(_run_batches(model, batches, specs, mask, batch_settings, options.client, drawn)) as finished,
    ):
        start = time.perf_counter()
        for i, batch in enumerate(finished):
            if i == 0 and len(batches) > 1:
                workers = 1 if options.client is None else max(1, len(options.client.nthreads()))
                remaining = (time.perf_counter() - start) * -(-(len(batches) - 1) // workers)
                logger.info("screening %d genes, %d at a time: %s remaining", len(todo), size, spoken(remaining))
            for result in batch:
                if folder:
                    folder.write(result)
                result.change = None  # at every cell: on disk only
                results[result.gene] = result
                bar.update()
    ordered = [results[g] for g in chosen_genes]
    return screen_table(model, ordered, run=run, cells=mask, cell_types=cell_types, groups=groups)


def run_batch(
    simulator: Simulator,
    names: Sequence[str],
    inputs: Sequence[InputChange],
    run: BatchSettings,
    *,
    workspace: Workspace | None = None,
    drawn: DrawnCoefficients | None = None,
) -> list[ScreenResult]:
    """Perturb one batch of genes and summarise."""
    start = inputs if drawn is None else simulator.begin(inputs, workspace)
    changes = simulator.propagate(
        start, n_propagation=run.n_propagation, derivative=run.derivative, workspace=workspace
    )
    threshold = CHANGED * simulator.tissue.maximum[changes.genes]
    with numba_threads(simulator.n_jobs):
        summary = summarise_changes(changes.values, run.groups, run.n_groups, threshold)
    assert_finite(summary.mean[:, 0].T, changes.genes, simulator, run.genes)
    columns = [np.flatnonzero(np.isin(changes.genes, np.union1d(simulator.targets.gene, i.genes))) for i in inputs]
    results = [
        ScreenResult(
            gene=name,
            gene_index=changes.genes[columns[p]],
            mean=summary.mean[p][:, columns[p]],
            mean_abs=summary.mean_abs[p][:, columns[p]],
            fraction=summary.fraction[p][:, columns[p]],
            n_perturbed=int((given.change != 0).any(axis=1).sum()),
            change=np.ascontiguousarray(changes.values[:, columns[p], p]) if run.save_cells else None,
        )
        for p, (name, given) in enumerate(zip(names, inputs, strict=True))
    ]
    if drawn is not None and isinstance(start, Start):
        samples = drawn.propagate(  # in the memory of the changes
            start, run.n_samples, n_propagation=run.n_propagation, derivative=run.derivative, workspace=workspace
        )
        errors = effect_errors(summary.mean, samples.mean)
        for p, result in enumerate(results):
            result.se = errors["se"][p][:, columns[p]].astype(np.float32)
            result.p = errors["p"][p][:, columns[p]]
    return results


def _run_batches(
    model: FittedModel,
    batches: Sequence[Sequence[str]],
    specs: dict[str, PerturbationSpec],
    mask: Bools,
    batch_settings: BatchSettings,
    client: Any,
    drawn: DrawnCoefficients | None,
) -> Generator[list[ScreenResult]]:
    def inputs(batch: Sequence[str]) -> list[InputChange]:
        return model.input_changes([specs[gene] for gene in batch], mask)

    if client is None or not batches:
        workspace = Workspace()
        for batch in batches:
            yield run_batch(model.simulator, batch, inputs(batch), batch_settings, workspace=workspace, drawn=drawn)
        return
    tasks = ((f"of {', '.join(batch)}", (batch, inputs(batch), batch_settings)) for batch in batches)
    for _, results in run_on_workers(client, run_batch, model.simulator, tasks, n_jobs=model.n_jobs):
        yield results


def _result_bytes(simulator: Simulator, n_types: int, *, cells: bool) -> int:
    """Size of the result of one perturbation in memory."""
    rows = 3 * (n_types + 1) + (len(simulator.tissue.expression) if cells else 0)
    return 4 * rows * (len(simulator.targets) + 1)


def _default_batch(simulator: Simulator, *, with_draws: bool = False) -> int:
    each = max(simulator.bytes_per_perturbation(with_draws=with_draws), 1)
    fitting = int(min(_BATCH_BYTES, _BATCH_SHARE * available_memory()) // each)
    size = int(np.clip(fitting, 1, _LARGEST_BATCH))
    return size // 8 * 8 if size >= 8 else size
