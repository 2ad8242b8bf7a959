"""Microniches: cells of a type whose coefficients are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr._anndata._modulators import ADJUSTMENT, INTERCEPT
from spacetravlr._core.design import term_values
from spacetravlr._core.niches import Trial, assign, try_groups
from spacetravlr._utils import numba_threads
from spacetravlr.models.perturb._coefficients import load

if TYPE_CHECKING:
    from spacetravlr._anndata._betas import BetaModel
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.perturb._model import FittedModel

By = Literal["coefficients", "contributions"]
#: Cells of a type that are grouped and drawn from; the others go to the nearest centre.
_MOST_CELLS = 5000
#: Cells of a type for each group, at least.
_LEAST_CELLS = 10

# what came of a type
FOUND, GRADIENT, UNSTABLE = "niches", "a gradient, not niches", "no stable niches"
NO_TERMS, CONSTANT, FEW = "no supported coefficients", "coefficients do not vary", "too few cells"
ASKED = "as many niches as requested"


@dataclass(frozen=True)
class NicheOptions:
    """Options of :func:`spacetravlr.tl.microniches`."""

    by: By
    n_niches: int | None
    max_niches: int
    n_pcs: int
    n_draws: int
    min_stability: float
    min_separation: float
    min_variation: float


class TypeNiches(NamedTuple):
    """Niches of the cells of one type."""

    labels: Ints
    trial: Trial | None
    """``None`` where there is nothing to group by."""
    trials: list[Trial]
    n_targets: int
    n_columns: int
    outcome: str


@dataclass(frozen=True)
class Supported:
    """Coefficients that a fit supports, at all cells."""

    columns: Ints
    """Columns of the coefficient matrix, in the order of the names of their terms."""
    values: Floats = field(repr=False)
    """Cells x ``columns``: coefficients, or contributions."""
    target: list[str]
    """Target of each column."""
    kept: dict[str, set[str]] | None = field(repr=False)
    """For each cell type the targets whose model is kept; ``None`` where the fit did not record it."""

    def of_type(self, cells: Bools, cell_type: str | None, min_variation: float) -> tuple[Bools, Bools]:
        """Which columns are supported in a type, and which of them vary over its cells.

        Groups that the fit has no scores of (``None``, or types of another column) go by what is kept in any type.

        A coefficient varies when its standard deviation is more than ``min_variation`` of its mean size.
        """
        if self.kept is None:
            supported = np.ones(len(self.columns), dtype=bool)
        else:
            anywhere: set[str] = set().union(*self.kept.values())
            kept = anywhere if cell_type is None else self.kept.get(cell_type, anywhere)
            supported = np.array([t in kept for t in self.target], dtype=bool)
        values = self.values[cells]
        size, spread = np.abs(values).mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        return supported, supported & (size > 0) & (spread > min_variation * size)


def read_supported(model: BetaModel, fitted: FittedModel | None) -> Supported:
    """Active terms that may be called causes, of targets with a model; ``fitted`` turns them into contributions."""
    table = model.table
    wanted = ~table["kind"].astype(str).isin([INTERCEPT, *ADJUSTMENT]).to_numpy()
    if "active" in table:
        wanted &= table["active"].to_numpy(bool)
    kept: dict[str, set[str]] | None = None
    if "kept" in model.scores:
        has = model.scores["kept"].astype(str) != "zero"
        rows = model.scores.loc[has, ["cell_type", "target"]].astype(str)
        kept = {str(c): set() for c in model.scores["cell_type"].astype(str).unique()}
        for cell_type, target in rows.itertuples(index=False):
            kept[cell_type].add(target)
        anywhere = set().union(*kept.values()) if kept else set()
        wanted &= table["target"].astype(str).isin(anywhere).to_numpy()
    columns = np.flatnonzero(wanted)
    names = table.iloc[columns][["target", "kind", "tf", "ligand", "receptor", "range"]].astype(str)
    columns = columns[np.lexsort([names[c].to_numpy(str) for c in names.columns[::-1]])]
    values = load(model.betas[:, columns]) if len(columns) else np.zeros((len(model.obs_names), 0), dtype=np.float32)
    if fitted is not None and len(columns):
        values = values * _regressors(fitted, columns)
    return Supported(columns, values, table["target"].astype(str).iloc[columns].tolist(), kept)


def _regressors(fitted: FittedModel, columns: Ints) -> Floats:
    targets = fitted.design.targets
    term = np.full(targets.n_columns, -1, dtype=np.int64)
    for t in range(len(targets)):
        part = targets.columns_of(t)
        term[part.start + 1 : part.stop] = targets.terms_of(t)
    with numba_threads(fitted.n_jobs):
        return term_values(fitted.tissue.expression, fitted.tissue.received, fitted.design.terms.take(term[columns]))


def niches_of_type(
    supported: Supported, cells: Bools, cell_type: str | None, options: NicheOptions, rng: np.random.Generator
) -> TypeNiches:
    """Group the cells of a type (a mask, in the order of the names of cells)."""
    n = int(cells.sum())
    known, varying = supported.of_type(cells, cell_type, options.min_variation)
    targets = [t for t, used in zip(supported.target, varying, strict=True) if used]
    codes, distinct = pd.factorize(np.array(targets, dtype=object))
    one = TypeNiches(np.zeros(n, dtype=np.int64), None, [], len(distinct), int(varying.sum()), "")
    if not known.any():
        return one._replace(outcome=NO_TERMS)
    if not varying.any():
        return one._replace(outcome=CONSTANT)
    ks = _numbers(options, n)
    if not ks:
        return one._replace(outcome=FEW)
    values = supported.values[np.ix_(cells, varying)].astype(np.float64)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    sample = np.arange(n) if n <= _MOST_CELLS else np.sort(rng.choice(n, _MOST_CELLS, replace=False))
    trials = try_groups(values[sample], codes, ks, options.n_pcs, options.n_draws, rng)
    chosen, outcome = _choose(trials, options)
    if chosen is None:
        return one._replace(trials=trials, outcome=outcome)
    labels = chosen.groups.labels
    if len(sample) < n:
        labels = _spread(values, sample, labels)
    return one._replace(labels=labels, trial=chosen, trials=trials, outcome=outcome)


def _numbers(options: NicheOptions, n_cells: int) -> list[int]:
    most = n_cells // _LEAST_CELLS
    if options.n_niches is not None:
        return [options.n_niches] if 1 < options.n_niches <= most else []
    return list(range(2, min(options.max_niches, most) + 1))


def _choose(trials: Sequence[Trial], options: NicheOptions) -> tuple[Trial | None, str]:
    """The largest number of groups that are all stable and separated."""
    if options.n_niches is not None:
        return trials[0], ASKED
    stable = [t for t in trials if t.stability.min() >= options.min_stability]
    apart = [t for t in stable if t.separation.min() >= options.min_separation]
    if apart:
        return apart[-1], FOUND
    return None, GRADIENT if stable else UNSTABLE


def _spread(values: Floats, sample: Ints, labels: Ints) -> Ints:
    """Labels of all cells from those of a sample, by the nearest mean of standardised columns."""
    centres = np.stack([values[sample][labels == k].mean(axis=0) for k in range(int(labels.max()) + 1)])
    out = assign(values, centres)
    out[sample] = labels
    return out
