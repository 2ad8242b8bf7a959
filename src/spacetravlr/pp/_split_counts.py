"""Split counts into two independent halves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacetravlr._anndata._counts import halves
from spacetravlr._anndata._expression import layer_name
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator
from spacetravlr._validators import assert_key

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def split_counts(
    adata: AnnData | SpatialData,
    *,
    counts_layer: str | None = None,
    fraction: float = 0.5,
    rng: Rng = 0,
    key_added: str = "counts",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Split counts into two halves whose noise is independent.

    Each molecule goes to the first half with probability ``fraction``, else to the second:

    .. math:: A_{jg} \sim \mathrm{Binomial}(k_{jg}, p), \qquad B_{jg} = k_{jg} - A_{jg}

    If counts are Poisson, :math:`A` and :math:`B` are independent given the expression of the cell. An association
    between a regulator in one half and a target in the other is then not due to shared noise. Normalise each half
    separately.

    Parameters
    ----------
    adata
        Annotated data with raw counts, or SpatialData.
    counts_layer
        Layer with the counts; ``None`` uses ``X``.
    fraction
        Fraction of the molecules that goes to the first half, between 0 and 1.
    %(rng)s
    key_added
        Stem of the two layers.
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.layers[f"{key_added}_a"]``, ``adata.layers[f"{key_added}_b"]`` : arrays or CSR matrices in the dtype of
      the counts; their sum is the counts

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If the values are not counts, or ``fraction`` is not between 0 and 1.

    Examples
    --------
    >>> import anndata, numpy as np, spacetravlr as st
    >>> adata = anndata.AnnData(np.random.default_rng(0).poisson(4.0, (5, 3)).astype(np.float32))
    >>> st.pp.split_counts(adata)
    >>> bool((adata.layers["counts_a"] + adata.layers["counts_b"] == adata.X).all())
    True
    """
    table = unwrap(adata, table_key)
    if not 0 < fraction < 1:
        msg = f"Expected `fraction` to be between 0 and 1, found `{fraction}`."
        raise ValueError(msg)
    if counts_layer is not None:
        assert_key(table, "layers", counts_layer, name="counts_layer")
    counts = table.X if counts_layer is None else table.layers[counts_layer]
    first, second = halves(counts, fraction, as_generator(rng), layer_name(counts_layer))
    out = table.copy() if copy else table
    out.layers[f"{key_added}_a"], out.layers[f"{key_added}_b"] = first, second
    return out if copy else None
