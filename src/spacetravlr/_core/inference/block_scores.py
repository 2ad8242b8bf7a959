"""Scores over spatial blocks, their p-values, and one p-value of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse, special

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_LEAST_P = 1e-15


def block_sums(values: Floats, block: Ints, n_blocks: int | None = None) -> Floats:
    """Sum over the cells of each block: (cells x columns) to (blocks x columns), float64."""
    n_blocks = int(block.max()) + 1 if n_blocks is None else n_blocks
    n_cells = len(block)
    members = sparse.csr_matrix((np.ones(n_cells), (block, np.arange(n_cells))), shape=(n_blocks, n_cells))
    return np.asarray(members @ values)


def block_t(scores: Floats) -> Floats:
    """Score over its standard error from blocks, (columns,); zero where a column has none.

    Parameters
    ----------
    scores
        Sums of the products of two residuals in each block, blocks x columns.
    """
    error = np.sqrt((scores**2).sum(axis=0))
    return np.where(error > 0, scores.sum(axis=0) / np.where(error > 0, error, 1.0), 0.0)


def p_of_t(t: Floats, degrees: float) -> Floats:
    """Two-sided p-values."""
    return np.asarray(2 * special.stdtr(degrees, -np.abs(t)))


def cauchy_combination(p: Floats) -> float:
    """One p-value of several, however they depend on one another (Liu & Xie 2020); NaN of none."""
    p = np.asarray(p, dtype=np.float64)
    p = np.clip(p[np.isfinite(p)], _LEAST_P, 1 - _LEAST_P)
    if not len(p):
        return np.nan
    if len(p) == 1:
        return float(p[0])
    mean = float(np.mean(1 / np.tan(np.pi * p)))
    return float(np.arctan2(1.0, mean) / np.pi)
