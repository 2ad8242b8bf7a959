"""Perturbation of a model whose coefficients are read from a store."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from weakref import finalize

import numpy as np
import pandas as pd

from benchmarks.speed._effects import ROUNDS, coefficient_bytes, knockout, model
from benchmarks.speed._stage import Case, Options, Reach, Sizes, Stage, Work
from spacetravlr.io._store import BetaStore
from spacetravlr.models.perturb._coefficients import coefficient_reader
from spacetravlr.models.perturb._simulator import Simulator

_BLOCK = 100  # targets


def _write(simulator: Simulator, folder: Path) -> BetaStore:
    """Put the coefficients of a made-up model into a store."""
    store = BetaStore(folder / "betas.zarr", {})
    table, targets = pd.DataFrame({"none": [0.0]}), simulator.targets
    for block, index in enumerate(np.split(np.arange(len(targets)), range(_BLOCK, len(targets), _BLOCK))):
        columns = slice(targets.columns_of(int(index[0])).start, targets.columns_of(int(index[-1])).stop)
        widths = {f"gene {t}": len(targets.terms_of(t)) + 1 for t in index.tolist()}
        store.write(block, betas=simulator.betas[:, columns], terms=table, scores=table, training=table, targets=widths)
    return store


def _from_store(options: Options, sizes: Sizes) -> Case:
    found = model(sizes["cells"], sizes["targets"], sizes["terms"])
    store = _write(found.simulator, Path(tempfile.mkdtemp(prefix="betas-")))
    given = [knockout(found, int(found.tfs[0]))]
    work = Work(coefficient_bytes(found), coefficient_bytes(found) / 2)
    simulator = found.simulator
    stored = Simulator(
        simulator.tissue, simulator.terms, simulator.targets, store.matrix("betas", -(-sizes["targets"] // _BLOCK))
    )
    # small ones too are read anew in each round
    stored.coefficients = coefficient_reader(stored.betas, stored.targets, load_bytes=0)

    def run() -> None:
        stored.propagate(given, n_propagation=ROUNDS)

    finalize(run, shutil.rmtree, store.path.parent, ignore_errors=True)
    return Case(run, sizes["cells"] * sizes["targets"], work)


def _in_memory_and_read(options: Options, sizes: Sizes) -> Case:
    """The same perturbation in memory, and every file of the store read once."""
    found = model(sizes["cells"], sizes["targets"], sizes["terms"])
    store = _write(found.simulator, Path(tempfile.mkdtemp(prefix="betas-")))
    files = [p for p in store.path.rglob("*") if p.is_file()]
    given = [knockout(found, int(found.tfs[0]))]
    buffer = bytearray(1 << 24)

    def run() -> None:
        found.simulator.propagate(given, n_propagation=ROUNDS)
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    finalize(run, shutil.rmtree, store.path.parent, ignore_errors=True)
    return Case(run, sizes["cells"] * sizes["targets"])


_MODEL = {"cells": 20_000, "targets": 300, "terms": 100}

STAGES = (
    Stage(
        name="perturb_store",
        title="one perturbation from a store",
        size="20,000 cells x 300 targets x 100 terms, read in each round",
        case=_from_store,
        at=_MODEL,
        growth=tuple({**_MODEL, "cells": n} for n in (5000, 10_000, 20_000)),
        reach=Reach(ratio=1 / 1.5),
        note="all chunks are read again in each of four rounds",
        baseline_name="the same in memory, and one read of the files",
        baseline=_in_memory_and_read,
        baseline_at=_MODEL,
        quick={"cells": 500, "targets": 20, "terms": 10},
    ),
)
