"""Counts in two independent halves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from spacetravlr._anndata._expression import layer_name, read_matrix
from spacetravlr._anndata._spatial import category_codes
from spacetravlr._core.noise import counting_scale, excess_variance, thin
from spacetravlr._validators import assert_in_main_memory

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats, Ints


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
    TypeError
        When they lie on a GPU.
    ValueError
        If the values are not counts.
    """
    if counts is None:
        msg = f"Expected {where} to hold counts, found None; pass `counts_layer=`."
        raise ValueError(msg)
    assert_in_main_memory(counts, where)
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


def checked_counts(adata: AnnData, layer: str | None, genes: Ints | None = None) -> Any:
    """Counts of some genes, or of all, as they are stored.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If the values are not counts.
    """
    counts = read_matrix(adata, layer)
    counts = counts if genes is None else counts[:, genes]
    assert_counts(counts.data if sparse.issparse(counts) else counts, f"{layer_name(layer)} (`counts_layer`)")
    return counts


def scale_of_counts(values: Floats, counts: Any, *, layer: str, counts_layer: str, advice: str) -> Floats:
    """Scale of the counts of each cell, from what they were normalised to; the median where a cell has no counts.

    Parameters
    ----------
    values
        Log-normalised counts, natural logarithms, cells x genes.
    counts
        The counts, an array or a sparse matrix.
    layer, counts_layer
        What both are called in messages.
    advice
        What to do where one does not follow from the other, with its punctuation.

    Raises
    ------
    ValueError
        If the values of a cell do not follow from its counts by one scale.
    """
    dense = np.asarray(counts.toarray() if sparse.issparse(counts) else counts, dtype=np.float64)
    try:
        scale = counting_scale(values, dense)
    except ValueError as error:
        msg = (
            f"Expected {layer} to be the log1p of {counts_layer} over a size factor of each cell, found that "
            f"{error}{advice}"
        )
        raise ValueError(msg) from error
    return np.where(np.isfinite(scale), scale, np.nanmedian(scale))


def reliability_of_counts(
    adata: AnnData, counts_layer: str | None, cluster_key: str | None
) -> tuple[Floats, Floats, Floats]:
    """Mean count, share of the variance within types that is not noise, and its z value, each (genes,).

    Raises
    ------
    KeyError
        If the layer or the cell types do not exist.
    ValueError
        If the values are not counts.
    """
    counts = checked_counts(adata, counts_layer)
    codes, names = np.zeros(adata.n_obs, dtype=np.int64), ["all"]
    if cluster_key is not None:
        codes, names = category_codes(adata, cluster_key, name="cluster_key")
    share, z = excess_variance(counts, np.asarray(codes), len(names))
    return np.asarray(counts.mean(axis=0), dtype=np.float64).ravel(), share, z
