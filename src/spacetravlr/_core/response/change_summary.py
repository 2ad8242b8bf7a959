"""Simulated changes summed over cells, per group of cells and overall, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

# A row of a task is then a few pages of memory: short pieces of rows that are far apart take twice as long to read.
_COLUMNS_PER_TASK = 2048


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
    limits = np.repeat(threshold, values.shape[2]).astype(values.dtype)
    return ChangeSummary(*_means(values, groups, n_groups, limits, 3))


def mean_changes(values: Floats, groups: Ints, n_groups: int) -> Floats:
    """:attr:`ChangeSummary.mean` alone."""
    return _means(values, groups, n_groups, np.zeros(0, values.dtype), 1)[0]


def _means(values: Floats, groups: Ints, n_groups: int, limits: Floats, n_summaries: int) -> Floats:
    """The first summaries: summaries x perturbations x groups x genes."""
    n_genes, batch = values.shape[1:]
    parts = np.zeros((n_summaries, n_groups + 1, n_genes * batch))
    _sum_changes(np.ascontiguousarray(values).reshape(len(values), -1), groups.astype(np.int64) + 1, limits, parts)
    sums = np.concatenate([parts.sum(axis=1, keepdims=True), parts[:, 1:]], axis=1)
    size = np.bincount(groups[groups >= 0], minlength=n_groups)
    size = np.concatenate([[len(groups)], size]).astype(float)
    size[size == 0] = np.nan
    means = sums.reshape(-1, n_groups + 1, n_genes, batch).transpose(0, 3, 1, 2) / size[:, None]
    return means.astype(np.float32)


@parallel_kernel
def _sum_changes(values, row, threshold, sums):
    """Add up the columns of ``values`` (cells x columns) by the row of ``sums`` that each cell belongs to.

    ``sums`` is the changes alone, or the changes, their sizes and how many are above the ``threshold``.
    """
    n_columns, all_three = values.shape[1], sums.shape[0] == 3
    n_tasks = (n_columns + _COLUMNS_PER_TASK - 1) // _COLUMNS_PER_TASK
    for task in nb.prange(n_tasks):
        first = task * _COLUMNS_PER_TASK
        stop = min(n_columns, first + _COLUMNS_PER_TASK)
        partial = np.zeros((sums.shape[0], sums.shape[1], stop - first))
        limits = threshold[first:stop].copy()
        for j in range(values.shape[0]):
            changes, total = values[j, first:stop], partial[0, row[j]]
            if not all_three:
                for k in range(stop - first):
                    total[k] += changes[k]
                continue
            sizes, above = partial[1, row[j]], partial[2, row[j]]
            for k in range(stop - first):
                size = abs(changes[k])
                total[k] += changes[k]
                sizes[k] += size
                above[k] += size > limits[k]
        sums[:, :, first:stop] = partial
