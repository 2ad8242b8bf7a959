"""From an AnnData and options to a finished fit: what ``tl.fit_betas`` and the estimator of one target share."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._fit import FitData, read_fit_data
from spacetravlr._settings import settings as package_settings
from spacetravlr._types import Rng
from spacetravlr._utils import resolve_n_jobs
from spacetravlr._validators import assert_in_range, assert_non_negative, assert_one_of, assert_positive
from spacetravlr.io._store import BetaStore, StoreAs
from spacetravlr.models.bodies._inputs import Body, FitInputs, FitSettings, Solver
from spacetravlr.models.fit._estimate import (
    fit_bytes,
    fit_seconds,
    fit_work,
    multiplication_rate,
    physical_memory,
    spoken,
)
from spacetravlr.models.fit._tissue import BLOCK_SIZE, FitResult, fingerprint, fit_inputs, fit_tissue, missing_blocks

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Ints
    from spacetravlr.nn import NetworkConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit, as :func:`spacetravlr.tl.fit_betas` describes them."""

    body: Body = "auto"
    encoder: Literal["shared", "per_target"] = "shared"
    mode: Literal["additive", "multiplicative"] = "additive"
    layer: str | None = None
    raw_layer: str | None = None
    cluster_key: str | None = None
    modulators_key: str = _keys.MODULATORS
    score_threshold: float = 0.01
    n_folds: int = 3
    min_cells: int = 30
    lam: float | None = None
    alpha: float | None = None
    solver: Solver = "gram"
    network: NetworkConfig | None = None
    trainer_kwargs: dict[str, Any] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    block_size: int = BLOCK_SIZE
    store: str | os.PathLike[str] | None = None
    store_as: StoreAs = "float32"
    client: Any = None
    uncertainty: bool = False
    rng: Rng = 0
    n_jobs: int | None = None
    show_progress_bar: bool | None = None

    def check(self) -> None:
        """Raise on what cannot be right, before any work."""
        assert_one_of(self.body, get_args(Body), name="body")
        assert_one_of(self.encoder, ("shared", "per_target"), name="encoder")
        assert_one_of(self.mode, ("additive", "multiplicative"), name="mode")
        assert_one_of(self.solver, get_args(Solver), name="solver")
        assert_one_of(self.store_as, get_args(StoreAs), name="store_as")
        if self.store is None and self.store_as != "float32":
            msg = f"Expected `store` to name a folder with store_as={self.store_as!r}, found None."
            raise ValueError(msg)
        assert_one_of(self.device, ("auto", "cpu", "cuda", "mps"), name="device")
        assert_in_range(self.score_threshold, 0.0, 1.0, name="score_threshold")
        assert_in_range(self.n_folds, 2, 20, name="n_folds")
        assert_positive(self.block_size, name="block_size")
        assert_non_negative(self.min_cells, name="min_cells")
        for name in ("lam", "alpha"):
            value = getattr(self, name)
            if value is not None:
                assert_non_negative(value, name=name)
        resolve_n_jobs(self.n_jobs)


@dataclass(frozen=True)
class Fit:
    """A finished fit with what it was made of."""

    tissue: FitData
    inputs: FitInputs
    settings: FitSettings
    result: FitResult
    params: dict[str, Any]


def run_fit(adata: AnnData, targets: Sequence[str] | str | None, options: FitOptions) -> Fit:
    """Read, check and fit; ``adata`` is not changed."""
    options.check()
    names = [targets] if isinstance(targets, str) else targets
    tissue = read_fit_data(
        adata,
        targets=names,
        layer=options.layer,
        raw_layer=options.raw_layer,
        cluster_key=options.cluster_key,
        modulators_key=options.modulators_key,
    )
    counts = np.bincount(tissue.cell_type, minlength=len(tissue.type_names))
    small = [name for name, count in zip(tissue.type_names, counts, strict=True) if count < options.min_cells]
    if small:
        logger.warning(
            "cell types with fewer than min_cells=%d cells use the seed of all cells together: %s",
            options.min_cells, ", ".join(small),
        )  # fmt: skip
    if len(tissue.coordinates) < 4 * (options.n_folds + 1):
        msg = (
            f"Expected at least {4 * (options.n_folds + 1)} cells for `n_folds={options.n_folds}`, "
            f"found {len(tissue.coordinates)}."
        )
        raise ValueError(msg)
    settings = _settings(options)
    seed = settings.seed
    inputs = fit_inputs(tissue, n_folds=options.n_folds, seed=seed, n_jobs=options.n_jobs)
    store = None
    if options.store is not None:
        store = BetaStore(
            options.store,
            fingerprint(tissue, inputs, settings, options.block_size, adata.obs_names),
            store_as=options.store_as,
        )
    n_targets = len(tissue.target_names)
    missing = missing_blocks(n_targets, options.block_size, store)
    done = n_targets - sum(len(block) for block in missing.values())
    if done:
        logger.info("%d of %d targets are in the store already", done, n_targets)
    if missing:
        logger.info(_announce(inputs, settings, list(missing.values()), options))
    show = package_settings.show_progress_bar if options.show_progress_bar is None else options.show_progress_bar
    from tqdm.auto import tqdm

    # the average rate: blocks end at long intervals
    with tqdm(total=n_targets, initial=done, smoothing=0, desc="targets", disable=not show) as bar:
        result = fit_tissue(
            tissue,
            inputs,
            settings,
            block_size=options.block_size,
            store=store,
            client=options.client,
            n_jobs=options.n_jobs,
            progress=bar.update,
        )
    params = {
        **tissue.params,
        "body": options.body,
        "encoder": options.encoder,
        "mode": options.mode,
        "score_threshold": options.score_threshold,
        "n_folds": options.n_folds,
        "min_cells": options.min_cells,
        "solver": options.solver,
        "evidence_threshold": settings.surface.keep_threshold,
        "seed": seed,
    }
    return Fit(tissue, inputs, settings, result, params)


def _announce(inputs: FitInputs, settings: FitSettings, blocks: list[Ints], options: FitOptions) -> str:
    """What is about to be fitted, and roughly what it takes; warns when that is more than this machine has."""
    processes, threads = 1, resolve_n_jobs(options.n_jobs)
    if options.client is not None:
        there = list(options.client.nthreads().values()) or [1]
        processes = len(there)
        threads = max(1, sum(there) // processes) if options.n_jobs is None else threads
    seconds = fit_seconds(
        fit_work(inputs, settings, blocks), rate=multiplication_rate(), threads=threads, processes=processes
    )
    memory = fit_bytes(inputs, settings, blocks, stored=options.store is not None, threads=threads)
    if options.client is None and memory > (there_is := physical_memory()):
        hint = "take a smaller `block_size`" if options.store is not None else "pass `store=` to keep them on disk"
        logger.warning("the fit may need %.0f GB, and there are %.0f GB; %s", memory / 1e9, there_is / 1e9, hint)
    n_targets = sum(len(block) for block in blocks)
    per_target = sum(int(np.diff(inputs.targets.indptr)[block].sum()) for block in blocks) / n_targets
    return (
        f"fitting {n_targets} targets with {per_target:.0f} terms each at {inputs.n_cells} cells: {spoken(seconds)} "
        f"(a rough estimate), up to {memory / 1e9:.2g} GB of memory"
    )


def _settings(options: FitOptions) -> FitSettings:
    network = options.network
    if network is None and options.body in ("auto", "cnn", "vit"):
        from spacetravlr.nn import NetworkConfig

        network = NetworkConfig(
            body="vit" if options.body == "vit" else "cnn",
            mode=options.mode,
            encoder=options.encoder,
        )
    # a Generator is drawn from once, so that every target's stream follows from one number
    rng = options.rng
    seed = int(rng) if isinstance(rng, int | np.integer) else int(np.random.default_rng(rng).integers(2**31))
    return FitSettings(
        body=options.body,
        score_threshold=options.score_threshold,
        min_cells=options.min_cells,
        lam=options.lam,
        alpha=options.alpha,
        solver=options.solver,
        network=network,
        trainer_kwargs=options.trainer_kwargs,
        device=options.device,
        uncertainty=options.uncertainty,
        seed=seed,
    )


def network_params(settings: FitSettings) -> dict[str, Any]:
    """Settings of the network as plain values, empty without one."""
    return {} if settings.network is None else asdict(settings.network)
