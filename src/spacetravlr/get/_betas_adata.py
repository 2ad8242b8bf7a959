"""All coefficients as a separate AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._modulators import INTERCEPT
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import named_terms
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# what other packages read beside the values: images and graphs
_UNS, _OBSP = ("spatial",), ("spatial_connectivities", "spatial_distances")


@document
def betas_adata(
    adata: AnnData | SpatialData,
    *,
    active: bool | None = None,
    targets: str | Sequence[str] | None = None,
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
) -> AnnData:
    """Return the coefficients as annotated data, cells x terms.

    scanpy, squidpy and napari can then treat a coefficient like a gene: maps, Moran's I, embeddings, clustering.

    Parameters
    ----------
    %(adata_fitted)s
    active
        ``True`` selects the terms that the fit calls active, ``False`` the others; by default all terms.
    targets
        Modelled genes; all by default.
    %(betas_key)s
    %(table_key)s

    Returns
    -------
    ``X`` : coefficients in original units of expression, without intercepts. Coefficients in a store remain a dask
    array, read on demand. ``var`` : one row per term, named ``<modulator>><target>``, with ``target``, ``modulator``
    and ``label`` (names as in :func:`spacetravlr.get.modulators`), ``kind``, ``tf``, ``ligand``, ``receptor``,
    ``range`` and the results of the fit for the term. ``obs``, coordinates in ``obsm``, colours, images and spatial
    graphs are copied from ``adata``.

    Raises
    ------
    KeyError
        If there are no coefficients, or none for one of the ``targets``.
    ValueError
        If no term is left, or ``active`` is given and the fit did not record it.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> coefficients = st.get.betas_adata(adata, targets="PAX5")
    >>> coefficients.var_names[0], coefficients.shape[0]
    ('FOXO1>PAX5', 200)
    """
    from anndata import AnnData

    adata = unwrap(adata, table_key)
    model = read_betas(adata, betas_key)
    table = named_terms(model.table)
    keep = np.array(table["kind"] != INTERCEPT)  # a copy: pandas may hand out what is read-only
    if targets is not None:
        wanted = [targets] if isinstance(targets, str) else list(targets)
        assert_genes(wanted, model.target_names, name="targets", where="the fitted targets")
        keep &= table["target"].isin(wanted).to_numpy()
    if active is not None:
        if "active" not in table:
            msg = f"Expected adata.uns[{betas_key!r}]['terms'] to have the column 'active', found none; omit `active`."
            raise ValueError(msg)
        keep &= table["active"].to_numpy(bool) == active
    columns = np.flatnonzero(keep)
    if not len(columns):
        msg = f"Expected at least one term, found none with active={active} and targets={targets!r}."
        raise ValueError(msg)
    var = table.iloc[columns]
    var.index = (var["modulator"] + ">" + var["target"]).astype(object)
    out = AnnData(model.betas[:, columns], obs=adata.obs.copy(), var=var)
    for key, values in adata.obsm.items():
        if key != betas_key and getattr(values, "ndim", 0) == 2 and _is_place(key):
            out.obsm[key] = np.array(values)
    out.uns.update({k: v for k, v in adata.uns.items() if k in _UNS or k.endswith("_colors")})
    for key in _OBSP:
        if key in adata.obsp:
            out.obsp[key] = adata.obsp[key].copy()
    return out


def _is_place(key: str) -> bool:
    """Coordinates, in the tissue or an embedding."""
    return key == _keys.SPATIAL or key.startswith(("spatial_", "X_"))
