"""Share of each gene's variance that is not counting noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._counts import reliability_of_counts
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def reliability(
    adata: AnnData | SpatialData,
    *,
    counts_layer: str | None = None,
    cluster_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Tabulate how much of each gene's variance within cell types is more than counting noise.

    No model can explain counting noise. Genes that hardly vary beyond it cannot be modelled, however many cells there
    are; ``st.pp.modulators(adata, grn, targets="reliable", counts_layer=...)`` leaves them out.

    Let :math:`\mu_{jg}` be the mean of the cell type scaled by the depth of the cell. Counts :math:`k` that differ only
    by counting noise have :math:`E (k - \mu)^2 = \mu`.

    Parameters
    ----------
    adata
        Annotated data with raw counts, or SpatialData.
    counts_layer
        Layer with the counts; ``None`` uses ``X``.
    %(cluster_key)s
    %(table_key)s

    Returns
    -------
    One row per gene, in the order of ``var``: ``mean`` count, ``reliability`` (share of the variance within types that
    is not counting noise; may be slightly negative) and ``z`` (the excess variance in units of its standard error under
    counting noise alone). NaN for genes without counts.

    Raises
    ------
    KeyError
        If the layer or the cell types do not exist.
    ValueError
        If the values are not counts.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, depth=2.0, rng=0)
    >>> table = st.get.reliability(adata, counts_layer="counts")
    >>> bool(table.loc["PAX5", "reliability"] > 0)
    True
    """
    adata = unwrap(adata, table_key)
    key = cluster_key_of(adata) if cluster_key is None else cluster_key
    mean, share, z = reliability_of_counts(adata, counts_layer, key)
    return pd.DataFrame({"mean": mean, "reliability": share, "z": z}, index=adata.var_names.copy()).astype(np.float64)
