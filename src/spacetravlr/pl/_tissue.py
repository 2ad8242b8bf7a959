"""Values and groups on the tissue, drawn by squidpy; several slides side by side."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._spatial import category_codes, get_coordinates
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.pl._colors import GREY, SEQUENTIAL, group_colors
from spacetravlr.pl._figure import SLIDE_NAME

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.transforms import Bbox

    from spacetravlr._types import Floats, Ints

_GAP = 0.08
_NOTE, _PROJECTED = "note", "z projected"
#: Categories beyond which a legend is longer than the plot.
_MAX_LEGEND = 40
#: Cells beyond which markers are pixels in vector graphics, whose files would be large and slow to show.
RASTERIZE_ABOVE = 5_000
#: Colour bars in inches, whatever the shape of the tissue: width, gap, smallest height; and their part of its height.
_BAR_WIDTH, _BAR_GAP, _BAR_LEAST, _BAR_PART = 0.11, 0.09, 1.0, 0.7


class Layout(NamedTuple):
    """Where the cells are drawn."""

    xy: Floats
    """Shown cells x 2, micrometres where the unit is known."""
    rows: Ints
    """The cells shown."""
    labels: list[tuple[float, float, str]]
    """Name of each slide and where to write it; empty for one slide."""
    unit: str
    """ "µm", or "" when nobody said what a coordinate unit is."""
    slides: Ints | None = None
    """Slide of each shown cell; ``None`` for one slide."""
    projected: bool = False
    """Whether a third coordinate is not seen."""

    @property
    def spacing(self) -> float:
        """Typical distance between neighbouring cells; of cells in a line, along it; 1 where all are in one place."""
        extent = np.ptp(self.xy, axis=0)
        n = max(len(self.xy), 1)
        return float(max(np.sqrt(extent.prod() / n), extent.max() / n)) or 1.0

    @property
    def panel(self) -> tuple[float, float]:
        """Width and height of a panel in inches that suits the shape of the tissue and leaves room for a colour bar."""
        width, height = np.maximum(np.ptp(self.xy, axis=0), self.spacing)
        shape = float(width / height)
        if shape < 0.4:  # a narrow strip is drawn taller than others, or nothing would be seen across
            tall = 3.2 * min(np.sqrt(0.4 / shape), 1.5)
            return max(tall * shape, 1.0), tall
        if shape < 1.4:
            return 3.2 * shape, 3.2
        wide = min(4.5 * np.sqrt(shape / 1.4), 8.0)
        return wide, max(wide / shape, 1.7)


def tissue_layout(
    adata: AnnData, *, spatial_key: str | None = None, library_key: str | None = None, library_id: str | None = None
) -> Layout:
    """Place cells for drawing; keys not given are those of ``pp.spatial_weights``.

    Tissue in three dimensions is seen from above. Slides are set side by side, because their coordinates overlap.
    """
    params = adata.uns.get(_keys.SPATIAL_WEIGHTS, {})
    spatial_key = spatial_key or str(params.get("spatial_key", _keys.SPATIAL))
    library_key = library_key or str(params.get("library_key", "")) or None
    coordinates = get_coordinates(adata, spatial_key) * float(params.get("microns_per_unit", 1.0))
    xy, projected = coordinates[:, :2], coordinates.shape[1] == 3 and np.ptp(coordinates[:, 2]) > 0
    unit = "µm" if params else ""
    rows = np.arange(adata.n_obs)
    if library_key is None:
        return Layout(xy, rows, [], unit, projected=projected)
    codes, names = category_codes(adata, library_key, name="library_key")
    if library_id is not None:
        assert_one_of(library_id, names, name="library_id")
        rows = np.flatnonzero(codes == names.index(library_id))
        return Layout(xy[rows], rows, [], unit, projected=projected)
    xy, left, labels = xy.copy(), 0.0, []
    for code, name in enumerate(names):
        here = codes == code
        low, width = xy[here].min(axis=0), np.ptp(xy[here], axis=0)
        xy[here] += [left - low[0], -low[1]]
        labels.append((left + width[0] / 2, 0.0, name))
        left += width[0] * (1 + _GAP) + 1e-9
    if len(names) == 1:
        return Layout(xy, rows, [], unit, projected=projected)
    return Layout(xy, rows, labels, unit, slides=codes, projected=projected)


def draw_values(
    values: Floats,
    ax: Axes,
    *,
    layout: Layout,
    label: str,
    cmap: str,
    norm: Normalize | None = None,
    size: float | None = None,
    background: str | None = None,
    alpha: float = 1.0,
) -> None:
    """Draw one number per cell, with a colour bar that says what it is; NaN is drawn in the colour ``background``."""
    shown = np.asarray(values, dtype=float)[layout.rows]
    size = size or _marker_size(layout, ax)
    if background is not None:
        ax.scatter(layout.xy[:, 0], layout.xy[:, 1], s=size, c=background, marker=".", lw=0, alpha=0.5, rasterized=True)
    # cells with the largest values on top
    order = np.argsort(np.nan_to_num(np.abs(shown)), kind="stable")
    _scatter(layout, {"value": shown}, ax, order=order, cmap=cmap, norm=norm, size=size, alpha=alpha, colorbar=False)
    value_bar(ax.collections[-1], ax, label)


def value_bar(drawn: ScalarMappable, ax: Axes, label: str) -> None:
    """Colour bar right of the axes, as wide on every tissue; pointed where values lie beyond its ends."""
    inset = ax.inset_axes((1.02, 0.15, 0.035, 0.7))
    inset.set_axes_locator(partial(_beside, ax))
    values: Floats = np.ma.masked_invalid(np.ma.asarray(drawn.get_array())).compressed()
    low, high = drawn.get_clim()
    beyond = (values.size > 0 and values.min() < low, values.size > 0 and values.max() > high)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    bar = ax.figure.colorbar(drawn, cax=inset, extend=extend, extendfrac=0.06)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)


def _beside(ax: Axes, inset: Axes, renderer: Any) -> Bbox:
    """Where the colour bar of ``ax`` is, as part of the figure: right of its middle, of a size in inches."""
    from matplotlib.transforms import Bbox

    figure = ax.get_figure(root=False)
    inch, box = ax.get_figure(root=True).dpi, ax.get_window_extent(renderer)  # type: ignore[union-attr]
    height = max(_BAR_PART * box.height, min(_BAR_LEAST * inch, 2.5 * box.height))
    place = Bbox.from_bounds(
        box.x1 + _BAR_GAP * inch, box.y0 + (box.height - height) / 2, _BAR_WIDTH * inch, height
    )  # fmt: skip
    return place.transformed(figure.transSubfigure.inverted())  # type: ignore[union-attr]


def draw_cells(
    adata: AnnData,
    color: str | None,
    ax: Axes,
    *,
    layout: Layout,
    layer: str | None = None,
    size: float | None = None,
    alpha: float = 1.0,
) -> None:
    """Draw the cells by a column of ``obs``, groups or numbers, or by the expression of a gene; ``None`` is grey.

    Raises
    ------
    KeyError
        When ``color`` is neither a column of ``obs`` nor a gene.
    """
    if color is None:
        values = np.zeros(adata.n_obs)
        _scatter(layout, {"cells": pd.Categorical(values[layout.rows])}, ax, palette=_palette([GREY]), size=size,
                 alpha=alpha, legend_loc=None)  # fmt: skip
        return
    if color in adata.obs:
        column = adata.obs[color]
        if color == cluster_key_of(adata) or not _is_number(column):
            draw_groups(adata, color, ax, layout=layout, size=size, alpha=alpha)
            return
        values = column.to_numpy(dtype=float, na_value=np.nan)
    else:
        known = [*map(str, adata.obs.columns), *map(str, adata.var_names)]
        assert_genes([color], known, name="color", where="adata.obs or adata.var_names")
        values = get_expression(adata, [color], layer=layer, check=False)[:, 0]
    draw_values(values, ax, layout=layout, label=color, cmap=SEQUENTIAL, size=size, alpha=alpha, background=GREY)


def draw_groups(
    adata: AnnData, key: str, ax: Axes, *, layout: Layout, size: float | None = None, alpha: float = 1.0
) -> None:
    """Draw the category of each cell, with a legend; cells without one are grey."""
    colors = group_colors(adata, key)
    labels = pd.Categorical(adata.obs[key])
    labels = labels.rename_categories([str(c) for c in labels.categories])[layout.rows].remove_unused_categories()
    palette: list[Any] = [colors[c] for c in labels.categories]
    if labels.isna().any():
        name = next(n for n in ("none", "(none)", "((none))") if n not in colors)
        labels = pd.Categorical(labels.add_categories(name).fillna(name))
        palette.append(GREY)
    legend = "right margin" if len(palette) <= _MAX_LEGEND else None
    _scatter(
        layout,
        {key: labels},
        ax,
        palette=_palette(palette),
        size=size,
        alpha=alpha,
        legend_loc=legend,
        legend_fontsize=8,
    )


def _palette(colors: list[Any]) -> ListedColormap:
    from matplotlib.colors import ListedColormap

    return ListedColormap(colors)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _scatter(layout: Layout, values: dict[str, Any], ax: Axes, *, order: Ints | None = None, **options: Any) -> None:
    import squidpy as sq
    from anndata import AnnData

    order = np.arange(len(layout.rows)) if order is None else order
    obs = pd.DataFrame(values, index=layout.rows.astype(str)).iloc[order]
    cells = AnnData(obs=obs, obsm={_keys.SPATIAL: layout.xy[order]})
    size = options.pop("size", None) or _marker_size(layout, ax)
    # squidpy's own: a colour map beside colours that need none, and calls that matplotlib will retire
    with warnings.catch_warnings(action="ignore"):
        sq.pl.spatial_scatter(
            cells,
            shape=None,
            color=next(iter(values)),
            ax=ax,
            size=size,
            library_id="tissue",
            title="",
            frameon=False,
            **options,
        )
    if len(order) > RASTERIZE_ABOVE:
        ax.collections[-1].set_rasterized(True)
    ax.set_title("")
    _widen(layout, ax)
    for x, y, name in layout.labels:
        ax.annotate(
            name, (x, y), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=9,
            gid=SLIDE_NAME,
        )  # fmt: skip
    if layout.unit:
        _scale_bar(layout, ax)
    if layout.projected and not any(text.get_text() == _PROJECTED for text in ax.texts):
        note(ax, _PROJECTED)


def _widen(layout: Layout, ax: Axes) -> None:
    """Give cells in a line some room beside it, or the panel would be as thin as the line."""
    low, high = layout.xy.min(axis=0), layout.xy.max(axis=0)
    buffer = 0.1 * float((high - low).max())
    for axis, bounds in zip("xy", zip(low, high, strict=True), strict=True):
        if bounds[1] - bounds[0] < 0.2 * buffer:
            limits = (bounds[0] - buffer, bounds[1] + buffer)
            ax.set(**{f"{axis}lim": limits if axis == "x" else limits[::-1]})


def _marker_size(layout: Layout, ax: Axes) -> float:
    """Area in points^2 so that neighbouring markers just touch, at the present size of the axes."""
    extent = np.maximum(np.ptp(layout.xy, axis=0), layout.spacing)
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    points_per_unit = 72 * 0.75 * min(box.width / extent[0], box.height / extent[1])
    # the marker "." is a disc of half the nominal width
    return float(np.clip((2.0 * layout.spacing * points_per_unit) ** 2, 0.5, 600))


def _scale_bar(layout: Layout, ax: Axes) -> None:
    """Bar of a round length under the lower left corner, in micrometres; none where all cells are in one place."""
    extent = np.ptp(layout.xy, axis=0)
    if extent.max() == 0:
        return
    wide = float(max(extent[0] / 4, extent.max() / 12))
    power = 10.0 ** np.floor(np.log10(wide))
    length = power * max(step for step in (1, 2, 5) if step * power <= wide or step == 1)
    left, low = layout.xy[:, 0].min(), layout.xy[:, 1].max()
    y = low + max(0.04 * float(extent[1]), layout.spacing)
    ax.plot([left, left + length], [y, y], color="black", lw=2, solid_capstyle="butt", clip_on=False)
    ax.annotate(
        f"{length:g} {layout.unit}", (left + length / 2, y), xytext=(0, -3), textcoords="offset points",
        ha="center", va="top", fontsize=8,
    )  # fmt: skip


def note(ax: Axes, text: str) -> None:
    """Write under the lower right corner, below what was written there before."""
    ax.annotate(
        text, (1, 0), xycoords="axes fraction", xytext=(0, -4 - 10 * n_notes(ax)), textcoords="offset points",
        ha="right", va="top", fontsize=8, color="0.35", gid=_NOTE,
    )  # fmt: skip


def n_notes(ax: Axes) -> int:
    """Lines that :func:`note` wrote."""
    return sum(artist.get_gid() == _NOTE for artist in ax.texts)
