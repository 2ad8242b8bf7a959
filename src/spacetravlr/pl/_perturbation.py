"""What a perturbation changes, and how far from the perturbed cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._perturbed import perturbed_cells
from spacetravlr._anndata._spatial import library_codes, unwrap
from spacetravlr._core.space.neighbours import distance_to_nearest
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_key, assert_one_of, assert_positive
from spacetravlr.pl._colors import DIVERGING, centred
from spacetravlr.pl._figure import as_list, clean, finish, new_axes, new_grid, set_title
from spacetravlr.pl._tissue import Layout, draw_values, note, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Bools, Floats
    from spacetravlr.pl._figure import Drawn

Kind = Literal["map", "distance"]
_N_BINS = 20
#: Cells beyond which rings would hide the map, and what is few; smallest rings of few and of more, in points squared.
_MAX_RINGS, _FEW, _LEAST_RING = 200, 20, (60.0, 14.0)
_MOST_POINTS = 1_000_000  # of the grid on which outlines are found


@document
def perturbation(
    adata: AnnData | SpatialData,
    genes: str | Sequence[str] | None = None,
    *,
    kind: Kind = "map",
    n_top: int = 6,
    max_distance: float | None = None,
    perturbed_key: str = _keys.PERTURBED,
    library_key: str | None = None,
    library_id: str | None = None,
    limit: float | str | None = None,
    cmap: str = DIVERGING,
    size: float | None = None,
    ncols: int = 3,
    table_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the change of expression that a perturbation causes.

    ``kind="map"``: one map per gene, red is up and blue is down; when only some cells were perturbed, they are
    outlined: up to 200 by rings that are seen from afar, more by a line around the area in which they are the nearest
    cells.
    ``kind="distance"``: mean change against the distance to the nearest perturbed cell, one line per gene, with the
    interquartile range shaded; the perturbed cells themselves are at zero.

    Parameters
    ----------
    %(adata_perturbed)s
    genes
        Genes to draw; those that change most by default.
    kind
        ``"map"`` or ``"distance"``.
    n_top
        How many genes when none is named.
    max_distance
        Largest distance drawn, in micrometres.
    %(perturbed_key)s
    %(library_key)s
    %(library_id)s
    %(limit)s
    %(cmap)s
    %(size)s
    %(ncols)s
    %(table_key)s
    %(ax_panels)s
    %(figsize)s
    %(title)s
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes (a list for several maps), or the figure.

    Raises
    ------
    KeyError
        When there is no perturbation, or no such gene.
    ValueError
        When nothing changed, or distances are asked for and every cell was perturbed.
    """
    assert_one_of(kind, get_args(Kind), name="kind")
    assert_positive(n_top, name="n_top")
    adata = unwrap(adata, table_key)
    hint = 'Call `st.tl.perturb(adata, "FOXO1")` first.'
    assert_key(adata, "uns", perturbed_key, name="perturbed_key", hint=hint)
    assert_key(adata, "layers", perturbed_key, name="perturbed_key", hint=hint)
    names = _chosen(adata, genes, n_top, perturbed_key)
    stored = adata.uns[perturbed_key]
    before = get_expression(adata, names, layer=str(stored["layer"]) or None, check=False)
    change = get_expression(adata, names, layer=perturbed_key, check=False) - before
    cells = perturbed_cells(adata, perturbed_key)
    label = str(stored.get("label", ", ".join(map(str, np.atleast_1d(stored["genes"])))))
    layout = tissue_layout(adata, library_key=library_key, library_id=library_id)
    if kind == "distance":
        if cells.all():
            msg = (
                "Expected a perturbation of some cells for `kind='distance'`, found that all cells were perturbed; "
                "call `st.tl.perturb(adata, ..., cells=...)`."
            )
            raise ValueError(msg)
        single = new_axes(ax, figsize, (5.0, 3.6))  # type: ignore[arg-type]
        key = library_key or str(adata.uns.get(_keys.SPATIAL_WEIGHTS, {}).get("library_key", ""))
        _by_distance(change[layout.rows], names, _distance(adata, cells, layout, key), max_distance, single)
        set_title(single, label)
        return finish(single, title=title, return_fig=return_fig, save=save)
    axes = new_grid(ax, len(names), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
    for name, values, panel in zip(names, change.T, axes, strict=True):
        text = f"change of {name}"
        draw_values(values, panel, layout=layout, label=text, cmap=cmap, norm=centred(values, limit), size=size)
        if not cells.all():
            _outline(panel, layout, cells[layout.rows])
        set_title(panel, f"{label} \N{RIGHTWARDS ARROW} {name}")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _outline(ax: Axes, layout: Layout, inside: Bools) -> None:
    """Mark cells on a map: few by rings of a least size, many by a line around the areas that they fill."""
    n = int(inside.sum())
    if n == 0:
        note(ax, "no perturbed cell here")
    elif n <= _MAX_RINGS:
        # the marker "." is half as wide as "o"
        area = float(ax.collections[-1].get_sizes()[0]) / 4  # type: ignore[attr-defined]
        ring = 1.25 * max(1.5 * area, _LEAST_RING[n > _FEW])
        for color, width in (("white", 2.4), ("black", 1.0)):
            ax.scatter(layout.xy[inside, 0], layout.xy[inside, 1], s=ring, facecolor="none", edgecolor=color, lw=width)
        note(ax, f"ringed: perturbed ({n} cell{'s' * (n > 1)})")
    else:
        x, y, nearest = _areas(layout, inside)
        limits = ax.get_xlim(), ax.get_ylim()
        for color, width in (("white", 2.4), ("black", 1.0)):
            ax.contour(x, y, nearest, [0.5], colors=color, linewidths=width, zorder=2)
        ax.set(xlim=limits[0], ylim=limits[1])
        note(ax, f"outlined: perturbed ({n:,} cells)")


def _areas(layout: Layout, inside: Bools) -> tuple[Floats, Floats, Floats]:
    """Grid over the tissue: one where the nearest cell is one of ``inside`` and not far, else zero."""
    from scipy.spatial import cKDTree

    low, high = layout.xy.min(axis=0) - 3 * layout.spacing, layout.xy.max(axis=0) + 3 * layout.spacing
    step = max(layout.spacing / 3, float(np.sqrt((high - low).prod() / _MOST_POINTS)))
    x, y = (np.arange(low[d], high[d] + step, step) for d in (0, 1))
    points = np.stack([m.ravel() for m in np.meshgrid(x, y)], axis=1)
    distance, cell = cKDTree(layout.xy).query(points, distance_upper_bound=2 * layout.spacing)
    nearest = np.isfinite(distance) & np.append(inside, False)[cell]
    return x, y, nearest.reshape(len(y), len(x)).astype(float)


def _chosen(adata: AnnData, genes: str | Sequence[str] | None, n_top: int, perturbed_key: str) -> list[str]:
    if genes is not None:
        names = as_list(genes)
        assert_genes(names, adata.var_names, name="genes")
        return names
    effect = get.perturbation_effect(adata, groupby=None, perturbed_key=perturbed_key)
    effect = effect[~effect["perturbed"]].sort_values("mean_abs_change", ascending=False, kind="stable")
    if effect.empty:
        msg = "Expected the perturbation to change a gene, found no change; pass `genes` to draw it nevertheless."
        raise ValueError(msg)
    return [str(g) for g in effect["gene"].head(n_top)]


def _distance(adata: AnnData, cells: Bools, layout: Layout, library_key: str) -> Floats:
    """Distance of every shown cell to the nearest perturbed one on its slide, micrometres."""
    codes = library_codes(adata, library_key or None)
    slides = None if codes is None else codes[layout.rows]
    return distance_to_nearest(layout.xy, cells[layout.rows], groups=slides)


def _by_distance(change: Floats, names: list[str], distance: Floats, max_distance: float | None, ax: Axes) -> None:
    finite = distance[np.isfinite(distance)]
    reach = max_distance or (float(np.quantile(finite, 0.99)) if finite.size else 0.0)
    outside = (distance > 0) & (distance <= reach)
    if not outside.any():
        msg = "Expected cells at some distance from the perturbed ones for `kind='distance'`, found none."
        raise ValueError(msg)
    n_bins = int(np.clip(outside.sum() // 15, 3, _N_BINS))
    edges = np.unique(np.quantile(distance[outside], np.linspace(0, 1, n_bins + 1)))
    which = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, len(edges) - 2)
    members = [np.flatnonzero(distance == 0), *(np.flatnonzero(outside & (which == b)) for b in range(len(edges) - 1))]
    members = [m for m in members if len(m)]
    x = np.array([distance[m].mean() for m in members])
    for name, values in zip(names, change.T, strict=True):
        low, high = np.array([np.quantile(values[m], (0.25, 0.75)) for m in members]).T
        (line,) = ax.plot(x, [values[m].mean() for m in members], marker="o", ms=3, lw=1.5, label=name)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="distance to the nearest perturbed cell (µm)", ylabel="mean change of expression")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    clean(ax)
