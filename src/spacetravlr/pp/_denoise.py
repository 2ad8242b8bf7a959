"""Expected expression given the counts, for perturbations to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._denoised import denoised
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def denoise(
    adata: AnnData | SpatialData,
    genes: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    counts_layer: str = "counts",
    cluster_key: str | None = _keys.CELL_TYPE,
    spatial_key: str = _keys.SPATIAL,
    library_key: str | None = None,
    n_jobs: int | None = None,
    key_added: str = _keys.DENOISED,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Compute the expression that is expected of each cell, given all its counts.

    .. math:: \hat z_{jg} = E(z_{jg} \mid x_j), \qquad
        z_{jg} = m_{g c(j)} + S_g(s_j) + d_{g c(j)} \big( f_g \cdot \eta_j + \sqrt{1 - |f_g|^2}\, \epsilon_{jg} \big)

    with a mean for each cell type, a smooth field, a spread in each type and factors that genes share, all estimated
    from moments less the counting noise. A cell with many counts keeps most of its own value; one with few is drawn
    towards its type, its place and what its other genes say.

    Perturbations of fits to counts start from it, and compute it where it is missing. A measured zero cannot fall, so
    with sparse counts a perturbation of measured values loses falls, and each cell inherits the noise of the regulator.
    Fits to counts do the same inside, without the target (``st.tl.fit_betas(counts_layer=...)``); do not fit this
    layer, in which each gene has a share in all others.

    Parameters
    ----------
    adata
        Annotated data, or SpatialData.
    genes
        Genes to denoise; all by default. Others keep their measured values.
    layer
        Layer with log-normalised counts; ``None`` uses ``X``.
    counts_layer
        Layer with the raw counts behind ``layer``; ``"X"`` for ``adata.X``.
    cluster_key
        Column of ``adata.obs`` with cell types; ``None`` takes all cells as one type.
    spatial_key
        Key of the coordinates in ``adata.obsm``.
    library_key
        Column of ``adata.obs`` with the slide of each cell, if there are several.
    %(n_jobs)s
    key_added
        Name of the new layer.
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.layers[key_added]`` : dense float32, cells x genes, in the units of ``layer``, at least zero
    - ``adata.uns[key_added]`` : dict with the parameters and ``measured``, the sum of the measured values of each cell,
      by which a perturbation sees whether the layer still belongs to them

    Raises
    ------
    KeyError
        If a key does not exist, or a gene is unknown.
    ValueError
        If ``layer`` is not the log1p of the counts over one size factor per cell, or cells have no type.

    Examples
    --------
    >>> import numpy as np, spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, depth=1.0, rng=0)
    >>> st.pp.denoise(adata, layer="log1p")
    >>> measured, denoised = (adata[:, "FOXO1"].layers[name].ravel() for name in ("log1p", "denoised"))
    >>> exact = adata[:, "FOXO1"].layers["exact"].ravel()
    >>> bool(np.corrcoef(denoised, exact)[0, 1] > np.corrcoef(measured, exact)[0, 1])
    True

    References
    ----------
    Regression calibration: Carroll, Ruppert, Stefanski & Crainiceanu (2006), Measurement Error in Nonlinear Models,
    chapter 4.
    """
    table = unwrap(adata, table_key)
    assert_unique_names(table)
    names = None
    if genes is not None:
        names = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
        assert_genes(names, table.var_names, name="genes")
    found = denoised(
        table,
        names,
        layer=layer,
        counts_layer=None if counts_layer == "X" else counts_layer,
        cluster_key=cluster_key,
        spatial_key=spatial_key,
        library_key=library_key,
        n_jobs=n_jobs,
        advice="; take the result of `sc.pp.normalize_total` and `sc.pp.log1p` on these counts.",
    )
    out = table.copy() if copy else table
    found.write(out, key_added)
    return out if copy else None
