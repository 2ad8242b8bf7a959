"""The kernel, and the neighbours of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import Normalize

from spacetravlr import _keys
from spacetravlr._anndata._spatial import get_coordinates, read_weights_params
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.pl._figure import GREY, SEQUENTIAL, clean, finish, new_axes
from spacetravlr.pl._tissue import Layout, draw_values, tissue_layout

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes

    from spacetravlr._types import Floats, SignalRange
    from spacetravlr.pl._figure import Drawn

_COLORS = {_keys.SECRETED: "#4477aa", _keys.CONTACT: "#ee7733"}


def spatial_weights(
    adata: AnnData,
    cell: str | None = None,
    *,
    signal_range: SignalRange = "secreted",
    weights_key: str = _keys.SPATIAL_WEIGHTS,
    library_key: str | None = None,
    size: float | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    r"""Draw how much a signal weighs against its distance, or who a cell hears.

    Without ``cell``: the kernel :math:`\exp(-d^2 / 2 \sigma^2)` of secreted and of contact signals, with their radii.
    With ``cell``: the tissue, each cell coloured by the weight of its signal at that cell.

    Parameters
    ----------
    adata
        Annotated data after ``pp.spatial_weights``.
    cell
        Name of a cell.
    signal_range
        Whose weights to map: ``"secreted"`` or ``"contact"``.
    weights_key
        Key of ``pp.spatial_weights``.
    library_key
        Column of ``obs`` with the slide of each cell; what the weights were made with by default.
    size
        Marker area in points squared.
    ax
        Axes to draw on.
    figsize
        Size of the figure, in inches.
    title
        Title.
    return_fig
        Return the figure.
    save
        File to write.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError
        When the weights or the cell do not exist.
    """
    params = read_weights_params(adata, weights_key)
    if cell is None:
        ax = new_axes(ax, figsize, (4.6, 3.4))
        _kernel(params, ax)
        return finish(ax, title=title, return_fig=return_fig, save=save)
    assert_one_of(signal_range, (_keys.SECRETED, _keys.CONTACT), name="signal_range")
    assert_genes([cell], adata.obs_names, name="cell", where="adata.obs_names")
    ax = new_axes(ax, figsize, (5.2, 4.4))
    _neighbours(adata, cell, signal_range, params, weights_key, library_key, ax, size)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _kernel(params: dict[str, Any], ax: Axes) -> None:
    reach = params["radius"] * (1.15 if params["truncate"] else 3)
    distance = np.linspace(0, reach, 600)
    for name, prefix in ((_keys.SECRETED, ""), (_keys.CONTACT, "contact_")):
        radius, sigma = params[f"{prefix}radius"], params[f"{prefix}sigma"]
        weight = np.exp(-(distance**2) / (2 * sigma**2))
        if params["truncate"]:
            weight[distance > radius] = 0.0
        label = f"{name}: r = {radius:g} µm, \N{GREEK SMALL LETTER SIGMA} = {sigma:.3g} µm"
        ax.plot(distance, weight, color=_COLORS[name], lw=2, label=label)
        ax.axvline(radius, color=_COLORS[name], lw=1, ls=":")
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

    here = int(adata.obs_names.get_loc(cell))
    key = library_key or params["library_key"] or None
    slide = str(adata.obs[key].iloc[here]) if key else None
    layout = tissue_layout(adata, spatial_key=params["spatial_key"], library_key=key, library_id=slide)
    radius = params["radius" if signal_range == _keys.SECRETED else "contact_radius"]
    centre = layout.xy[np.flatnonzero(layout.rows == here)[0]]
    near = (np.abs(layout.xy - centre) <= 1.3 * radius).all(axis=1)
    layout = layout._replace(xy=layout.xy[near], rows=layout.rows[near])
    weights = _weights_of(adata, here, signal_range, params, weights_key, layout)

    values = np.full(adata.n_obs, np.nan)
    values[layout.rows] = np.where(weights > 0, weights, np.nan)
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


def _weights_of(
    adata: AnnData, here: int, signal_range: str, params: dict[str, Any], weights_key: str, layout: Layout
) -> Floats:
    """Weights between a cell and those shown: the stored ones, or the kernel itself where a grid is used."""
    stored = weights_key if signal_range == _keys.SECRETED else _keys.contact_weights(weights_key)
    if stored in adata.obsp:
        return adata.obsp[stored][here].toarray().ravel()[layout.rows]
    prefix = "" if signal_range == _keys.SECRETED else "contact_"
    coordinates = get_coordinates(adata, params["spatial_key"]) * params["microns_per_unit"]
    squared = ((coordinates[layout.rows] - coordinates[here]) ** 2).sum(axis=1)
    weights = np.exp(-squared / (2 * params[f"{prefix}sigma"] ** 2))
    if params["truncate"]:
        weights[squared > params[f"{prefix}radius"] ** 2] = 0.0
    if not params["autocrine"]:
        weights[layout.rows == here] = 0.0
    return weights
