"""Counts in two independent halves."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from spacetravlr._core.noise import thin


def halves(counts: Any, fraction: float, rng: np.random.Generator, where: str) -> tuple[Any, Any]:
    """Split counts into two parts of independent noise, arrays or CSR matrices in the dtype of the counts.

    Parameters
    ----------
    counts
        Cells x genes, in whatever form an AnnData holds them.
    fraction
        Probability of each molecule to be in the first part.
    rng
        Generator.
    where
        What the counts are called in messages.

    Raises
    ------
    ValueError
        When the values are not counts.
    """
    if counts is None:
        msg = f"Expected {where} to hold counts, found None; pass `counts_layer=`."
        raise ValueError(msg)
    if hasattr(counts, "compute"):
        counts = counts.compute()
    if not sparse.issparse(counts):
        dense = np.asarray(counts)
        assert_counts(dense, where)
        kept = thin(dense, fraction, rng).astype(dense.dtype)
        return kept, dense - kept
    whole = counts.tocsr(copy=True)
    whole.sum_duplicates()  # molecules are drawn once per entry, in one order
    assert_counts(whole.data, where)
    first, second = whole, whole.copy()
    first.data = thin(whole.data, fraction, rng).astype(whole.dtype)
    second.data = second.data - first.data
    for half in (first, second):
        half.eliminate_zeros()
    return first, second


def assert_counts(values: Any, where: str) -> None:
    """Raise ``ValueError`` unless all of an array are whole numbers, at least zero."""
    if values.size and not (np.isfinite(values).all() and values.min() >= 0 and np.all(values == np.round(values))):
        msg = f"Expected {where} to hold raw counts (whole numbers, at least zero), found other values."
        raise ValueError(msg)
