"""What to perturb, and where, to move a read-out: derivatives, tables, and simulated knockouts for comparison."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pandas as pd

from spacetravlr._anndata._clusters import aggregate_name
from spacetravlr._core.response.adjoint import Gradient, gradient, pinned_gradient, self_return
from spacetravlr._core.response.pull_back import PINNED, Linearised
from spacetravlr._core.response.start import Workspace
from spacetravlr._utils import numba_threads
from spacetravlr.models.perturb._screen import _default_batch
from spacetravlr.models.perturb._screen_table import ROLES
from spacetravlr.models.perturb._simulator import assert_finite
from spacetravlr.models.perturb._spec import PerturbationSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._core.response.round import Derivative
    from spacetravlr._core.signals.operators import LigandField
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.perturb._model import FittedModel
    from spacetravlr.models.perturb._readout import Readout


class Drivers(NamedTuple):
    """What moves a read-out."""

    genes: list[str]
    """Name of each column of the arrays."""
    increase: Floats
    """Gain per unit more of each gene in each cell, cells x genes."""
    knockout: Floats
    """First-order effect of losing each gene in each cell, cells x genes; they add up to that of the tissue."""
    table: pd.DataFrame
    pairs: pd.DataFrame


def find_drivers(
    model: FittedModel,
    readout: Readout,
    cells: Bools,
    *,
    n_propagation: int,
    derivative: Derivative,
    n_pinned: int,
    n_check: int,
    n_pairs: int,
) -> Drivers:
    """Compute what :func:`spacetravlr.tl.drivers` describes."""
    simulator = model.simulator
    field = cast("LigandField", simulator.tissue.field)
    with numba_threads(model.n_jobs):
        rounds = Linearised(
            simulator.tissue,
            simulator.terms,
            simulator.targets,
            simulator.coefficients,
            field.transposed() if len(simulator.tissue.signals) else field,
            int(n_propagation),
            derivative,
        )
        found = gradient(rounds, readout.weights)
        assert_finite((found.increase + found.decrease).sum(axis=0)[:, None], found.genes, simulator, model.genes)
        left = self_return(rounds)
        expression = simulator.tissue.expression[:, found.genes]
        spread = expression[cells].std(axis=0, dtype=np.float64).astype(np.float32)
        effect = np.maximum(
            np.abs((found.decrease * expression)[cells].sum(axis=0, dtype=np.float64)),
            np.abs(found.increase[cells].sum(axis=0, dtype=np.float64)) * spread,
        )
        left[_pin(rounds, readout, found, effect * left, cells, n_pinned)] = 0
    knockout = np.where(cells[:, None], -found.decrease * expression, np.float32(0))
    increase = np.where(cells[:, None], found.increase, np.float32(0))
    names = [str(name) for name in model.genes[found.genes]]
    table = _table(model, readout, names, cells, knockout, increase * spread, left)
    pairs = _check(model, readout, table, cells, n_propagation, derivative, n_check, n_pairs)
    return Drivers(names, increase, knockout, table, pairs)


def _pin(rounds: Linearised, readout: Readout, found: Gradient, size: Floats, cells: Bools, n_pinned: int) -> Ints:
    """Replace, in ``found``, what was computed for the genes with the largest self-return; returns their columns."""
    columns = np.argsort(-size, kind="stable")[:n_pinned]
    columns = np.sort(columns[size[columns] > 0])
    for start in range(0, len(columns), PINNED):
        part = columns[start : start + PINNED]
        exact = pinned_gradient(rounds, readout.weights, found.genes[part], cells)
        found.increase[:, part], found.decrease[:, part] = exact.increase, exact.decrease
    return columns


def _table(
    model: FittedModel,
    readout: Readout,
    names: list[str],
    cells: Bools,
    knockout: Floats,
    increase: Floats,
    left: Floats,
) -> pd.DataFrame:
    """One row per gene and group of cells."""
    codes, types = model.cell_types()
    groups = [(aggregate_name(types), cells), *((name, cells & (codes == i)) for i, name in enumerate(types))]
    role, looked_at = _roles(model, names), set() if readout.distance else set(readout.genes)
    parts = []
    for name, inside in groups:
        if not inside.any():
            continue
        part = pd.DataFrame(
            {
                "gene": names,
                "role": role,
                "cell_type": name,
                "n_cells": int(inside.sum()),
                "knockout": knockout[inside].sum(axis=0, dtype=np.float64),
                "increase": increase[inside].sum(axis=0, dtype=np.float64),
                "in_readout": [gene in looked_at for gene in names],
                "self_return": left,
            }
        )
        for column in ("knockout", "increase"):
            size = part[column].abs().where(~part["in_readout"], -1.0)
            part[f"rank_{column}"] = (-size).rank(method="first").astype(int)
        parts.append(part)
    return pd.concat(parts, ignore_index=True).assign(checked=np.nan)


def _roles(model: FittedModel, names: list[str]) -> list[str]:
    table = model.fit.table
    players = {role: set(table[role].astype(str)) for role in ROLES}
    return [" + ".join(role for role in ROLES if name in players[role]) for name in names]


def _check(
    model: FittedModel,
    readout: Readout,
    table: pd.DataFrame,
    cells: Bools,
    n_propagation: int,
    derivative: Derivative,
    n_check: int,
    n_pairs: int,
) -> pd.DataFrame:
    """Simulate knockouts of the top genes, and of pairs of them; fills in ``checked`` for all cells together."""
    everywhere = table[table["cell_type"] == table["cell_type"].iloc[0]]
    everywhere = everywhere[~everywhere["in_readout"] & (everywhere["knockout"] != 0)]
    top = everywhere.sort_values("rank_knockout").head(n_check)
    genes, first_order = list(top["gene"]), dict(zip(top["gene"], top["knockout"], strict=True))
    pairs = sorted(combinations(genes, 2), key=lambda pair: -abs(first_order[pair[0]] + first_order[pair[1]]))[:n_pairs]
    found = _real(model, readout, [*((gene,) for gene in genes), *pairs], cells, n_propagation, derivative)
    single = dict(zip(genes, found[: len(genes)], strict=True))
    table.loc[top.index, "checked"] = found[: len(genes)]
    both = found[len(genes) :]
    additive = np.array([single[a] + single[b] for a, b in pairs], dtype=np.float64)
    return pd.DataFrame(
        {
            "gene": np.array([a for a, _ in pairs], dtype=object),
            "partner": np.array([b for _, b in pairs], dtype=object),
            "knockout": np.array([first_order[a] + first_order[b] for a, b in pairs], dtype=np.float64),
            "checked": both,
            "additive": additive,
            "interaction": both - additive,
        }
    )


def _real(
    model: FittedModel,
    readout: Readout,
    wanted: Sequence[tuple[str, ...]],
    cells: Bools,
    n_propagation: int,
    derivative: Derivative,
) -> Floats:
    """Change of the read-out by real knockouts, one after the other."""
    out, workspace = np.empty(len(wanted)), Workspace()
    size = _default_batch(model.simulator)
    for start in range(0, len(wanted), size):
        specs = [PerturbationSpec(dict.fromkeys(genes, 0.0), {}) for genes in wanted[start : start + size]]
        inputs = model.input_changes(specs, cells)
        changes = model.simulator.propagate(
            inputs, n_propagation=n_propagation, derivative=derivative, workspace=workspace
        )
        out[start : start + size] = readout.change(changes)
    return out
