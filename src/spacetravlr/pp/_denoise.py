"""Expected expression given the counts, for perturbations to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._counts import checked_counts, scale_of_counts
from spacetravlr._anndata._expression import get_expression, layer_name, log_base
from spacetravlr._anndata._order import CellOrder
from spacetravlr._anndata._spatial import category_codes, get_coordinates, unwrap
from spacetravlr._core.calibration import calibrate
from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, spatial_basis
from spacetravlr._core.surfaces.model import FINE
from spacetravlr._docs import document
from spacetravlr._utils import numba_threads
from spacetravlr._validators import assert_genes, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints

# Genes that are read together and may share factors: as many values as fit in a few hundred megabytes, at most a few
# seconds of eigenvalues.
_VALUES, _FEWEST, _MOST = 3e7, 100, 1000


@document
def denoise(
    adata: AnnData | SpatialData,
    genes: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    counts_layer: str = "counts",
    cluster_key: str = _keys.CELL_TYPE,
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

    It is meant for perturbations to start from (``st.tl.perturb(..., baseline_layer="denoised")``). A measured zero
    cannot fall, so with sparse counts a perturbation of measured values loses falls, and each cell inherits the noise
    of the regulator. Fits to counts do the same inside, without the target (``st.tl.fit_betas(counts_layer=...)``); do
    not fit this layer, in which each gene has a share in all others.

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
        Column of ``adata.obs`` with cell types.
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
    - ``adata.uns[key_added]`` : dict with the parameters

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
    source = None if counts_layer == "X" else counts_layer
    names = list(table.var_names if genes is None else [genes] if isinstance(genes, str) else dict.fromkeys(genes))
    assert_genes(names, table.var_names, name="genes")
    codes, types = category_codes(table, cluster_key, name="cluster_key")
    slides = None if library_key is None else category_codes(table, library_key, name="library_key")[0]
    coordinates = get_coordinates(table, spatial_key)
    counts = checked_counts(table, source)
    values = np.array(get_expression(table, layer=layer))  # the layer itself stays as it is
    unit = float(np.log(log_base(table)))
    scale = scale_of_counts(
        values * unit, counts, layer=layer_name(layer), counts_layer=layer_name(source),
        advice="; take the result of `sc.pp.normalize_total` and `sc.pp.log1p` on these counts.",
    )  # fmt: skip

    order = CellOrder.of(table.obs_names)
    rows = order.rows
    cell_type, slide = codes[rows], None if slides is None else slides[rows]
    where_cells = np.ascontiguousarray(coordinates[rows])
    basis = spatial_basis(where_cells, LENGTH_SCALES[FINE], slide)
    smooth = basis.evaluate(where_cells, np.zeros(len(rows), dtype=np.int64) if slide is None else slide)
    index = table.var_names.get_indexer(names)
    mean = np.asarray(counts[:, index].mean(axis=0), dtype=np.float64).ravel()
    with numba_threads(n_jobs):
        for number, group in enumerate(_groups(mean, table.n_obs)):
            chosen = index[group]
            shared = np.arange(len(group)) if number == 0 else np.zeros(0, dtype=np.int64)
            found = calibrate(values[np.ix_(rows, chosen)], scale[rows], cell_type, len(types), smooth, shared, unit)
            values[:, chosen] = np.maximum(found.expected(np.arange(len(group))), 0)[order.position]

    out = table.copy() if copy else table
    out.layers[key_added] = values
    out.uns[key_added] = {
        "layer": layer or "", "counts_layer": counts_layer, "cluster_key": cluster_key, "spatial_key": spatial_key,
        "library_key": library_key or "", "genes": np.array([] if genes is None else names, dtype=object),
    }  # fmt: skip
    return out if copy else None


def _groups(mean: Floats, n_cells: int) -> list[Ints]:
    """Genes by their mean count, the most abundant first; only the first group shares factors."""
    size = int(np.clip(_VALUES // max(n_cells, 1), _FEWEST, _MOST))
    ranks = np.argsort(-mean, kind="stable")
    return [np.sort(ranks[start : start + size]) for start in range(0, len(ranks), size)]
