"""Weights between neighbouring cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._spatial import get_coordinates, graph_distances, library_codes, unwrap
from spacetravlr._anndata._units import check_units
from spacetravlr._core.signals.grid import assert_grid
from spacetravlr._core.signals.operators import Method, choose_method
from spacetravlr._core.space.weights import gaussian_weights, kernel_reach, length_scale
from spacetravlr._docs import document
from spacetravlr._utils import resolve_n_jobs
from spacetravlr._validators import assert_one_of, assert_positive, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints

logger = logging.getLogger(__name__)


@document
def spatial_weights(
    adata: AnnData | SpatialData,
    *,
    radius: float = 200.0,
    contact_radius: float | None = 30.0,
    sigma: float | None = None,
    contact_sigma: float | None = None,
    eps: float = 1e-3,
    truncate: bool = True,
    autocrine: bool = True,
    microns_per_unit: float = 1.0,
    spatial_key: str = _keys.SPATIAL,
    library_key: str | None = None,
    connectivity_key: str | None = None,
    method: Method = "auto",
    n_jobs: int | None = None,
    key_added: str = _keys.SPATIAL_WEIGHTS,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Compute distance-based weights between neighbouring cells.

    .. math::

        W_{ij} = \exp\left(-\frac{\lVert s_i - s_j \rVert^2}{2 \sigma^2}\right)
        \text{ for } \lVert s_i - s_j \rVert \le r, \qquad
        \sigma = \frac{r}{\sqrt{-2 \ln \varepsilon}}

    Weights are computed twice: with the radius of secreted ligands and with that of contact ligands. Radii are in
    micrometres. Coordinates are never rescaled; ``microns_per_unit`` gives their unit. A warning names the argument to
    pass if coordinates look like pixels or like rows and columns of spots (judged by ``adata.uns["spatial"]``, by
    columns of ``obs`` typical of CosMx, and by the spacing), if slides overlap without ``library_key``, or if a radius
    reaches no neighbours.

    Parameters
    ----------
    adata
        Annotated data with coordinates (2-D or 3-D) in ``obsm[spatial_key]``, or SpatialData.
    radius
        Radius of secreted ligands, in micrometres.
    contact_radius
        Radius of contact ligands, in micrometres. ``None`` where cells do not touch, as on spots: there are no contact
        weights, and :func:`received_ligands` leaves contact pairs out.
    sigma
        Length scale of secreted ligands in micrometres; by default the weight at ``radius`` is ``eps``.
    contact_sigma
        The same for contact ligands.
    eps
        Weight at the radius.
    truncate
        Whether weights beyond the radius are zero. If ``False``, the kernel extends until its weight is below 1e-10;
        with ``sigma=radius`` this is the kernel of the published code.
    autocrine
        Whether a cell receives its own signal, with weight 1.
    microns_per_unit
        Length of one coordinate unit in micrometres.
    spatial_key
        Key of the coordinates in ``obsm``.
    library_key
        Column of ``adata.obs`` with the slide of each cell; no weights connect different slides.
    connectivity_key
        Graph from squidpy in ``obsp`` (such as ``"spatial_distances"`` or ``"spatial_connectivities"``). Only its edges
        get weights, within the radii.
    method
        ``"sparse"`` stores the weights. ``"grid"`` stores only parameters, and received ligands are computed on a
        regular grid, at a cost that does not depend on the number of neighbours (error below 0.1 %). ``"auto"`` picks
        the cheaper method for each of the two ranges, or the exact one if it is cheap anyway.
    %(n_jobs)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.obsp[key_added]`` : CSR float32, secreted weights, unless the grid is used
    - ``adata.obsp["contact_weights"]`` (``f"{key_added}_contact"`` for another key) : CSR float32, contact weights,
      unless the grid is used or ``contact_radius=None``
    - ``adata.uns[key_added]`` : dict with the parameters; without contact signals, ``contact_radius`` and
      ``contact_sigma`` are 0

    Raises
    ------
    KeyError
        If a key does not exist.
    ValueError
        If coordinates are not finite, or a parameter is out of range.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(rng=0)
    >>> st.pp.spatial_weights(adata, radius=200, contact_radius=30)
    """
    table = unwrap(adata, table_key)
    assert_unique_names(table)
    assert_one_of(method, get_args(Method), name="method")
    for name, value in (("radius", radius), ("microns_per_unit", microns_per_unit)):
        assert_positive(value, name=name)
    for name, given in (("contact_radius", contact_radius), ("sigma", sigma), ("contact_sigma", contact_sigma)):
        if given is not None:
            assert_positive(given, name=name)
    if contact_radius is None and contact_sigma is not None:
        msg = f"Expected no `contact_sigma` with `contact_radius=None`, found `{contact_sigma}`."
        raise ValueError(msg)
    if not 0 < eps < 1:
        msg = f"Expected `eps` to be between 0 and 1, both excluded, found `{eps}`."
        raise ValueError(msg)
    resolve_n_jobs(n_jobs)
    if connectivity_key is not None and method == "grid":
        msg = 'Expected `method` to be "sparse" or "auto" with `connectivity_key`, found "grid"; a grid has no edges.'
        raise ValueError(msg)
    coords = get_coordinates(table, spatial_key)
    libraries = library_codes(table, library_key)
    graph = None if connectivity_key is None else graph_distances(table, connectivity_key, coords, libraries)
    check_units(
        table,
        coords,
        microns_per_unit=microns_per_unit,
        radius=radius,
        contact_radius=contact_radius,
        spatial_key=spatial_key,
        libraries=libraries,
    )

    written: dict[str, sparse.csr_matrix | None] = {}
    engines = []
    sigmas = []
    for obsp_key, reach, scale in (
        (key_added, radius, sigma),
        (_keys.contact_weights(key_added), contact_radius, contact_sigma),
    ):
        if reach is None:
            written[obsp_key] = None
            engines.append("")
            sigmas.append(0.0)
            continue
        scale = length_scale(reach, eps) if scale is None else float(scale)
        kernel: dict[str, Any] = {"sigma": scale / microns_per_unit, "truncate": truncate, "libraries": libraries}
        in_units = reach / microns_per_unit
        if graph is not None:
            weights = _on_graph(graph, in_units, kernel["sigma"], truncate=truncate, autocrine=autocrine)
            engine = "sparse"
        else:
            engine = choose_method(coords, in_units, **kernel) if method == "auto" else method
            weights = None
            if engine == "sparse":
                weights = gaussian_weights(coords, in_units, autocrine=autocrine, n_jobs=n_jobs, **kernel)
            else:
                assert_grid(coords, in_units, **kernel)  # now, not only when ligands are received
        written[obsp_key] = weights
        engines.append(engine)
        sigmas.append(scale)

    table = table.copy() if copy else table
    for obsp_key, matrix in written.items():
        if matrix is not None:
            table.obsp[obsp_key] = matrix
        elif obsp_key in table.obsp:
            del table.obsp[obsp_key]  # of an earlier call under the same key: would no longer be true
    table.uns[key_added] = {
        "radius": float(radius),
        "contact_radius": float(contact_radius or 0),
        "sigma": sigmas[0],
        "contact_sigma": sigmas[1],
        "eps": float(eps),
        "truncate": bool(truncate),
        "autocrine": bool(autocrine),
        "microns_per_unit": float(microns_per_unit),
        "library_key": library_key or "",
        "spatial_key": spatial_key,
        "connectivity_key": connectivity_key or "",
        "method": engines[0],
        "contact_method": engines[1],
    }
    _report({key: written[key] for key, engine in zip(written, engines, strict=True) if engine}, autocrine=autocrine)
    return table if copy else None


def _on_graph(
    distances: sparse.csr_matrix, radius: float, sigma: float, *, truncate: bool, autocrine: bool
) -> sparse.csr_matrix:
    """Gaussian of the distances along the edges of a graph; the graph has no edge from a cell to itself."""
    reach = kernel_reach(radius, sigma, truncate=truncate)
    rows: Ints = np.repeat(np.arange(distances.shape[0]), np.diff(distances.indptr))
    near = distances.data <= reach
    columns = distances.indices[near]
    rows = rows[near]
    values: Floats = np.exp(-0.5 * (distances.data[near] / sigma) ** 2)
    if autocrine:
        own = np.arange(distances.shape[0])
        rows, columns = np.append(rows, own), np.append(columns, own)
        values = np.append(values, np.ones(len(own)))
    weights = sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=distances.shape)
    weights.sort_indices()
    return weights


def _report(written: dict[str, sparse.csr_matrix | None], *, autocrine: bool) -> None:
    for name, weights in written.items():
        if weights is None:
            logger.info("%s: through a grid, nothing stored", name)
        else:
            n = weights.shape[0]
            others = weights.nnz - n * autocrine  # a cell is no neighbour of itself
            logger.info("%s: %.1f neighbours per cell", name, others / max(1, n))
