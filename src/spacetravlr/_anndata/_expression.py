"""Expression of an AnnData as one canonical array, checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from spacetravlr._utils import warn
from spacetravlr._validators import assert_genes, assert_in_main_memory, assert_key, looks_like_counts

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats

logger = logging.getLogger(__name__)


def layer_name(layer: str | None) -> str:
    """How a layer is called in messages."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def read_matrix(adata: AnnData, layer: str | None = None) -> Any:
    """Read expression of all genes as an array or a canonical CSR matrix, whatever it is stored as.

    What lies in a file (``backed="r"``) or a dask array is read into memory. Matrices of the user are never put in
    order in place: those with repeated or unsorted entries are copied first.

    Raises
    ------
    KeyError
        If the layer does not exist.
    TypeError
        If it lies on a GPU.
    ValueError
        If there is no expression.
    """
    if layer is not None:
        assert_key(adata, "layers", layer, name="layer")
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        msg = f"Expected {layer_name(layer)} to hold expression, found None; pass `layer=`."
        raise ValueError(msg)
    assert_in_main_memory(values, layer_name(layer))
    if hasattr(values, "compute"):
        values = values.compute()
    if hasattr(values, "to_memory"):  # a sparse matrix in a file
        values = values.to_memory()
    if not sparse.issparse(values):
        return np.asarray(values[()] if hasattr(values, "file") else values)
    matrix = sparse.csr_matrix(values)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def check_expression(values: Any, genes: Sequence[str], *, layer: str | None) -> None:
    """Refuse negative and non-finite expression, and warn about what looks like raw counts.

    Raises
    ------
    ValueError
        Naming the first gene concerned, and how many values of how many genes are.
    """
    stored = values.data if sparse.issparse(values) else values
    if stored.size == 0:
        return
    low, high = stored.min(), stored.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        found = _found(values, ~np.isfinite(stored), genes)
        msg = (
            f"Expected expression in {layer_name(layer)} to be finite, found NaN or infinite values: {found}; "
            "replace them, or leave these genes out."
        )
        raise ValueError(msg)
    if low < 0:
        msg = (
            f"Expected expression in {layer_name(layer)} to be at least zero, found values down to {low:.4g}: "
            f"{_found(values, stored < 0, genes)}; use normalised (for example log1p) values, not scaled ones."
        )
        raise ValueError(msg)
    if looks_like_counts(stored):
        warn(
            f"{layer_name(layer)} holds whole numbers only and looks like raw counts; normalise first "
            "(`sc.pp.normalize_total`, `sc.pp.log1p`) or pass the normalised `layer`."
        )


def _found(values: Any, is_bad: Any, genes: Sequence[str]) -> str:
    """How many values of which genes."""
    columns = values.indices[is_bad] if sparse.issparse(values) else np.nonzero(is_bad)[1]
    distinct = np.unique(columns)
    names = ", ".join(repr(str(genes[i])) for i in distinct[:3]) + (", ..." if len(distinct) > 3 else "")
    return f"{len(columns)} values of {names}"


def log_base(adata: AnnData) -> float:
    """Base of the logarithms as ``sc.pp.log1p`` noted it; e when it noted none."""
    noted = adata.uns.get("log1p", {})
    base = noted.get("base") if hasattr(noted, "get") else None
    if base is None:
        return float(np.e)
    base = float(base)
    if not np.isfinite(base) or base <= 1:
        msg = f"Expected adata.uns['log1p']['base'] to be a number above 1, found `{base}`."
        raise ValueError(msg)
    if base != np.e:
        logger.info("Logarithms are to the base %g (adata.uns['log1p']['base']).", base)
    return base


def is_smoothed(adata: AnnData, layer: str) -> bool:
    """Whether ``st.pp.impute`` wrote the layer, by the note that it leaves."""
    note = adata.uns.get(layer, {}) if layer else {}
    return hasattr(note, "get") and {"n_neighbors", "n_steps"} <= set(note)


def get_expression(
    adata: AnnData, genes: Sequence[str] | None = None, *, layer: str | None = None, check: bool = True
) -> Floats:
    """Read expression as a dense, C-ordered float32 array (cells x genes).

    Parameters
    ----------
    adata
        Annotated data.
    genes
        Gene names, in the wanted order; all genes by default.
    layer
        Layer to read; ``None`` reads ``X``.
    check
        Refuse negative and non-finite values, and warn about what looks like raw counts.

    Raises
    ------
    KeyError
        If the layer or a gene does not exist.
    ValueError
        If values are negative or not finite.
    """
    if genes is not None:
        assert_genes(genes, adata.var_names, name="genes")
    values = read_matrix(adata, layer)
    names = adata.var_names
    if genes is not None:
        index = adata.var_names.get_indexer(list(genes))
        values, names = values[:, index], names[index]
    dense = values.toarray() if sparse.issparse(values) else values
    dense = np.ascontiguousarray(dense, dtype=np.float32)
    if check:
        check_expression(dense, names, layer=layer)
    return dense
