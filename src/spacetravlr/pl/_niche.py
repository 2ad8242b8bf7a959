"""What surrounds a cell, as the networks see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._niche import read_niche
from spacetravlr._anndata._spatial import category_codes, get_coordinates, library_codes, unwrap
from spacetravlr._core.space.niche import niche_images
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_positive
from spacetravlr.pl._colors import group_colors
from spacetravlr.pl._figure import finish, new_axes

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn


@document
def niche(
    adata: AnnData | SpatialData,
    cell: str,
    *,
    n_bins: int = 16,
    niche_key: str = _keys.NICHE,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the niche image of a cell: the density of each cell type in a window centred on it.

    Each bin has the mean colour of the types in it; the fewer cells it holds, the paler it is.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.niche`, or SpatialData.
    cell
        Name of a cell.
    n_bins
        Bins per side.
    niche_key
        Key of ``pp.niche``.
    %(table_key)s
    %(ax)s
    %(figsize)s
    title
        Title; the cell and its type by default.
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError
        When ``pp.niche`` was not called, or there is no such cell.
    """
    from matplotlib.patches import Circle, Patch

    adata = unwrap(adata, table_key)
    state = read_niche(adata, niche_key)
    assert_genes([cell], adata.obs_names, name="cell", where="adata.obs_names")
    assert_positive(n_bins, name="n_bins")
    params = state.params
    key, radius, unit = params["cluster_key"], float(params["radius"]), float(params.get("microns_per_unit", 1.0))
    codes, types = category_codes(adata, key, name="cluster_key")
    here = int(adata.obs_names.get_loc(cell))
    image = niche_images(
        get_coordinates(adata, params.get("spatial_key", _keys.SPATIAL)),
        codes,
        len(types),
        radius / unit,
        n_bins,
        cells=np.array([here]),
        libraries=library_codes(adata, params.get("library_key") or None),
    )[0]

    colors = group_colors(adata, key)
    rgb = np.array([colors[t][:3] for t in types])
    total = image.sum(axis=0)
    mean = np.einsum("tab,tc->abc", image, rgb) / np.maximum(total, 1e-9)[..., None]
    opacity = (total / max(float(total.max()), 1e-9))[..., None] ** 0.5
    ax = new_axes(ax, figsize, (5.4, 4.0))
    ax.imshow(1 - opacity * (1 - mean), origin="lower", extent=(-radius, radius, -radius, radius))
    ax.add_patch(Circle((0, 0), radius, fill=False, color="black", lw=1, ls=":"))
    ax.plot(0, 0, marker="x", color="black", ms=7, mew=1.5)
    # the tissue's maps have their second axis pointing down, as images do
    ax.invert_yaxis()
    ax.set(xlabel="x - x(cell) (µm)", ylabel="y - y(cell) (µm)", title=f"{cell} ({types[codes[here]]})")
    counts = dict(zip(state.cell_types, state.composition[here], strict=True))
    handles = [Patch(color=colors[t], label=f"{t}: {counts.get(t, 0):.0f}") for t in types]
    ax.legend(
        handles=handles, title=f"cells within {radius:g} µm", frameon=False, fontsize=8, title_fontsize=8,
        loc="center left", bbox_to_anchor=(1.02, 0.5),
    )  # fmt: skip
    return finish(ax, title=title, return_fig=return_fig, save=save)
