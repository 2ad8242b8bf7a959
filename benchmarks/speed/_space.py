"""Stages of the neighbourhood: weights, received ligands, niche images."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.speed._stage import Case, Options, Reach, Sizes, Stage, Work
from benchmarks.speed._tissues import coordinates
from spacetravlr._core.signals.grid import RESOLUTION
from spacetravlr._core.signals.operators import GridOperator
from spacetravlr._core.space.niche import niche_images
from spacetravlr._core.space.weights import gaussian_weights, length_scale
from spacetravlr._types import Floats

_IMAGES_AT_ONCE = 20_000
_RADIUS = 200.0  # micrometres
_NEAR = 56.4  # radius with 100 neighbours at one cell per 100 square micrometres
_BASELINE_CELLS = 200  # that histograms are drawn for


def _weights(options: Options, sizes: Sizes) -> Case:
    coords = coordinates(sizes["cells"])
    pairs = sizes["cells"] * np.pi * _NEAR**2 / 100
    # a column index and a weight a pair are written; three differences squared and added, one exponential (about 20)
    return Case(lambda: gaussian_weights(coords, _NEAR), sizes["cells"], Work(8 * pairs, 26 * pairs, "float64"))


def _tree_weights(options: Options, sizes: Sizes) -> Case:
    coords, sigma = coordinates(sizes["cells"]), length_scale(_NEAR)

    def run() -> None:
        tree = cKDTree(coords)
        weights = tree.sparse_distance_matrix(tree, _NEAR, output_type="coo_matrix")
        weights.data = np.exp(-(weights.data**2) / (2 * sigma**2))

    return Case(run, sizes["cells"])


def _ligands(n_cells: int, n_ligands: int) -> Floats:
    return np.random.default_rng(1).random((n_cells, n_ligands), dtype=np.float32)


def _grid_work(n_cells: int, n_ligands: int) -> Work:
    """Sixteen spline points a cell, spread and gathered; two transforms of the grid, which pass over it twice each."""
    points = n_cells * 100 / (length_scale(_RADIUS) / RESOLUTION) ** 2
    flops = n_ligands * (64 * n_cells + 5 * points * np.log2(points))
    return Work(n_ligands * (8 * n_cells + 32 * points), flops)


def _grid(options: Options, sizes: Sizes) -> Case:
    coords, values = coordinates(sizes["cells"]), _ligands(sizes["cells"], sizes["ligands"])
    return Case(
        lambda: GridOperator(coords, _RADIUS).apply(values),
        sizes["cells"],
        _grid_work(sizes["cells"], sizes["ligands"]),
    )


def _csr_product(options: Options, sizes: Sizes) -> Case:
    weights, values = (
        gaussian_weights(coordinates(sizes["cells"]), _RADIUS),
        _ligands(sizes["cells"], sizes["ligands"]),
    )
    return Case(lambda: weights @ values, sizes["cells"])


def _update(options: Options, sizes: Sizes) -> Case:
    operator = GridOperator(coordinates(sizes["cells"]), _RADIUS)
    change = _ligands(sizes["cells"], sizes["changed"])
    return Case(lambda: operator.apply(change), sizes["cells"], _grid_work(sizes["cells"], sizes["changed"]))


def _all_ligands(options: Options, sizes: Sizes) -> Case:
    return _update(options, {**sizes, "changed": sizes["ligands"]})


def _niche_images(options: Options, sizes: Sizes) -> Case:
    n, types, side = sizes["cells"], sizes["types"], sizes["side"]
    coords = coordinates(n)
    codes = np.random.default_rng(1).integers(types, size=n)

    def run() -> float:
        return sum(
            float(niche_images(coords, codes, types, _RADIUS, side, cells=cells)[-1, -1, -1, -1])
            for cells in np.array_split(np.arange(n), max(1, n // _IMAGES_AT_ONCE))
        )

    in_window = 4 * _RADIUS**2 / 100
    # every image is zeroed and written once; two differences and two scaled positions a cell of the window
    return Case(run, n, Work(4 * n * types * side**2, 6 * n * in_window, "float64"))


def _histograms(options: Options, sizes: Sizes) -> Case:
    n, types, side = sizes["cells"], sizes["types"], sizes["side"]
    coords = coordinates(n)
    codes = np.random.default_rng(1).integers(types, size=n)
    tree = cKDTree(coords)
    edges = np.linspace(-_RADIUS, _RADIUS, side + 1)
    drawn = min(_BASELINE_CELLS, n)

    def run() -> None:
        for j in range(drawn):
            window = np.asarray(tree.query_ball_point(coords[j], _RADIUS, p=np.inf))
            offset, code = coords[window] - coords[j], codes[window]
            for t in range(types):
                np.histogram2d(offset[code == t, 1], offset[code == t, 0], bins=(edges, edges))

    return Case(run, drawn)


STAGES = (
    Stage(
        name="weights",
        title="exact sparse weights",
        size="100,000 cells, about 100 neighbours",
        case=_weights,
        at={"cells": 100_000},
        growth=({"cells": 50_000}, {"cells": 100_000}, {"cells": 200_000}),
        reach=Reach(ratio=5),
        baseline_name="`cKDTree.sparse_distance_matrix` + exp",
        baseline=_tree_weights,
        baseline_at={"cells": 100_000},
        quick={"cells": 2000},
    ),
    Stage(
        name="grid",
        title="received ligands, grid",
        size="1,000,000 cells x 100 ligands, r = 200 um at 1 cell / 100 um2",
        case=_grid,
        at={"cells": 1_000_000, "ligands": 100},
        growth=tuple({"cells": n, "ligands": 100} for n in (250_000, 500_000, 1_000_000)),
        reach=Reach(seconds=30, gb=8),
        baseline_name="CSR product at 20,000 cells (weights given), cost per cell",
        baseline=_csr_product,
        baseline_at={"cells": 20_000, "ligands": 100},
        quick={"cells": 5000, "ligands": 3},
    ),
    Stage(
        name="update",
        title="received ligands, update after a change in 5 of 100 ligands",
        size="100,000 cells",
        case=_update,
        at={"cells": 100_000, "changed": 5, "ligands": 100},
        growth=tuple({"cells": n, "changed": 5, "ligands": 100} for n in (100_000, 200_000, 400_000)),
        # half of the share of the ligands: one of them costs at most twice what it does among all
        reach=Reach(ratio=10),
        baseline_name="full recomputation (100 ligands)",
        baseline=_all_ligands,
        baseline_at={"cells": 100_000, "ligands": 100},
        quick={"cells": 2000},
        note="finding a cell in memory, twice, costs as much for five signals as for a hundred",
    ),
    Stage(
        name="niche",
        title="niche images, streamed",
        size="100,000 cells, 10 types, 32 x 32, r = 200 um",
        case=_niche_images,
        at={"cells": 100_000, "types": 10, "side": 32},
        growth=tuple({"cells": n, "types": 10, "side": 32} for n in (50_000, 100_000, 200_000)),
        reach=Reach(seconds=60, gb=2),
        baseline_name=f"numpy `histogram2d` loop over {_BASELINE_CELLS} cells, cost per cell",
        baseline=_histograms,
        baseline_at={"cells": 100_000, "types": 10, "side": 32},
        quick={"cells": 1000, "types": 3, "side": 8},
    ),
)
