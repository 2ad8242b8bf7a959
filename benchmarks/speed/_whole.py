"""The whole fit: every target of a large panel, streamed to disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import spacetravlr as st
from benchmarks.speed._bodies import _BASIS, _network_work
from benchmarks.speed._stage import Case, Options, Reach, Sizes, Stage, Work
from benchmarks.speed._tissues import prepared

#: Hours that the Rust program estimates for a tonsil section of this size on one CPU worker; 9.3 on five GPU workers.
PUBLISHED_HOURS = 701.0


def _whole(options: Options, sizes: Sizes) -> Case:
    n, wanted = sizes["cells"], sizes["targets"]
    if options.whole_targets is not None:
        wanted = min(wanted, options.whole_targets)
    # the tissue has all targets, so that those that are fitted have the regressors of a full panel
    adata = prepared(n, sizes["types"], sizes["targets"], sizes["modulators"])
    targets = list(dict.fromkeys(adata.uns["modulators"]["table"]["target"].astype(str)))[:wanted]

    def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="betas-"))
        try:
            st.tl.fit_betas(
                adata, targets, store=folder / "betas.zarr", network=st.nn.NetworkConfig(device=options.device),
                show_progress_bar=False,
            )  # fmt: skip
            del adata.obsm["betas"], adata.uns["betas"]
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    surfaces = 6 * 2 * n * sizes["modulators"] * _BASIS * wanted
    network = _network_work({**sizes, "targets": wanted}).flops
    return Case(run, wanted, Work(4.0 * n * wanted * (sizes["modulators"] + 1), surfaces + network, "float64"))


_TONSIL = {"cells": 5778, "types": 13, "targets": 3333, "modulators": 150}

STAGES = (
    Stage(
        name="whole",
        title="**whole fit**",
        size="5,778 cells x 3,333 targets, 13 cell types, about 150 modulators per target",
        case=_whole,
        at=_TONSIL,
        growth=tuple({**_TONSIL, "cells": n, "targets": 20} for n in (1500, 3000, 6000)),
        reach=Reach(seconds=3600, gb=12),
        baseline_name="published estimate: 701 h on one CPU worker (9.3 h with five GPU workers)",
        baseline=None,
        baseline_at={},
        quick={"cells": 300, "types": 2, "targets": 2, "modulators": 20},
        published_seconds=PUBLISHED_HOURS * 3600,
        repeats=1,
        note="the float rate and the caches: 41.5 min with 162 Gflop/s per thread in float32, but at the rate of 1.2 h "
        "on a machine that gave 94",
    ),
)
