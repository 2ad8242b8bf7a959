"""Stages of a fit: seeds, surfaces, networks, each through ``st.tl.fit_betas``."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

import spacetravlr as st
from benchmarks._common import regression
from benchmarks.speed._stage import Case, Options, Reach, Sizes, Stage, Work
from benchmarks.speed._tissues import prepared
from spacetravlr._core.sgl.reference import solve_reference
from spacetravlr._types import Floats, Ints

_N_FOLDS = 3
_PENALTIES = 20
_BASIS = 60  # spatial functions of the middle length scale, niche and types together
_EPOCHS = 30  # typical, with early stopping
_EMBEDDING = 50  # features of a network's embedding
_DENSE_ROUNDS = 10  # updates of the variances of the dense kernel
_LASSO_LAMBDA = 0.02  # in the middle of a path


def _fit(body: str, sizes: Sizes, work: Work, *, n_targets: int | None = None, **options: Any) -> Case:
    adata = prepared(sizes["cells"], sizes["types"], sizes["targets"], sizes["modulators"])
    targets = list(dict.fromkeys(adata.uns["modulators"]["table"]["target"].astype(str)))[:n_targets]

    def run() -> None:
        st.tl.fit_betas(adata, targets, body=body, show_progress_bar=False, **options)

    return Case(run, len(targets), work)


def _seeds(options: Options, sizes: Sizes) -> Case:
    n, targets, terms, types = (sizes[key] for key in ("cells", "targets", "modulators", "types"))
    # cross products of all distinct regressors with themselves and the targets, once; then one sweep over a target's
    # own Gram matrix at each penalty, of each type, for the choice and the three refits without a fold
    distinct = 1.6 * terms
    flops = 2 * n * distinct * (distinct + targets) + 2 * terms**2 * _PENALTIES * types * (_N_FOLDS + 1) * targets
    return _fit("seed", sizes, Work(4 * n * (distinct + targets * (terms + 2)), flops, "float64"))


def _group_lasso(options: Options, sizes: Sizes) -> Case:
    data = regression(prepared(sizes["cells"], sizes["types"], sizes["targets"], sizes["modulators"]))
    types = np.random.default_rng(0).integers(sizes["types"], size=sizes["cells"])

    def run() -> None:
        for t in range(sizes["targets"]):
            columns = data.design.targets.terms_of(t)
            for c in range(sizes["types"]):
                rows = types == c
                solve_reference(
                    data.values[rows][:, columns],
                    data.y[rows, t],
                    data.design.terms.kind[columns],
                    lam=_LASSO_LAMBDA * float(data.y[rows, t].std()),
                )

    return Case(run, sizes["targets"])


def _surfaces(options: Options, sizes: Sizes) -> Case:
    n, targets, terms = sizes["cells"], sizes["targets"], sizes["modulators"]
    # for each of the six fits, the gradient of all modulators and functions once
    return _fit("surface", sizes, Work(flops=6 * 2 * n * terms * _BASIS * targets, dtype="float64"))


def _dense_surfaces(options: Options, sizes: Sizes) -> Case:
    adata = prepared(sizes["cells"], sizes["types"], sizes["targets"], sizes["modulators"])
    data = regression(adata)
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    distance = cdist(adata.obsm["spatial"], adata.obsm["spatial"])
    parts = [np.ones_like(distance), (types[:, None] == types).astype(float)]
    parts.append(np.exp(-0.5 * (distance / (0.3 * distance.max())) ** 2))
    fold = np.random.default_rng(0).integers(_N_FOLDS + 1, size=sizes["cells"])

    def run() -> None:
        for t in range(sizes["targets"]):
            x = data.values[:, data.design.targets.terms_of(t)].astype(float)
            x, y = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9), data.y[:, t] - data.y[:, t].mean(dtype=float)
            variances = learn_variances(x, y, parts)
            for held in range(_N_FOLDS + 1):
                dense_prediction(x, y, parts, variances, fold != held)

    return Case(run, sizes["targets"])


def _kernel(x: Floats, other: Floats, parts: list[Floats], variances: Floats) -> Floats:
    return sum(part * ((x * v) @ other.T) for part, v in zip(parts, variances, strict=True))


def learn_variances(x: Floats, y: Floats, parts: list[Floats]) -> Floats:
    r"""Variances of all modulators and parts by evidence, each round with the whole kernel.

    .. math:: v \leftarrow v \sqrt{(\alpha^\top K_v \alpha) / \mathrm{tr}(K^{-1} K_v)}, \qquad K_v = S \circ x x^\top

    Parameters
    ----------
    x
        Standardised modulators, cells x modulators.
    y
        Centred target, (cells,).
    parts
        Kernels over cells of the pooled, type and spatial part, each cells x cells.

    Returns
    -------
    Parts x modulators.
    """
    variances = np.full((len(parts), x.shape[1]), float(y.var()) / x.size * len(x) / len(parts))
    noise = 0.2 * float(y.var())
    for _ in range(_DENSE_ROUNDS):
        kernel = _kernel(x, x, parts, variances)
        kernel[np.diag_indices(len(x))] += noise
        inverse = linalg.inv(kernel, assume_a="pos", overwrite_a=True)
        alpha = inverse @ y
        for p, part in enumerate(parts):
            gain = (alpha[:, None] * x * (part @ (alpha[:, None] * x))).sum(axis=0)
            cost = (x * ((part * inverse) @ x)).sum(axis=0)
            variances[p] *= np.sqrt(np.maximum(gain, 0) / np.maximum(cost, 1e-12))
    return variances


def dense_prediction(x: Floats, y: Floats, parts: list[Floats], variances: Floats, train: Ints) -> Floats:
    """Predictions at the cells that are not in ``train``."""
    inside = [part[np.ix_(train, train)] for part in parts]
    across = [part[np.ix_(~train, train)] for part in parts]
    kernel = _kernel(x[train], x[train], inside, variances)
    kernel[np.diag_indices(len(kernel))] += 0.2 * float(y.var())
    return _kernel(x[~train], x[train], across, variances) @ linalg.solve(kernel, y[train], assume_a="pos")


def _network_work(sizes: Sizes) -> Work:
    # three trainings; in each epoch the heads turn an embedding into all coefficients, forward and twice backward
    n, columns = sizes["cells"], sizes["targets"] * (sizes["modulators"] + 1)
    return Work(flops=3 * _EPOCHS * 3 * 2 * n * columns * _EMBEDDING)


def _network(options: Options, sizes: Sizes) -> Case:
    return _fit("cnn", sizes, _network_work(sizes), network=st.nn.NetworkConfig(device=options.device))


def _per_target(options: Options, sizes: Sizes) -> Case:
    return _fit("cnn", sizes, Work(), network=st.nn.NetworkConfig(encoder="per_target", device=options.device))


_SEEDS = {"cells": 10_000, "types": 6, "targets": 200, "modulators": 190}
_BLOCK = {"cells": 3000, "types": 6, "targets": 100, "modulators": 150}

STAGES = (
    Stage(
        name="seeds",
        title="seed regression, whole path of penalties, spatial validation",
        size="10,000 cells, 6 types, 190 modulators, 200 targets",
        case=_seeds,
        at=_SEEDS,
        growth=tuple({**_SEEDS, "targets": 50, "cells": n} for n in (5000, 10_000, 20_000)),
        reach=Reach(seconds=0.2),
        baseline_name="`group-lasso`, one penalty, one fit per type, 3 targets",
        baseline=_group_lasso,
        baseline_at={**_SEEDS, "targets": 3},
        quick={"cells": 400, "types": 2, "targets": 2, "modulators": 20},
        per="target",
        repeats=1,
    ),
    Stage(
        name="surfaces",
        title="coefficient surfaces, with variances and validation (and the seed)",
        size="3,000 cells, 6 types, 150 modulators, 100 targets",
        case=_surfaces,
        at=_BLOCK,
        growth=tuple({**_BLOCK, "targets": 10, "cells": n} for n in (1500, 3000, 6000)),
        reach=Reach(seconds=1),
        baseline_name=f"dense kernel, variances in {_DENSE_ROUNDS} rounds, {_N_FOLDS + 1} folds, 3 targets",
        baseline=_dense_surfaces,
        baseline_at={**_BLOCK, "targets": 3},
        quick={"cells": 300, "types": 2, "targets": 2, "modulators": 20},
        per="target",
        repeats=1,
    ),
    Stage(
        name="network",
        title="network refinement, shared body (and the seed)",
        size="3,000 cells, 6 types, 150 modulators, 100 targets",
        case=_network,
        at=_BLOCK,
        growth=tuple({**_BLOCK, "targets": 30, "cells": n} for n in (1500, 3000, 6000)),
        reach=Reach(seconds=1),
        baseline_name="per-target bodies, 2 targets",
        baseline=_per_target,
        baseline_at={**_BLOCK, "targets": 2},
        quick={"cells": 300, "types": 2, "targets": 2, "modulators": 20},
        per="target",
        repeats=2,
    ),
)
