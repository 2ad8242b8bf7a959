"""What surrounds a cell, and what surrounds every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._niche import NicheState, read_niche
from spacetravlr._anndata._spatial import category_codes, get_coordinates, library_codes, unwrap
from spacetravlr._core.space.niche import niche_images
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_one_of, assert_positive
from spacetravlr.pl._colors import GREY, RANGE_COLORS, SEQUENTIAL, Rgba, group_colors
from spacetravlr.pl._figure import as_list, finish, new_axes, new_grid, set_title
from spacetravlr.pl._tissue import draw_values, note, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.patches import Circle
    from spatialdata import SpatialData

    from spacetravlr._types import Floats
    from spacetravlr.pl._figure import Drawn

Kind = Literal["cells", "image"]
ENTROPY = "entropy"
_MARGIN = 1.1  # half the window, in radii


@document
def niche(
    adata: AnnData | SpatialData,
    cell: str | None = None,
    *,
    color: str | Sequence[str] = ENTROPY,
    kind: Kind = "cells",
    n_bins: int = 16,
    niche_key: str = _keys.NICHE,
    weights_key: str = _keys.SPATIAL_WEIGHTS,
    library_key: str | None = None,
    library_id: str | None = None,
    cmap: str = SEQUENTIAL,
    size: float | None = None,
    ncols: int = 3,
    table_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw what surrounds one cell, or a map of what surrounds every cell.

    With ``cell``: the cells around it in the colours of their types, circles at the radii of ``pp.niche`` and of the
    kernels of secreted and contact signals, and a bar of the composition within the radius of ``pp.niche``. Cells
    beyond all circles are pale. Without ``cell``: a map of the share of one type among the neighbours of each cell, or
    of how mixed they are; cells without a neighbour are grey. The cell itself is never counted.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.niche`, or SpatialData.
    cell
        Name of a cell; by default the map.
    color
        What the map shows: a cell type, ``"entropy"`` (in bits, zero where all neighbours are of one type), or several
        of these, one panel each.
    kind
        Around a cell, ``"cells"`` draws cells, ``"image"`` what a network sees: bins with the mean colour of the types
        in them, the paler the fewer cells they hold.
    n_bins
        Bins per side of the image.
    niche_key
        Key of ``pp.niche``.
    weights_key
        Key of the weights whose radii are drawn; where there are none, no circle is.
    %(library_key)s
    %(library_id)s
    cmap
        Colour map of the maps.
    %(size)s
    %(ncols)s
    %(table_key)s
    ax
        Axes to draw on; one per panel of the map.
    %(figsize)s
    title
        Title; the cell and its type by default.
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes (a list for several maps), or the figure.

    Raises
    ------
    KeyError
        When ``pp.niche`` was not called, or there is no such cell.
    ValueError
        When ``kind`` is unknown, or ``color`` is no cell type.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, rng=0)
    >>> st.pp.spatial_weights(adata, radius=60, contact_radius=15)
    >>> st.pp.niche(adata, radius=40)
    >>> ax = st.pl.niche(adata, adata.obs_names[100])
    >>> panels = st.pl.niche(adata, color=["B cell", "entropy"])
    """
    assert_one_of(kind, get_args(Kind), name="kind")
    assert_positive(n_bins, name="n_bins")
    adata = unwrap(adata, table_key)
    state = read_niche(adata, niche_key)
    if cell is None:
        layout = tissue_layout(
            adata,
            spatial_key=_spatial_key(state),
            library_key=library_key or _library_key(state),
            library_id=library_id,
        )
        wanted = as_list(color)
        neighbours = _neighbours(adata, state)
        axes = new_grid(ax, len(wanted), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
        for name, panel in zip(wanted, axes, strict=True):
            values, label = _map(name, neighbours, state)
            draw_values(values, panel, layout=layout, label=label, cmap=cmap, size=size, background=GREY)
            set_title(panel, "mixing of types" if name == ENTROPY else f"{name} nearby")
        return finish(axes, title=title, return_fig=return_fig, save=save)
    assert_genes([cell], adata.obs_names, name="cell", where="adata.obs_names")
    single = new_axes(ax, figsize, (5.8, 4.0))  # type: ignore[arg-type]
    here = int(adata.obs_names.get_loc(cell))
    key = str(state.params["cluster_key"])
    colors = group_colors(adata, key)
    if kind == "image":
        circles = _image(adata, here, n_bins, state, colors, single)
    else:
        circles = _around(adata, here, adata.uns.get(weights_key, {}), state, colors, size, single)
    _composition(_neighbours(adata, state)[here], state, colors, circles, single)
    # the tissue's maps have their second axis pointing down, as images do
    single.invert_yaxis()
    single.set(xlabel="x - x(cell) (µm)", ylabel="y - y(cell) (µm)")
    set_title(single, f"{cell} ({adata.obs[key].iloc[here]})")
    return finish(single, title=title, return_fig=return_fig, save=save)


def _spatial_key(state: NicheState) -> str:
    return str(state.params.get("spatial_key", _keys.SPATIAL))


def _library_key(state: NicheState) -> str | None:
    return str(state.params.get("library_key", "")) or None


def _neighbours(adata: AnnData, state: NicheState) -> Floats:
    """Cells of each type around each cell without itself, cells x types."""
    codes, types = category_codes(adata, str(state.params["cluster_key"]), name="cluster_key")
    counts = state.composition.astype(float)
    own = np.array([state.cell_types.index(name) if name in state.cell_types else -1 for name in types])[codes]
    known = np.flatnonzero(own >= 0)
    counts[known, own[known]] -= 1
    return np.maximum(counts, 0)


def _map(name: str, neighbours: Floats, state: NicheState) -> tuple[Floats, str]:
    """Values of a map and what they are."""
    assert_one_of(name, [*state.cell_types, ENTROPY], name="color")
    total = neighbours.sum(axis=1, keepdims=True)
    share = np.divide(neighbours, total, out=np.full_like(neighbours, np.nan), where=total > 0)
    radius = float(state.params["radius"])
    if name != ENTROPY:
        return share[:, state.cell_types.index(name)], f"share of {name}\namong cells within {radius:g} µm"
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.abs((share * logs).sum(axis=1)), f"entropy of cell types\nwithin {radius:g} µm (bits)"


def _positions(adata: AnnData, here: int, state: NicheState) -> Floats:
    """Coordinates relative to a cell, micrometres; NaN on other slides."""
    unit = float(state.params.get("microns_per_unit", 1.0))
    coordinates = get_coordinates(adata, _spatial_key(state)) * unit
    relative = coordinates - coordinates[here]
    slides = library_codes(adata, _library_key(state))
    if slides is not None:
        relative[slides != slides[here]] = np.nan
    return relative


def _around(
    adata: AnnData,
    here: int,
    weights: Any,
    state: NicheState,
    colors: dict[str, Rgba],
    size: float | None,
    ax: Axes,
) -> list[Circle]:
    from matplotlib.patches import Circle

    radius = float(state.params["radius"])
    circles = {"niche": (radius, "black", ":")}
    if "radius" in weights:
        circles["secreted"] = (float(weights["radius"]), RANGE_COLORS[_keys.SECRETED], "-")
    if weights.get("contact_radius"):
        circles["contact"] = (float(weights["contact_radius"]), RANGE_COLORS[_keys.CONTACT], "-")
    reach = max(r for r, *_ in circles.values())
    window = _MARGIN * reach
    relative = _positions(adata, here, state)
    distance = np.linalg.norm(relative, axis=1)
    shown = np.flatnonzero((np.abs(relative[:, :2]) <= window).all(axis=1))
    labels = adata.obs[str(state.params["cluster_key"])].astype(str).to_numpy()[shown]
    faces = np.array([colors[name] for name in labels])
    faces[distance[shown] > reach, 3] *= 0.25
    ax.scatter(relative[shown, 0], relative[shown, 1], s=size or _area(len(shown), ax), c=faces, lw=0)
    drawn = [
        Circle((0, 0), r, fill=False, color=color, lw=1.2, ls=style, label=f"{name}: {r:g} µm")
        for name, (r, color, style) in circles.items()
    ]
    for circle in drawn:
        ax.add_patch(circle)
    ax.plot(0, 0, marker="x", color="black", ms=7, mew=1.5)
    ax.set(xlim=(-window, window), ylim=(-window, window), aspect="equal")
    if relative.shape[1] == 3:
        note(ax, "z projected")
    return drawn


def _area(n_cells: int, ax: Axes) -> float:
    """Markers that just touch where cells fill the window evenly."""
    box = ax.get_window_extent()
    side = 72 * 0.8 * min(box.width, box.height) / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    return float(np.clip(0.6 * side**2 / max(n_cells, 1), 4, 120))


def _image(
    adata: AnnData, here: int, n_bins: int, state: NicheState, colors: dict[str, Rgba], ax: Axes
) -> list[Circle]:
    from matplotlib.patches import Circle

    radius, unit = float(state.params["radius"]), float(state.params.get("microns_per_unit", 1.0))
    codes, types = category_codes(adata, str(state.params["cluster_key"]), name="cluster_key")
    image = niche_images(
        get_coordinates(adata, _spatial_key(state)),
        codes,
        len(types),
        radius / unit,
        n_bins,
        cells=np.array([here]),
        libraries=library_codes(adata, _library_key(state)),
    )[0]
    rgb = np.array([colors[t][:3] for t in types])
    total = image.sum(axis=0)
    mean = np.einsum("tab,tc->abc", image, rgb) / np.maximum(total, 1e-9)[..., None]
    opacity = (total / max(float(total.max()), 1e-9))[..., None] ** 0.5
    ax.imshow(1 - opacity * (1 - mean), origin="lower", extent=(-radius, radius, -radius, radius))
    ax.plot(0, 0, marker="x", color="black", ms=7, mew=1.5)
    circle = Circle((0, 0), radius, fill=False, color="black", lw=1.2, ls=":", label=f"niche: {radius:g} µm")
    ax.add_patch(circle)
    return [circle]


def _composition(counts: Floats, state: NicheState, colors: dict[str, Rgba], circles: list[Circle], ax: Axes) -> None:
    """Bar of the types among the neighbours right of the axes, and the legend of types and circles."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    total = float(counts.sum())
    bar = ax.inset_axes((1.05, 0.0, 0.06, 1.0))
    below = 1.0
    for name, count in zip(state.cell_types, counts, strict=True):
        share = count / total if total else 0.0
        below -= share
        bar.bar(0, share, bottom=below, color=colors.get(name, GREY), width=1.0, lw=0)
    bar.set(xlim=(-0.5, 0.5), ylim=(0, 1), xticks=[], yticks=[])
    handles: list[Any] = [
        Patch(color=colors.get(name, GREY), label=f"{name}: {count:.0f}" + (f" ({count / total:.0%})" if total else ""))
        for name, count in zip(state.cell_types, counts, strict=True)
    ]
    handles += [
        Line2D([], [], color=patch.get_edgecolor(), ls=patch.get_linestyle(), lw=1.2, label=str(patch.get_label()))
        for patch in circles
    ]
    ax.legend(
        handles=handles, title=f"{total:.0f} neighbours\nwithin {float(state.params['radius']):g} µm", frameon=False,
        fontsize=8, title_fontsize=8, alignment="left", loc="center left", bbox_to_anchor=(1.14, 0.5),
    )  # fmt: skip
