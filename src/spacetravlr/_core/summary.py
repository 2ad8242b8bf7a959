"""Simulated changes summed over cells, per group of cells and overall, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints


class ChangeSummary(NamedTuple):
    """Per group of cells; the first group is all cells. Arrays are perturbations x groups x genes."""

    mean: Floats
    """Mean change."""
    mean_abs: Floats
    """Mean size of the change."""
    fraction: Floats
    """Part of the cells whose change is above the threshold."""


def summarise_changes(values: Floats, groups: Ints, n_groups: int, threshold: Floats) -> ChangeSummary:
    """Summarise a batch of changes.

    Parameters
    ----------
    values
        Cells x genes x perturbations.
    groups
        Group of each cell, -1 for none; shape (n_cells,).
    n_groups
        Number of groups.
    threshold
        Size of a change that counts as one, shape (n_genes,).

    Returns
    -------
    Means in float32; NaN for groups without a cell.
    """
    n_genes, batch = values.shape[1:]
    sums = np.zeros((3, batch, n_groups + 1, n_genes))
    _sum_changes(values, groups.astype(np.int64), threshold, sums)
    size = np.bincount(groups[groups >= 0], minlength=n_groups)
    size = np.concatenate([[len(groups)], size]).astype(float)
    size[size == 0] = np.nan
    return ChangeSummary(*(sums / size[:, None]).astype(np.float32))


@nb.njit(cache=True, nogil=True, parallel=True)
def _sum_changes(values, groups, threshold, sums):  # type: ignore[no-untyped-def]
    for g in nb.prange(values.shape[1]):
        for j in range(values.shape[0]):
            group = groups[j] + 1
            for p in range(values.shape[2]):
                change = values[j, g, p]
                size = abs(change)
                sums[0, p, 0, g] += change
                sums[1, p, 0, g] += size
                sums[2, p, 0, g] += size > threshold[g]
                if group > 0:
                    sums[0, p, group, g] += change
                    sums[1, p, group, g] += size
                    sums[2, p, group, g] += size > threshold[g]
