"""Choose the amount of imputation by molecular cross-validation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spacetravlr._anndata._counts import assert_counts
from spacetravlr._anndata._expression import layer_name, read_matrix
from spacetravlr._core.molecular_cv import Problem, Setting, losses, normalised
from spacetravlr._core.noise import thin
from spacetravlr._utils import warn

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Ints

logger = logging.getLogger(__name__)

AUTO = "auto"
NEIGHBORS, STEPS = (5, 15, 30, 60), (1, 2, 3, 6)
_N_THINNINGS = 3
# Part of its loss by which something must beat the type mean: where nothing varies within types, smoothing over nearly
# all cells of a type, or what normalisation leaves of their depth, beats it by up to a third of this.
_LEAST_GAIN = 1e-3


def assert_whole(value: Any, *, name: str, may_be_auto: bool) -> None:
    """Raise ``ValueError`` if a value is neither a whole number of at least 1 nor, where allowed, "auto"."""
    valid = may_be_auto and value == AUTO if isinstance(value, str) else value >= 1 and int(value) == value
    if not valid:
        other = f' or "{AUTO}"' if may_be_auto else ""
        msg = f"Expected `{name}` to be a whole number of at least 1{other}, found `{value}`."
        raise ValueError(msg)


def read_counts(adata: AnnData, counts_layer: str | None, use_rep: str | None) -> Ints:
    """Raw counts as a dense array, checked."""
    if counts_layer is None:
        msg = (
            'Expected `counts_layer` with "auto", found None: neighbours and steps are chosen on raw counts. Pass the '
            'layer with raw counts ("X" for adata.X), or numbers of neighbours and steps.'
        )
        raise ValueError(msg)
    if use_rep is not None:
        msg = (
            f'Expected `use_rep` to be None with "auto", found `{use_rep!r}`: each half of the counts needs its own '
            "components. Leave it out, or pass numbers of neighbours and steps."
        )
        raise ValueError(msg)
    layer = None if counts_layer == "X" else counts_layer
    counts = read_matrix(adata, layer)
    assert_counts(counts.data if sparse.issparse(counts) else counts, layer_name(layer))
    dense = counts.toarray() if sparse.issparse(counts) else counts
    return dense.astype(np.int64 if dense.max(initial=0) > np.iinfo(np.int32).max else np.int32)


def choose(
    counts: Ints,
    n_neighbors: int | str,
    n_steps: int | str,
    problem: Problem,
    rng: np.random.Generator,
    *,
    type_mean: bool,
) -> tuple[Setting, pd.DataFrame]:
    """Choose the setting with the smallest loss over several thinnings; also return the table of all settings.

    The cell-type mean is chosen unless another setting is better by more than a thousandth.
    """
    neighbors = NEIGHBORS if isinstance(n_neighbors, str) else (int(n_neighbors),)
    steps = STEPS if isinstance(n_steps, str) else (int(n_steps),)
    runs = []
    for _ in range(_N_THINNINGS):
        kept = thin(counts, 0.5, rng)
        first, second = (normalised(half, problem.totals, problem.log_factor) for half in (kept, counts - kept))
        runs.append(losses((first, second), neighbors, steps, problem, type_mean=type_mean))
    tried = list(runs[0])
    found = np.array([[run[setting] for setting in tried] for run in runs])
    mean = found.mean(axis=0)
    best = int(mean.argmin())
    if type_mean and mean[best] > (1 - _LEAST_GAIN) * mean[0]:  # the type mean is the first
        best = 0
    table = pd.DataFrame(tried, columns=list(Setting._fields))
    table = table.assign(loss=mean, sd=found.std(axis=0, ddof=1), chosen=np.arange(len(tried)) == best)
    _report(tried[best], dict(zip([s.method for s in tried[:2]], mean, strict=False)), mean[best])
    return tried[best], table


def _report(chosen: Setting, plain: dict[str, float], loss: float) -> None:
    """Log what was chosen, and warn when nothing is left that varies within types."""
    if chosen.method == "type_mean":
        warn(
            "Molecular cross-validation found no variation within cell types beyond counting noise: the imputed layer "
            "is the mean of each cell's type, scaled to the total of the cell. A fit on it has nothing to explain."
        )
        return
    what = f"{chosen.n_neighbors} neighbours and {chosen.n_steps} steps" if chosen.n_steps else "no smoothing"
    against = [
        f"{plain[method]:.4g} for {name}"
        for method, name in (("none", "no smoothing"), ("type_mean", "the mean of the type"))
        if method in plain and method != chosen.method
    ]
    logger.info(
        "Molecular cross-validation chose %s: loss %.4g%s.", what, loss, f", {' and '.join(against)}" if against else ""
    )
