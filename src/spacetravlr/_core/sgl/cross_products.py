r"""Cross products of regressors and targets, one set per group of cells, so that fits never iterate over cells again.

A group is a cell type within a spatial fold. Sums over groups give the cross products of any union of types and folds:
training folds, held-out folds, or all types pooled. Columns are shifted by their overall mean before anything is added
up, so that means and variances can be taken from the sums without cancellation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spacetravlr._types import Floats, Ints

_CHUNK = 4096  # rows turned into float64 at a time


@dataclass(frozen=True)
class GroupedMoments:
    """Sums over the cells of each group of shifted columns; G groups, K regressors, T targets, all float64."""

    n: NDArray[np.float64]
    """Cells of each group, shape (G,)."""
    x_shift: NDArray[np.float64]
    """What was taken off each regressor, shape (K,)."""
    y_shift: NDArray[np.float64]
    """What was taken off each target, shape (T,)."""
    x: NDArray[np.float64]
    """Sums of the regressors, shape (G, K)."""
    y: NDArray[np.float64]
    """Sums of the targets, shape (G, T)."""
    xx: NDArray[np.float64]
    """Cross products of the regressors, shape (G, K, K)."""
    xy: NDArray[np.float64]
    """Cross products with the targets, shape (G, T, K): a target's row is contiguous."""
    yy: NDArray[np.float64]
    """Sums of squares of the targets, shape (G, T)."""

    @property
    def n_groups(self) -> int:
        """Number of groups G."""
        return len(self.n)


def grouped_moments(design: Floats, y: Floats, codes: Ints, *, n_groups: int | None = None) -> GroupedMoments:
    r"""Cross products of every group of cells, accumulated in float64.

    Parameters
    ----------
    design
        Regressors, cells x K.
    y
        Targets, cells x T (or cells, for one target).
    codes
        Group of each cell, shape (cells,), usually ``cell_type * n_folds + fold``; cells with -1 are left out.
    n_groups
        Number of groups; default ``codes.max() + 1``.

    Returns
    -------
    The sums; the largest array holds G x K x K float64 values.
    """
    y = y[:, None] if y.ndim == 1 else y
    codes = np.asarray(codes)
    if not len(design) == len(y) == len(codes):
        msg = f"Expected `design`, `y` and `codes` to be of one length, found {len(design)}, {len(y)}, {len(codes)}."
        raise ValueError(msg)
    size = int(codes.max(initial=-1)) + 1 if n_groups is None else n_groups
    if codes.max(initial=-1) >= size:
        msg = f"Expected `codes` to be below `n_groups` = {size}, found {codes.max()}."
        raise ValueError(msg)
    used = codes >= 0
    n_regressors, n_targets = design.shape[1], y.shape[1]
    x_shift = _mean(design, used)
    y_shift = _mean(y, used)
    sums = GroupedMoments(
        n=np.bincount(codes[used], minlength=size).astype(np.float64),
        x_shift=x_shift,
        y_shift=y_shift,
        x=np.zeros((size, n_regressors)),
        y=np.zeros((size, n_targets)),
        xx=np.zeros((size, n_regressors, n_regressors)),
        xy=np.zeros((size, n_targets, n_regressors)),
        yy=np.zeros((size, n_targets)),
    )
    order = np.argsort(codes, kind="stable")
    stops = np.searchsorted(codes[order], np.arange(size), side="right")
    starts = np.searchsorted(codes[order], np.arange(size), side="left")
    for group, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for low in range(start, stop, _CHUNK):
            rows = order[low : min(low + _CHUNK, stop)]
            x_rows = design[rows].astype(np.float64) - x_shift
            y_rows = y[rows].astype(np.float64) - y_shift
            sums.x[group] += x_rows.sum(axis=0)
            sums.y[group] += y_rows.sum(axis=0)
            sums.xx[group] += x_rows.T @ x_rows
            sums.xy[group] += y_rows.T @ x_rows
            sums.yy[group] += np.einsum("ij,ij->j", y_rows, y_rows)
    return sums


def _mean(values: Floats, used: NDArray[np.bool_]) -> NDArray[np.float64]:
    if not used.any():
        return np.zeros(values.shape[1])
    mean: NDArray[np.float64] = np.mean(values, axis=0, dtype=np.float64, where=used[:, None])
    return mean
