"""Stages of measured counts: the fit with its errors, errors of effects, tests of signals, microniches."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from anndata import AnnData

import spacetravlr as st
from benchmarks.speed._bodies import _BASIS
from benchmarks.speed._stage import Case, Options, Reach, Sizes, Stage, Work

_DEPTH = 2.0  # molecules of a regulator per cell, about twice
_SHARES = (0.4, 0.2, 0.1)  # TFs, pairs and ligand-TF terms of the modulators; a pair brings its receptor along
DRAWS = 20


@lru_cache(maxsize=1)
def counted(n_cells: int, n_types: int, n_targets: int, n_modulators: int) -> AnnData:
    """A tissue with counts that is ready for a fit, every target with about ``n_modulators`` modulators."""
    n_tfs, n_pairs, n_ligand_tf = (round(share * n_modulators) for share in _SHARES)
    adata = st.datasets.simulated_tissue(
        n_cells=n_cells, n_cell_types=n_types, n_targets=n_targets, n_tfs=n_tfs, n_active_tfs=min(8, n_tfs),
        n_pairs=n_pairs, n_active_pairs=min(4, n_pairs), n_contact_pairs=n_pairs // 6, n_ligand_tf=n_ligand_tf,
        n_active_ligand_tf=1, depth=_DEPTH, programs=0.5, keep_truth=False, rng=0,
    )  # fmt: skip
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


def _prepared(sizes: Sizes) -> AnnData:
    return counted(sizes["cells"], sizes["types"], sizes["targets"], sizes["modulators"]).copy()


def _fitted(sizes: Sizes) -> AnnData:
    adata = _prepared(sizes)
    st.tl.fit_betas(adata, counts_layer="counts", n_draws=DRAWS, show_progress_bar=False)
    st.pp.denoise(adata, layer="log1p")  # once, as in a session
    return adata


def _fit_work(sizes: Sizes) -> Work:
    # cross products of all modulators and functions of a target, for the five fits of its blocks together once
    n, targets, columns = sizes["cells"], sizes["targets"], sizes["modulators"] * _BASIS
    return Work(flops=2 * n * columns * sizes["modulators"] * targets, dtype="float64")


def _counts(options: Options, sizes: Sizes) -> Case:
    adata = _prepared(sizes)
    run = lambda: st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False)  # noqa: E731
    return Case(run, sizes["targets"], _fit_work(sizes))


def _exact(options: Options, sizes: Sizes) -> Case:
    adata = _prepared(sizes)
    return Case(lambda: st.tl.fit_betas(adata, body="surface", show_progress_bar=False), sizes["targets"])


def _perturb(sizes: Sizes, n_samples: int) -> Case:
    adata = _fitted(sizes)
    gene = str(adata.uns["modulators"]["table"]["tf"].astype(str).iloc[0])
    columns = adata.obsm["betas"].shape[1]
    work = Work(bytes=4.0 * sizes["cells"] * columns * (1 + n_samples))
    return Case(lambda: st.tl.perturb(adata, {gene: 0}, n_samples=n_samples), 1, work)


def _effects(options: Options, sizes: Sizes) -> Case:
    return _perturb(sizes, DRAWS)


def _effects_alone(options: Options, sizes: Sizes) -> Case:
    return _perturb(sizes, 0)


def _screen(sizes: Sizes, n_samples: int) -> Case:
    adata = _fitted(sizes)
    genes = st.tl.possible_targets(adata)[: sizes["perturbations"]]
    options = {"n_samples": n_samples, "show_progress_bar": False}
    return Case(
        lambda: st.tl.genome_screen(adata, genes=genes, **options),
        len(genes),
        Work(bytes=4.0 * sizes["cells"] * adata.obsm["betas"].shape[1] * (1 + n_samples)),
    )


def _screen_with_errors(options: Options, sizes: Sizes) -> Case:
    return _screen(sizes, DRAWS)


def _screen_without(options: Options, sizes: Sizes) -> Case:
    return _screen(sizes, 0)


def _signals(options: Options, sizes: Sizes) -> Case:
    adata = _prepared(sizes)
    run = lambda: st.tl.test_signals(adata, counts_layer="counts", show_progress_bar=False)  # noqa: E731
    return Case(run, sizes["targets"], _fit_work(sizes))


def _microniches(options: Options, sizes: Sizes) -> Case:
    adata = _fitted(sizes)
    return Case(lambda: st.tl.microniches(adata), sizes["cells"], Work(4.0 * adata.obsm["betas"].size))


def _fit_as_baseline(options: Options, sizes: Sizes) -> Case:
    return _counts(options, sizes)._replace(units=sizes["cells"])


def _whole(options: Options, sizes: Sizes) -> Case:
    wanted = min(sizes["targets"], options.whole_targets or sizes["targets"])
    adata = _prepared(sizes)
    targets = list(dict.fromkeys(adata.uns["modulators"]["table"]["target"].astype(str)))[:wanted]

    def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="betas-"))
        try:
            st.tl.fit_betas(adata, targets, counts_layer="counts", store=folder / "betas.zarr", show_progress_bar=False)
            del adata.obsm["betas"], adata.uns["betas"]
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return Case(run, wanted, _fit_work({**sizes, "targets": wanted}))


_BLOCK = {"cells": 10_000, "types": 6, "targets": 20, "modulators": 150}
_SMALL = {"cells": 400, "types": 2, "targets": 2, "modulators": 20}
_AFTER = {"cells": 10_000, "types": 6, "targets": 20, "modulators": 50}
_SCREENED = {**_AFTER, "perturbations": 24}


def _of(sizes: Sizes, *cells: int) -> tuple[Sizes, ...]:
    return tuple({**sizes, "cells": n} for n in cells)


def _also_large(stage: Stage, targets: int) -> tuple[Stage, Stage]:
    """The stage, and the same at ten times the cells."""
    at = {**stage.at, "cells": 10 * stage.at["cells"], "targets": targets}
    large = replace(
        stage, name=f"{stage.name}_large", size=f"{at['cells']:,} cells x {targets} targets", at=at,
        baseline_at=at, growth=_of(at, 10_000, 20_000, 40_000),
        repeats=1,
    )  # fmt: skip
    return stage, large


STAGES = (
    Stage(
        name="counts",
        title="fit of counts, with errors, tests and scores",
        size="10,000 cells, 6 types, 150 modulators, 20 targets",
        case=_counts,
        at=_BLOCK,
        growth=_of({**_BLOCK, "targets": 4}, 2500, 5000, 10_000),
        reach=Reach(ratio=1 / 1.5),
        baseline_name="surfaces of the same values taken as exact, without errors",
        baseline=_exact,
        baseline_at=_BLOCK,
        quick=_SMALL,
        per="target",
        repeats=1,
    ),
    *_also_large(
        Stage(
            name="effects",
            title=f"one perturbation with errors, {DRAWS} draws",
            size="10,000 cells x 20 targets x 50 terms",
            case=_effects,
            at=_AFTER,
            growth=_of(_AFTER, 2500, 5000, 10_000),
            reach=Reach(ratio=1 / DRAWS),
            baseline_name="the same without errors",
            baseline=_effects_alone,
            baseline_at=_AFTER,
            quick=_SMALL,
            repeats=3,
        ),
        20,
    ),
    Stage(
        name="screen_errors",
        title=f"screen with errors, {DRAWS} draws",
        size="10,000 cells x 20 targets x 50 terms, 24 perturbations",
        case=_screen_with_errors,
        at=_SCREENED,
        growth=_of({**_SCREENED, "perturbations": 8}, 2500, 5000, 10_000),
        reach=Reach(ratio=0.1),
        baseline_name="the same without errors",
        baseline=_screen_without,
        baseline_at=_SCREENED,
        quick={**_SMALL, "perturbations": 4},
        per="perturbation",
        repeats=1,
    ),
    *_also_large(
        Stage(
            name="signals",
            title="tests of all signals",
            size="10,000 cells, 6 types, 150 modulators, 20 targets",
            case=_signals,
            at=_BLOCK,
            growth=_of({**_BLOCK, "targets": 4}, 2500, 5000, 10_000),
            reach=Reach(ratio=0.5),
            baseline_name="the fit of the same targets",
            baseline=_counts,
            baseline_at=_BLOCK,
            quick=_SMALL,
            per="target",
            repeats=1,
        ),
        4,
    ),
    *_also_large(
        Stage(
            name="microniches",
            title="microniches of all types, 20 draws",
            size="10,000 cells x 20 targets x 50 terms",
            case=_microniches,
            at=_AFTER,
            growth=_of(_AFTER, 2500, 5000, 10_000),
            reach=Reach(ratio=1),
            baseline_name="the fit of the same targets",
            baseline=_fit_as_baseline,
            baseline_at=_AFTER,
            quick=_SMALL,
            repeats=2,
        ),
        20,
    ),
    Stage(
        name="whole_counts",
        title="**whole fit of counts**",
        size="5,778 cells x 3,333 targets, 13 cell types, about 150 modulators per target",
        case=_whole,
        at={"cells": 5778, "types": 13, "targets": 3333, "modulators": 150},
        growth=_of({"types": 13, "targets": 8, "modulators": 150}, 1500, 3000, 6000),
        reach=Reach(seconds=1800, gb=6),
        baseline_name="published estimate: 701 h on one CPU worker",
        baseline=None,
        baseline_at={},
        quick=_SMALL,
        published_seconds=701.0 * 3600,
        repeats=1,
    ),
    Stage(
        name="large_counts",
        title="**fit of counts, large**",
        size="100,000 cells x 300 targets, 6 types, about 150 modulators per target",
        case=_whole,
        at={"cells": 100_000, "types": 6, "targets": 300, "modulators": 150},
        growth=_of({"types": 6, "targets": 2, "modulators": 150}, 10_000, 20_000, 40_000),
        reach=Reach(seconds=2700, gb=16),
        baseline_name="published estimate for 5,778 cells x 3,333 targets, cost per cell and target",
        baseline=None,
        baseline_at={},
        quick=_SMALL,
        published_seconds=701.0 * 3600 * (100_000 / 5778) * (300 / 3333),
        repeats=1,
    ),
)
