"""Expression of an AnnData as one canonical dense array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from spacetravlr._utils import warn
from spacetravlr._validators import assert_expression, assert_genes, assert_key, looks_like_counts

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats


def layer_name(layer: str | None) -> str:
    """How a layer is called in messages."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


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
        When the layer or a gene does not exist.
    ValueError
        When values are negative or not finite.
    """
    if layer is not None:
        assert_key(adata, "layers", layer, name="layer")
    if genes is not None:
        assert_genes(genes, adata.var_names, name="genes")
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        msg = "Expected adata.X to hold expression, found None; pass `layer=`."
        raise ValueError(msg)
    if hasattr(values, "compute"):
        values = values.compute()
    if genes is not None:
        index = adata.var_names.get_indexer(list(genes))
        values = values[:, index]
    dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
    dense = np.ascontiguousarray(dense, dtype=np.float32)
    if check:
        assert_expression(dense, name=layer_name(layer))
        if looks_like_counts(dense):
            warn(
                f"{layer_name(layer)} holds whole numbers only and looks like raw counts; normalise first "
                "(`sc.pp.normalize_total`, `sc.pp.log1p`) or pass the normalised `layer`."
            )
    return dense
