"""Stages after a fit: one perturbation, a screen, perturbation vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.speed._stage import Case, Options, Reach, Sizes, Stage, Work
from benchmarks.speed._tissues import coordinates
from spacetravlr._core.design import Kind, Signals, Targets, Terms
from spacetravlr._core.response.adjoint import Weights, gradient
from spacetravlr._core.response.propagation import baseline
from spacetravlr._core.response.pull_back import Linearised
from spacetravlr._core.response.start import InputChange, Workspace, roles
from spacetravlr._core.signals.operators import LigandField, make_operator
from spacetravlr._core.space.neighbours import nearest_neighbours
from spacetravlr._core.transitions import project, transition_probabilities
from spacetravlr._types import Floats, Ints
from spacetravlr._utils import numba_threads
from spacetravlr.models.perturb._screen import BatchSettings, _default_batch, run_batch
from spacetravlr.models.perturb._simulator import Simulator

_RADIUS, _CONTACT = 200.0, 30.0
ROUNDS = 4
_SHARES = (0.5, 0.4, 0.1)  # of TF, pair and ligand-TF terms
_TILE = 4096  # rows of random coefficients that are repeated


class Model(NamedTuple):
    """A made-up model, large enough."""

    simulator: Simulator
    tfs: Ints
    """Genes that are perturbed."""


def model(n_cells: int, n_targets: int, n_terms: int, *, seed: int = 0) -> Model:
    """Random coefficients of ``n_targets`` targets, which are all genes: a fifth each TFs, ligands and receptors.

    Every target has its own half of the TFs or fewer, and pairs from a common list; every one of the genes with a role
    is modelled itself, so that changes go on through them.
    """
    rng = np.random.default_rng(seed)
    n_role = n_targets // 5
    tfs, ligands, receptors = (np.arange(i * n_role, (i + 1) * n_role) for i in range(3))
    signals = Signals(ligands, np.arange(n_role) % 5 == 0)
    n_tf, n_pair, n_tfl = (max(1, round(n_terms * share)) for share in _SHARES)
    pool = 3 * n_pair
    kind = np.concatenate([np.full(n_role, Kind.TF), np.full(pool, Kind.LR), np.full(n_role, Kind.TFL)])
    gene = np.concatenate([tfs, rng.choice(receptors, pool), tfs])
    signal = np.concatenate([np.full(n_role, -1), rng.integers(n_role, size=pool + n_role)])
    first = np.cumsum([0, n_role, pool])
    width = min(n_tf, n_role) + n_pair + min(n_tfl, n_role)
    term = np.empty((n_targets, width), dtype=np.int64)
    for row in term:
        drawn = [rng.choice(k, min(m, k), replace=False) + f
                 for k, m, f in zip((n_role, pool, n_role), (n_tf, n_pair, n_tfl), first, strict=True)]  # fmt: skip
        row[:] = np.sort(np.concatenate(drawn))
    targets = Targets(np.arange(n_targets), np.arange(n_targets + 1) * width, term.ravel())
    betas = np.empty((n_cells, targets.n_columns), dtype=np.float32)
    tile = rng.normal(0, 0.02, size=(min(n_cells, _TILE), targets.n_columns)).astype(np.float32)
    for start in range(0, n_cells, len(tile)):
        part = betas[start : start + len(tile)]
        part[:] = tile[: len(part)]
    expression = rng.gamma(2.0, 0.5, size=(n_cells, n_targets)).astype(np.float32)
    coords = coordinates(n_cells)
    # the engine that is chosen at 10,000 cells, at every size
    secreted = make_operator(coords, _RADIUS, normalize="row", method="grid")
    field = LigandField(secreted, make_operator(coords, _CONTACT, normalize="row"))
    tissue = baseline(expression, signals, field)
    return Model(Simulator(tissue, Terms(kind, gene, signal), targets, betas), tfs)


def knockout(found: Model, gene: int) -> InputChange:
    """A gene set to zero in all cells."""
    return InputChange(np.array([gene]), -found.simulator.tissue.expression[:, [gene]])


def coefficient_bytes(found: Model) -> float:
    """Coefficients of targets with a role in every round, all of them in the last."""
    simulator = found.simulator
    relaying = np.isin(simulator.targets.gene, roles(simulator.terms, simulator.tissue.signals)).mean()
    return simulator.betas.nbytes * (1 + (ROUNDS - 1) * float(relaying))


def _perturbation(options: Options, sizes: Sizes) -> Case:
    found = model(sizes["cells"], sizes["targets"], sizes["terms"])
    given = [knockout(found, int(found.tfs[0]))]
    work = Work(coefficient_bytes(found), coefficient_bytes(found) / 2)
    units = sizes["cells"] * sizes["targets"]
    return Case(lambda: found.simulator.propagate(given, n_propagation=ROUNDS), units, work)


def _screen(options: Options, sizes: Sizes) -> Case:
    found = model(sizes["cells"], sizes["targets"], sizes["terms"])
    count = sizes["perturbations"]
    genes = [int(g) for g in found.tfs[:count]]
    size = _default_batch(found.simulator)
    names_of_all = [str(g) for g in range(found.simulator.tissue.expression.shape[1])]
    how = BatchSettings(ROUNDS, "product_rule", np.arange(sizes["cells"]) % 6, 6, False, names_of_all)

    def run() -> None:
        workspace = Workspace()
        for start in range(0, len(genes), size):
            batch = genes[start : start + size]
            inputs = [knockout(found, g) for g in batch]
            names = [str(g) for g in batch]
            run_batch(found.simulator, names, inputs, how, workspace=workspace)

    bytes_read = coefficient_bytes(found)
    n_batches = -(-len(genes) // size)
    return Case(run, len(genes), Work(bytes_read * n_batches, bytes_read / 2 * len(genes)))


def _drivers(options: Options, sizes: Sizes) -> Case:
    found = model(sizes["cells"], sizes["targets"], sizes["terms"])
    simulator, field = found.simulator, found.simulator.tissue.field
    assert isinstance(field, LigandField)
    rounds = Linearised(
        simulator.tissue, simulator.terms, simulator.targets, simulator.coefficients, field.transposed(), ROUNDS,
        "product_rule",
    )  # fmt: skip
    # one gene, read in all cells: the last round reads its coefficients only, the others those of targets with a role
    gene, share = np.array([sizes["targets"] - 1]), np.full((sizes["cells"], 1), 1 / sizes["cells"], np.float32)
    bytes_read = coefficient_bytes(found) - simulator.betas.nbytes
    return Case(lambda: gradient(rounds, Weights(gene, share)), 1, Work(bytes_read, bytes_read))


def _single(options: Options, sizes: Sizes) -> Case:
    case = _perturbation(options, sizes)
    return Case(case.run, 1)


def _pandas_twin(options: Options, sizes: Sizes) -> Case:
    found = model(sizes["cells"], sizes["targets"], sizes["terms"])
    gene = int(found.tfs[0])
    units = sizes["cells"] * sizes["targets"]
    simulator = found.simulator
    genes = [f"g{i}" for i in range(sizes["targets"])]
    expression = pd.DataFrame(simulator.tissue.expression, columns=genes)
    betas = {}
    for t in range(len(genes)):
        columns = simulator.betas[:, simulator.targets.columns_of(t)][:, 1:]
        betas[t] = pd.DataFrame(columns, columns=simulator.targets.terms_of(t))
    return Case(lambda: pandas_perturbation(simulator, expression, betas, genes[gene]), units)


def pandas_perturbation(
    simulator: Simulator, expression: pd.DataFrame, betas: dict[int, pd.DataFrame], knocked_out: str
) -> pd.DataFrame:
    """Propagation (how-it-works, section 5) in pandas: derivatives of all targets times the changes of the genes."""
    terms, signals, targets = simulator.terms, simulator.tissue.signals, simulator.targets
    genes = expression.columns
    ligand_names = list(genes[signals.ligand])
    start = pd.DataFrame(simulator.tissue.received)

    def received(values: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(simulator.tissue.field.apply(values[ligand_names].to_numpy(np.float32), signals.contact))

    wanted = pd.DataFrame(0.0, index=expression.index, columns=genes)
    wanted[knocked_out] = -expression[knocked_out]
    top, change = expression.max(), wanted
    before, heard_before = expression, start
    for _ in range(ROUNDS):
        now = expression + change
        heard = received(now)
        gained = heard - start
        after = pd.DataFrame(0.0, index=expression.index, columns=genes)
        for t, own in betas.items():
            total = pd.Series(0.0, index=expression.index)
            for m in own.columns:
                gene, s = genes[terms.gene[m]], int(terms.signal[m])
                if s < 0:
                    total += own[m] * change[gene]
                    continue
                passes = 1.0 if terms.kind[m] == Kind.TFL else ((expression[gene] > 0) | (before[gene] > 0))
                total += own[m] * heard_before[s] * passes * change[gene]
                total += own[m] * before[gene] * gained[s]
            after[genes[targets.gene[t]]] = total
        before, heard_before = now, heard
        after[knocked_out] = wanted[knocked_out]
        change = (expression + after).clip(lower=0, upper=top, axis=1) - expression
    return change


def _vectors(options: Options, sizes: Sizes) -> Case:
    n, genes, k = sizes["cells"], sizes["genes"], sizes["neighbours"]
    coords, expression, change = _moving(n, genes)

    def run() -> None:
        with numba_threads(None):
            near = nearest_neighbours(coords, k).indices
            project(transition_probabilities(expression, change, near), coords)

    # difference, its sum, its square and two products at every gene of every pair; expression and change read once
    return Case(run, n, Work(8.0 * n * genes, 8.0 * n * genes * k))


def _moving(n: int, genes: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(0)
    expression = rng.random((n, genes), dtype=np.float32)
    return coordinates(n), expression, 0.1 * rng.standard_normal((n, genes), dtype=np.float32)


def _dense_vectors(options: Options, sizes: Sizes) -> Case:
    n, genes = sizes["cells"], sizes["genes"]
    coords, expression, change = _moving(n, genes)

    def run() -> Floats:
        centred = change - change.mean(axis=1, keepdims=True)
        shuffled = np.random.default_rng(0).permuted(centred, axis=1)
        probabilities = np.empty((2, n, n), dtype=np.float32)
        for j in range(n):
            difference = expression - expression[j]
            difference -= difference.mean(axis=1, keepdims=True)
            length = np.linalg.norm(difference, axis=1)
            for mode, d in enumerate((centred[j], shuffled[j])):
                correlation = difference @ d / np.maximum(length * np.linalg.norm(d), 1e-12)
                weight = np.exp((correlation - correlation.max()) / 0.05)
                probabilities[mode, j] = weight / weight.sum()
        step = coords[None] - coords[:, None]
        step /= np.maximum(np.linalg.norm(step, axis=2, keepdims=True), 1e-12)
        return np.einsum("ji,jid->jd", probabilities[0] - probabilities[1], step)

    return Case(run, n)


_MODEL = {"cells": 10_000, "targets": 1000, "terms": 100}
_SMALLER = tuple({**_MODEL, "cells": n} for n in (2500, 5000, 10_000))
_MOVES = {"cells": 100_000, "genes": 1000, "neighbours": 50}

STAGES = (
    Stage(
        name="perturbation",
        title="one perturbation, 4 rounds",
        size="10,000 cells x 1,000 targets x 100 terms",
        case=_perturbation,
        at=_MODEL,
        growth=_SMALLER,
        reach=Reach(seconds=5),
        baseline_name="pandas twin at 1,000 cells x 100 targets, cost per cell and target",
        baseline=_pandas_twin,
        baseline_at={**_MODEL, "cells": 1000, "targets": 100},
        quick={"cells": 500, "targets": 20, "terms": 10},
    ),
    Stage(
        name="screen",
        title="screen",
        size="the same, 100 perturbations",
        case=_screen,
        at={**_MODEL, "perturbations": 100},
        growth=tuple({**sizes, "perturbations": 16} for sizes in _SMALLER),
        reach=Reach(ratio=5),
        baseline_name="the single one",
        baseline=_single,
        baseline_at=_MODEL,
        quick={"cells": 500, "targets": 20, "terms": 10, "perturbations": 4},
        per="perturbation",
        repeats=2,
    ),
    Stage(
        name="drivers",
        title="derivative of a read-out by every gene in every cell",
        size="10,000 cells x 1,000 targets, 100 terms, 4 rounds, one gene read",
        case=_drivers,
        at=_MODEL,
        growth=_SMALLER,
        reach=Reach(ratio=0.2),
        baseline_name="one perturbation",
        baseline=_single,
        baseline_at=_MODEL,
        quick={"cells": 500, "targets": 20, "terms": 10},
        repeats=2,
    ),
    Stage(
        name="vectors",
        title="perturbation vectors",
        size="100,000 cells x 1,000 genes, 50 neighbours",
        case=_vectors,
        at=_MOVES,
        growth=tuple({**_MOVES, "cells": n} for n in (25_000, 50_000, 100_000)),
        reach=Reach(seconds=60, gb=4),
        baseline_name="dense at 2,000 cells, cost per cell",
        baseline=_dense_vectors,
        baseline_at={**_MOVES, "cells": 2000},
        quick={"cells": 400, "genes": 30, "neighbours": 8},
    ),
)
