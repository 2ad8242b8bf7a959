"""From an AnnData and options to a finished fit: what ``tl.fit_betas`` and the estimator of one target share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._anndata._expression import is_smoothed
from spacetravlr._anndata._fit import FitData, read_fit_data
from spacetravlr._processes import processes_pay
from spacetravlr._resources import available_memory, multiplication_rate, spoken
from spacetravlr._settings import settings as package_settings
from spacetravlr._utils import resolve_n_jobs, warn
from spacetravlr.io._store import BetaStore
from spacetravlr.models.bodies._inputs import FitInputs
from spacetravlr.models.fit._estimate import fit_bytes, fit_seconds, fit_work, seconds_one_by_one
from spacetravlr.models.fit._options import FitOptions
from spacetravlr.models.fit._tissue import FitResult, fingerprint, fit_inputs, fit_tissue, missing_blocks

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Ints

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A finished fit with what it was made of."""

    tissue: FitData
    inputs: FitInputs
    options: FitOptions
    result: FitResult
    params: dict[str, Any]


def run_fit(adata: AnnData, targets: Sequence[str] | str | None, options: FitOptions) -> Fit:
    """Read, check and fit; ``adata`` is not changed."""
    options = options.checked()
    names = [targets] if isinstance(targets, str) else targets
    tissue = read_fit_data(
        adata,
        targets=names,
        layer=options.layer,
        raw_layer=options.raw_layer,
        counts_layer=options.counts_layer,
        cluster_key=options.cluster_key,
        modulators_key=options.modulators_key,
    )
    if is_smoothed(adata, str(tissue.params["layer"])):
        warn(
            f"adata.layers[{tissue.params['layer']!r}] is imputed: a target and its regulators share noise there, so "
            "held-out scores are too high and knockouts wrong; fit measured values with `counts_layer=`."
        )
    counts = np.bincount(tissue.cell_type, minlength=len(tissue.type_names))
    small = [name for name, count in zip(tissue.type_names, counts, strict=True) if count < options.min_cells]
    if small:
        logger.warning(
            "cell types with fewer than min_cells=%d cells use a seed fitted on all cells: %s",
            options.min_cells, ", ".join(small),
        )  # fmt: skip
    if len(tissue.coordinates) < 4 * (options.n_folds + 1):
        msg = (
            f"Expected at least {4 * (options.n_folds + 1)} cells for `n_folds={options.n_folds}`, "
            f"found {len(tissue.coordinates)}."
        )
        raise ValueError(msg)
    inputs = fit_inputs(tissue, n_folds=options.n_folds, rng_seed=options.rng_seed, n_jobs=options.n_jobs)
    store = None
    if options.store is not None:
        store = BetaStore(
            options.store,
            fingerprint(tissue, inputs, options, options.block_size, adata.obs_names),
            store_as=options.store_as,
        )
    n_targets = len(tissue.target_names)
    missing = missing_blocks(n_targets, options.block_size, store)
    done = n_targets - sum(len(block) for block in missing.values())
    if done:
        logger.info("%d of %d targets are already in the store", done, n_targets)
    if missing and options.network is not None and options.client is None:  # workers train on machines of their own
        options.network.assert_device()
    processes = False
    if missing:
        processes = _announce(inputs, list(missing.values()), options)
    show = package_settings.show_progress_bar if options.show_progress_bar is None else options.show_progress_bar
    from tqdm.auto import tqdm

    # the average rate: blocks end at long intervals
    with tqdm(total=n_targets, initial=done, smoothing=0, desc="targets", disable=not show) as bar:
        result = fit_tissue(
            tissue,
            inputs,
            options,
            block_size=options.block_size,
            store=store,
            client=options.client,
            n_jobs=options.n_jobs,
            processes=processes,
            fdr=options.fdr,
            progress=bar.update,
        )
    _report_unknown_deviations(result, tissue)
    _say_what_is_kept(options, result)
    params = {
        **tissue.params,
        "body": options.body,
        "noise": options.noise,
        "score_threshold": options.score_threshold,
        "n_folds": options.n_folds,
        "fdr": float(options.fdr),
        "n_draws": int(options.n_draws),
        "min_cells": options.min_cells,
        "group_penalty": "" if options.group_penalty is None else float(options.group_penalty),
        "l1_penalty": "" if options.l1_penalty is None else float(options.l1_penalty),
        "solver": options.solver,
        "block_size": int(options.block_size),
        "evidence_threshold": options.surface.keep_threshold,
        "network": {} if options.network is None else options.network.plain(),
        "rng_seed": options.rng_seed,
    }
    return Fit(tissue, inputs, options, result, params)


def _report_unknown_deviations(result: FitResult, tissue: FitData) -> None:
    """Say for how many targets and cell types the standard deviations of coefficients are NaN."""
    if result.sd is None:
        return
    one_per_type = np.sort(tissue.order.rows[np.unique(tissue.cell_type, return_index=True)[1]])
    sd = result.sd[one_per_type]
    sd = np.asarray(sd.compute() if hasattr(sd, "compute") else sd)
    intercepts = tissue.targets.indptr[:-1] + np.arange(len(tissue.targets))
    unknown = np.isnan(sd[:, intercepts])
    if unknown.any():
        logger.warning(
            "standard deviations are NaN for %d of %d target-cell type pairs, whose surface was not kept or is a "
            "departure from the seed", unknown.sum(), unknown.size,
        )  # fmt: skip


def _say_what_is_kept(options: FitOptions, result: FitResult) -> None:
    """Log how often each body is kept; warn if a requested body mostly is not."""
    kept = result.scores["kept"].astype(str)
    counts = ", ".join(f"{name} {count}" for name, count in kept.value_counts().items())
    asked = {"cnn": "network", "vit": "network", "surface": "surface", "pooled": "pooled"}.get(options.body)
    n_asked = int((kept == asked).sum())
    if asked is not None and 2 * n_asked < len(kept):
        logger.warning(
            "body=%r was requested, but the %s is kept for only %d of %d target-cell type pairs; it does no better on "
            "held-out cells in the others (%s)",
            options.body, asked, n_asked, len(kept), counts,
        )  # fmt: skip
    else:
        logger.info("kept for %d target-cell type pairs: %s", len(kept), counts)


def _announce(inputs: FitInputs, blocks: list[Ints], options: FitOptions) -> bool:
    """Log the fit and its approximate cost, and warn if it needs more memory than is available.

    Returns whether targets are to be fitted in processes.
    """
    workers, threads = 1, resolve_n_jobs(options.n_jobs)
    if options.client is not None:
        threads_of = list(options.client.nthreads().values()) or [1]
        workers = len(threads_of)
        threads = max(1, sum(threads_of) // workers) if options.n_jobs is None else threads
    work, rate, available = fit_work(inputs, options, blocks), multiplication_rate(), available_memory()

    def memory_of(*, processes: bool) -> float:
        stored = options.store is not None
        return fit_bytes(inputs, options, blocks, stored=stored, threads=threads, processes=processes)

    processes = options.client is None and processes_pay(seconds_one_by_one(work, rate=rate), threads)
    if processes and package_settings.processes is None and memory_of(processes=True) > available:
        processes = False
    seconds = fit_seconds(work, rate=rate, threads=threads, workers=workers, processes=processes)
    memory = memory_of(processes=processes)
    if options.client is None and memory > available:
        hint = "use a smaller `block_size`" if options.store is not None else "pass `store=` to keep results on disk"
        logger.warning(
            "the fit may need %.2g GB, but only %.2g GB are available; %s", memory / 1e9, available / 1e9, hint
        )
    n_targets = sum(len(block) for block in blocks)
    per_target = sum(int(np.diff(inputs.targets.indptr)[block].sum()) for block in blocks) / n_targets
    logger.info(
        "fitting %d targets with %.0f terms each on %d cells: %s (a rough estimate)%s, up to %.2g GB of memory",
        n_targets, per_target, inputs.n_cells, spoken(seconds), f" in {threads} processes" if processes else "",
        memory / 1e9,
    )  # fmt: skip
    return processes
