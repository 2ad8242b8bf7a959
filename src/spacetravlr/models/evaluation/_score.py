"""Predicted profiles of changes scored against observed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr._core.evaluation.energy import energy_distance
from spacetravlr._core.evaluation.matching import compare_pairs, match, mean_of_others
from spacetravlr._core.evaluation.profiles import LEAST_GENES, agreement
from spacetravlr._utils import warn
from spacetravlr._validators import listed
from spacetravlr.models.evaluation._profiles import Effects, without_perturbed

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Baselines that need nothing but what is evaluated.
OBSERVED_MEAN, NO_CHANGE = "observed_mean", "no_change"
ENERGY = ("energy_distance", "energy_distance_unchanged")


@dataclass(frozen=True)
class Task:
    """Perturbations and genes that were both predicted and observed."""

    genes: pd.Index
    names: list[str]
    """Predicted perturbations that were observed, in the order of the prediction."""
    observed_names: list[str]
    """All observed ones: the candidates."""
    n_top: int
    exclude_perturbed: bool

    @property
    def own(self) -> Ints:
        """Which of the observed perturbations each predicted one is."""
        return np.array([self.observed_names.index(name) for name in self.names], dtype=np.int64)

    def rows(self, effects: Effects, names: Sequence[str], cell_type: str | None) -> Floats:
        """Changes of these perturbations and the genes of the task, NaN at perturbed genes and where unknown."""
        values = effects.group(cell_type)[:, effects.genes.get_indexer(self.genes)]
        values = values[effects.names.get_indexer(names)].astype(np.float64)
        values[~np.isfinite(values)] = np.nan
        return without_perturbed(values, names, self.genes) if self.exclude_perturbed else values


def make_task(
    predicted: Effects,
    observed: Effects,
    genes: pd.Index | None,
    n_top: int,
    *,
    exclude_perturbed: bool,
    names: tuple[str, str] = ("predicted", "observed"),
) -> Task:
    """Find what can be compared, and warn of what cannot; ``names`` are what messages call the two.

    Raises
    ------
    ValueError
        If fewer than three genes or no perturbation are in both.
    """
    common = predicted.genes.intersection(observed.genes, sort=False)
    if genes is not None:
        common = common.intersection(genes, sort=False)
    if len(common) < LEAST_GENES:
        msg = (
            f"Expected `{names[0]}` and `{names[1]}` to share at least {LEAST_GENES} genes, found {len(common)}: "
            f"{listed(predicted.genes, 3)} and {listed(observed.genes, 3)}; do both use the same kind of gene names?"
        )
        raise ValueError(msg)
    shared = [str(n) for n in predicted.names if n in observed.names]
    if not shared:
        msg = (
            f"Expected `{names[0]}` and `{names[1]}` to share a perturbation, found {listed(predicted.names, 5)} and "
            f"{listed(observed.names, 5)}; use the same names in both (for cells, see `perturbation_key`)."
        )
        raise ValueError(msg)
    if missing := [str(n) for n in observed.names if n not in predicted.names]:
        found = f"{len(missing)} of {len(observed.names)}"
        warn(f"{found} perturbations of `{names[1]}` are not in `{names[0]}`: {listed(missing, 5)}.")
    return Task(common, shared, [str(n) for n in observed.names], n_top, exclude_perturbed)


def score(
    predictions: Mapping[str, Effects], observed: Effects, task: Task, groups: Mapping[str, str | None]
) -> pd.DataFrame:
    """One row per prediction, perturbation and group; ``groups`` maps names to cell types, ``None`` for all cells."""
    parts, few = [], 0
    for group, cell_type in groups.items():
        truth = task.rows(observed, task.observed_names, cell_type)
        reference = mean_of_others(truth)[task.own]
        for label, effects in predictions.items():
            values = task.rows(effects, task.names, cell_type)
            rows = [agreement(values[p], truth[q], reference[p], task.n_top) for p, q in enumerate(task.own)]
            table = pd.DataFrame(rows)
            table = table.assign(**match(compare_pairs(values, truth), task.own))
            table.insert(0, "prediction", label)
            table.insert(1, "perturbation", task.names)
            table.insert(2, "cell_type", group)
            parts.append(table)
            few += int((table["n_genes"] < LEAST_GENES).sum())
    if few:
        warn(f"{few} rows have fewer than {LEAST_GENES} genes with a known change; their scores are NaN.")
    out = pd.concat(parts, ignore_index=True)
    return out.astype({"n_genes": int, "n_candidates": int})


def mean_profile(observed: Effects, task: Task) -> Effects:
    """Mean observed change over the other perturbations, as a prediction."""
    groups: dict[str | None, Floats] = {}
    for cell_type in [None, *observed.types]:
        groups[cell_type] = mean_of_others(task.rows(observed, task.observed_names, cell_type))
    overall = groups.pop(None)
    return Effects(pd.Index(task.observed_names), task.genes, overall, {str(k): v for k, v in groups.items()})


def no_change(observed: Effects, task: Task) -> Effects:
    """No change at all, as a prediction."""
    zeros = np.zeros((len(task.observed_names), len(task.genes)))
    return Effects(pd.Index(task.observed_names), task.genes, zeros, dict.fromkeys(observed.types, zeros))


def energy_columns(
    table: pd.DataFrame, predicted: Effects, observed: Effects, task: Task, n_cells: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Energy distance of predicted to observed cells, and of unperturbed ones; NaN where there are no cells."""
    values = np.full((len(table), 2), np.nan)
    if predicted.cells is not None and observed.cells is not None:
        for p, name in enumerate(task.names):
            used = task.genes
            if task.exclude_perturbed:
                used = used[np.isfinite(without_perturbed(np.zeros((1, len(used))), [name], used)[0])]
            before, after = predicted.cells(name, predicted.genes.get_indexer(used))
            _, truth = observed.cells(name, observed.genes.get_indexer(used))
            chosen, others = (_some(cells, n_cells, rng) for cells in (after, truth))
            truth = truth[others].astype(np.float64)
            values[p] = [energy_distance(cells[chosen].astype(np.float64), truth) for cells in (after, before)]
    return table.assign(**dict(zip(ENERGY, values.T, strict=True)))


def _some(cells: Floats, n: int, rng: np.random.Generator) -> Ints:
    return np.sort(rng.choice(len(cells), min(n, len(cells)), replace=False))
