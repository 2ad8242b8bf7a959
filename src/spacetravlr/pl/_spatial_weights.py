"""The kernel, and the neighbours of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize

from spacetravlr import _keys
from spacetravlr._anndata._spatial import has_contact, read_weights_params, unwrap
from spacetravlr._anndata._weights import kernel_params, weights_of_cell
from spacetravlr._core.space.weights import gaussian_weight
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.pl._colors import GREY, RANGE_COLORS, SEQUENTIAL
from spacetravlr.pl._figure import clean, finish, new_axes
from spacetravlr.pl._tissue import draw_values, tissue_layout

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import SignalRange
    from spacetravlr.pl._figure import Drawn


@document
def spatial_weights(
    adata: AnnData | SpatialData,
    cell: str | None = None,
    *,
    signal_range: SignalRange = "secreted",
    weights_key: str = _keys.SPATIAL_WEIGHTS,
    library_key: str | None = None,
    size: float | None = None,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    r"""Draw the weight of a signal against distance, or the neighbours that signal to one cell.

    Without ``cell``: the kernel :math:`\exp(-d^2 / 2 \sigma^2)` of secreted and of contact signals, with their radii.
    With ``cell``: the tissue around it, each cell coloured by the weight of its signal at that cell.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.spatial_weights`, or SpatialData.
    cell
        Name of a cell.
    signal_range
        Weights to map: ``"secreted"`` or ``"contact"``.
    weights_key
        Key of the weights.
    %(library_key)s
    %(size)s
    %(table_key)s
    %(ax)s
    %(figsize)s
    %(title)s
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError
        When the weights or the cell do not exist.
    ValueError
        When ``signal_range`` is unknown, or there are no contact weights.
    """
    adata = unwrap(adata, table_key)
    params = read_weights_params(adata, weights_key)
    if cell is None:
        ax = new_axes(ax, figsize, (4.6, 3.4))
        _kernel(params, ax)
        return finish(ax, title=title, return_fig=return_fig, save=save)
    assert_one_of(signal_range, (_keys.SECRETED, _keys.CONTACT), name="signal_range")
    assert_genes([cell], adata.obs_names, name="cell", where="adata.obs_names")
    if signal_range == _keys.CONTACT and not has_contact(params):
        msg = (
            'Expected `signal_range` to be "secreted", found "contact": '
            f"adata.uns[{weights_key!r}] has no contact weights."
        )
        raise ValueError(msg)
    ax = new_axes(ax, figsize, (5.2, 4.4))
    _neighbours(adata, cell, signal_range, params, weights_key, library_key, ax, size)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _kernel(params: dict[str, Any], ax: Axes) -> None:
    reach = params["radius"] * (1.15 if params["truncate"] else 3)
    distance = np.linspace(0, reach, 600)
    for name, color in RANGE_COLORS.items():
        if name == _keys.CONTACT and not has_contact(params):
            continue
        options = kernel_params(params, name)
        radius, sigma = options["radius"], options["sigma"]
        label = f"{name}: r = {radius:g} µm, \N{GREEK SMALL LETTER SIGMA} = {sigma:.3g} µm"
        ax.plot(distance, gaussian_weight(distance, **options), color=color, lw=2, label=label)
        ax.axvline(radius, color=color, lw=1, ls=":")
    ax.set(xlabel="distance (µm)", ylabel="weight", xlim=(0, reach), ylim=(0, 1.03))
    ax.legend(frameon=False, fontsize=8)
    clean(ax)


def _neighbours(
    adata: AnnData,
    cell: str,
    signal_range: str,
    params: dict[str, Any],
    weights_key: str,
    library_key: str | None,
    ax: Axes,
    size: float | None,
) -> None:
    from matplotlib.patches import Circle

    position = int(adata.obs_names.get_loc(cell))
    key = library_key or params["library_key"] or None
    slide = str(adata.obs[key].iloc[position]) if key else None
    layout = tissue_layout(adata, spatial_key=params["spatial_key"], library_key=key, library_id=slide)
    radius = params["radius" if signal_range == _keys.SECRETED else "contact_radius"]
    centre = layout.xy[np.flatnonzero(layout.rows == position)[0]]
    near = (np.abs(layout.xy - centre) <= 1.3 * radius).all(axis=1)
    layout = layout._replace(xy=layout.xy[near], rows=layout.rows[near])
    weights = weights_of_cell(adata, position, signal_range, weights_key=weights_key)
    values = np.where(weights > 0, weights, np.nan)
    label = f"weight of the {signal_range} signal"
    draw_values(
        values, ax, layout=layout, label=label, cmap=SEQUENTIAL, norm=Normalize(0, 1), size=size, background=GREY
    )
    # a circle larger than the tissue is cut, rather than the tissue made small
    limits = ax.get_xlim(), ax.get_ylim()
    ax.add_patch(Circle(tuple(centre), radius, fill=False, color="black", lw=1, ls=":"))
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.plot(*centre, marker="x", color="black", ms=7, mew=1.5)
    ax.set_title(f"{cell}, r = {radius:g} µm")
