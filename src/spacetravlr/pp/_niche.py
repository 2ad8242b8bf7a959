"""Cell-type composition of the neighbourhood of each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._spatial import category_codes, get_coordinates, library_codes, unwrap
from spacetravlr._anndata._units import check_units
from spacetravlr._core.space.niche import niche_composition
from spacetravlr._docs import document
from spacetravlr._utils import resolve_n_jobs
from spacetravlr._validators import assert_positive, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def niche(
    adata: AnnData | SpatialData,
    *,
    cluster_key: str = _keys.CELL_TYPE,
    radius: float = 200.0,
    microns_per_unit: float | None = None,
    spatial_key: str | None = None,
    library_key: str | None = None,
    weights_key: str = _keys.SPATIAL_WEIGHTS,
    n_jobs: int | None = None,
    key_added: str = _keys.NICHE,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Count the cells of each type around every cell.

    .. math:: n_{jc} = \lvert \{ i : \lVert s_i - s_j \rVert \le r,\ c(i) = c \} \rvert

    The cell itself is counted. Networks read these counts (:doc:`/how-it-works`, "Networks").

    Parameters
    ----------
    adata
        Annotated data with coordinates, or SpatialData.
    cluster_key
        Column of ``adata.obs`` with cell types.
    radius
        Radius in micrometres.
    microns_per_unit
        Length of one coordinate unit in micrometres. The defaults of this option, ``spatial_key`` and ``library_key``
        are those passed to ``pp.spatial_weights`` if it was called, otherwise 1, ``"spatial"`` and none.
    spatial_key
        Key of the coordinates in ``obsm``.
    library_key
        Column of ``adata.obs`` with the slide of each cell; cells of other slides are not counted.
    weights_key
        Key of ``pp.spatial_weights``.
    %(n_jobs)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.obsm[key_added]`` : array of counts, cells x types, float32
    - ``adata.uns[key_added]`` : dict with ``cell_types`` (the columns) and the parameters

    Raises
    ------
    KeyError
        If a key does not exist.
    ValueError
        If coordinates are not finite, a cell has no type, or a parameter is out of range.
    """
    table = unwrap(adata, table_key)
    assert_unique_names(table)
    before = table.uns.get(weights_key, {})
    unit = float(before.get("microns_per_unit", 1.0)) if microns_per_unit is None else float(microns_per_unit)
    spatial_key = str(before.get("spatial_key", _keys.SPATIAL)) if spatial_key is None else spatial_key
    library_key = str(before.get("library_key", "")) if library_key is None else library_key
    assert_positive(radius, name="radius")
    assert_positive(unit, name="microns_per_unit")
    resolve_n_jobs(n_jobs)
    codes, cell_types = category_codes(table, cluster_key, name="cluster_key")
    coords, libraries = get_coordinates(table, spatial_key), library_codes(table, library_key)
    if not before:  # `pp.spatial_weights` has not looked at them
        check_units(
            table, coords, microns_per_unit=unit, radius=radius, spatial_key=spatial_key, libraries=libraries,
            falls_off=False,
        )  # fmt: skip
    counts = niche_composition(coords, codes, len(cell_types), radius / unit, libraries=libraries, n_jobs=n_jobs)
    table = table.copy() if copy else table
    table.obsm[key_added] = counts
    table.uns[key_added] = {
        "cell_types": np.array(cell_types, dtype=str),
        "cluster_key": cluster_key,
        "radius": float(radius),
        "microns_per_unit": unit,
        "spatial_key": spatial_key,
        "library_key": library_key,
    }
    return table if copy else None
