"""Where a perturbation would move cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._core.transitions import grid_arrows
from spacetravlr._docs import document
from spacetravlr._validators import assert_key, assert_one_of, assert_positive
from spacetravlr.pl._figure import finish, new_axes, set_title
from spacetravlr.pl._tissue import RASTERIZE_ABOVE, Layout, draw_cells, n_notes, tissue_layout

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Floats
    from spacetravlr.pl._figure import Drawn

Kind = Literal["quiver", "stream", "cells"]
#: Width of the average in grid steps, and how full a grid point must be to have an arrow: part of what is typical.
_SMOOTHING, _MIN_MASS = 1.0, 0.25
#: Grid points further from every cell than this many steps are outside the tissue.
_OUTSIDE = 0.5
#: Arrows below this share of the longest would be drawn as dots.
_SHORTEST = 0.05
_AUTO = "auto"
#: What the key of the arrows is marked with.
KEY = "arrow length"


@document
def perturbation_vectors(
    adata: AnnData | SpatialData,
    basis: str = "spatial",
    *,
    color: str | None = _AUTO,
    kind: Kind = "quiver",
    n_grid: int = 20,
    scale: float = 1.0,
    alpha: float = 0.45,
    perturbed_key: str = _keys.PERTURBED,
    library_key: str | None = None,
    library_id: str | None = None,
    size: float | None = None,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the vector field of a perturbation over the cells; where nothing changed there are no arrows.

    An arrow is the sum of unit vectors towards neighbouring cells, weighted by how much likelier than by chance the
    change of a cell resembles them; one is the largest length, and the key tells what is drawn. Averages on the grid
    are of one slide each; there are none outside the tissue, nor where few cells are.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.perturbation_vectors` with the same ``basis``, or SpatialData.
    basis
        ``"spatial"``, or an embedding such as ``"umap"``.
    color
        What colours the cells: a column of ``adata.obs``, groups or numbers, or a gene; ``"auto"`` is the cell types of
        the fit, ``None`` is grey.
    kind
        ``"quiver"`` averages the arrows on a grid, ``"stream"`` draws stream lines through it, ``"cells"`` draws the
        arrow of each cell.
    n_grid
        Grid points along the longer side of a slide; more on narrow tissue, so that there are some across.
    scale
        Multiplies the length of arrows (the width of stream lines).
    alpha
        Opacity of the cells.
    %(perturbed_key)s
    %(library_key)s
    %(library_id)s
    %(size)s
    %(table_key)s
    %(ax)s
    %(figsize)s
    title
        Title; what was perturbed by default.
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError
        When there are no arrows on this basis, or ``color`` is unknown.
    ValueError
        When all cells are in one place, or stream lines are asked for of cells in a line.
    """
    assert_one_of(kind, get_args(Kind), name="kind")
    assert_positive(n_grid, name="n_grid")
    assert_positive(scale, name="scale")
    adata = unwrap(adata, table_key)
    key = _keys.vectors(perturbed_key, basis)
    assert_key(
        adata, "obsm", key, name="basis", hint=f"Call `st.tl.perturbation_vectors(adata, basis={basis!r})` first."
    )
    arrows = np.asarray(adata.obsm[key], dtype=float)[:, :2]
    layout = _layout(adata, basis, library_key, library_id)
    _assert_spread(layout, basis, kind)
    stored = adata.uns.get(perturbed_key, {})
    if color == _AUTO:
        color = cluster_key_of(adata, betas_key=str(stored.get("betas_key", _keys.BETAS)))
    ax = new_axes(ax, figsize, (layout.panel[0] * 1.3 + (1.3 if color else 0), layout.panel[1] * 1.3 + 0.4))
    layer = str(stored.get("layer", "")) or None
    draw_cells(adata, color, ax, layout=layout, layer=layer, size=size, alpha=alpha)
    if basis != _keys.SPATIAL and ax.yaxis_inverted():
        ax.invert_yaxis()
    _draw(layout, arrows[layout.rows], kind, n_grid, scale, ax)
    if title is None and "label" in stored:
        set_title(ax, str(stored["label"]))
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _assert_spread(layout: Layout, basis: str, kind: str) -> None:
    extent = np.ptp(layout.xy, axis=0)
    if not extent.any():
        msg = f"Expected the cells to be in different places on `basis={basis!r}`, found {len(layout.xy)} in one place."
        raise ValueError(msg)
    if kind == "stream" and not extent.all():
        msg = (
            f"Expected the cells to spread in two dimensions on `basis={basis!r}` for `kind='stream'`, found them in a "
            "line; pass `kind='cells'` or `kind='quiver'`."
        )
        raise ValueError(msg)


def _layout(adata: AnnData, basis: str, library_key: str | None, library_id: str | None) -> Layout:
    if basis == _keys.SPATIAL:
        return tissue_layout(adata, library_key=library_key, library_id=library_id)
    key = basis if basis in adata.obsm else f"X_{basis}"
    assert_key(adata, "obsm", key, name="basis", hint="Call `sc.tl.umap(adata)` first, or pass another `basis`.")
    return Layout(np.asarray(adata.obsm[key], dtype=float)[:, :2], np.arange(adata.n_obs), [], "")


def _draw(layout: Layout, arrows: Floats, kind: str, n_grid: int, scale: float, ax: Axes) -> None:
    xy = layout.xy
    if not arrows.any():  # nothing changed, so there is nothing to draw
        return
    if kind == "cells":
        _quiver(xy, arrows, 2 * layout.spacing * scale, 0.007, ax)
        return
    slides = np.zeros(len(xy), dtype=int) if layout.slides is None else layout.slides
    parts = [np.flatnonzero(slides == code) for code in np.unique(slides)]
    step = _step(np.array([np.ptp(xy[p], axis=0) for p in parts]), n_grid)
    grids = [_grid(xy[p], arrows[p], step) for p in parts]
    if kind == "quiver":
        points, mean = (np.concatenate([grid[i] for grid in grids]) for i in (0, 1))
        _quiver(points, mean, 1.4 * step * scale, 0.014, ax)
        return
    longest, total = _longest(np.concatenate([grid[1] for grid in grids])), float(np.ptp(xy, axis=0).max())
    limits = ax.get_xlim(), ax.get_ylim()
    for p, (points, mean) in zip(parts, grids, strict=True):
        if mean.any():
            density = 1.4 * max(float(np.ptp(xy[p], axis=0).max()) / total, 0.4)
            _streams(xy[p], points, mean, step, longest, density, scale, ax)
    ax.set(xlim=limits[0], ylim=limits[1])


def _step(extents: Floats, n_grid: int) -> float:
    """Distance of grid points, for the longest slide; at least four points across where that is not too many."""
    longer = float(extents.max())
    step = longer / max(n_grid - 1, 1)
    across = float(extents.min(axis=1).max()) / 3
    return max(min(step, across), step / 5) if across > 0 else step


def _grid(xy: Floats, arrows: Floats, step: float) -> tuple[Floats, Floats]:
    """Points within the tissue of one slide, ``step`` apart, and the mean arrow at each."""
    from scipy.spatial import cKDTree

    extent = float(np.ptp(xy, axis=0).max())
    if extent == 0:
        return np.empty((0, 2)), np.empty((0, 2))
    grid = grid_arrows(xy, arrows, n_grid=max(round(extent / step) + 1, 2), smoothing=_SMOOTHING, min_mass=0.0)
    near = cKDTree(xy).query(grid.points)[0] <= _OUTSIDE * step
    # of typical points: a dense clump must not take the arrows of the rest
    full = grid.mass >= _MIN_MASS * (np.median(grid.mass[near]) if near.any() else 0.0)
    return grid.points[near & full], grid.arrows[near & full]


def _streams(
    xy: Floats, points: Floats, mean: Floats, step: float, longest: float, density: float, scale: float, ax: Axes
) -> None:
    """Stream lines through the averages of one slide; they need the whole grid, and end where it is NaN."""
    low, extent = xy.min(axis=0), float(np.ptp(xy, axis=0).max())
    step = extent / (max(round(extent / step) + 1, 2) - 1)
    index = np.round((points - low) / step).astype(int)
    shape = np.maximum(np.round(np.ptp(xy, axis=0) / step).astype(int) + 1, np.maximum(index.max(axis=0) + 1, 2))
    field = np.full((*shape, 2), np.nan)
    field[index[:, 0], index[:, 1]] = mean
    field = field.transpose(1, 0, 2)
    speed = np.nan_to_num(np.linalg.norm(field, axis=-1))
    x, y = (low[d] + step * np.arange(field.shape[1 - d]) for d in (0, 1))
    width = (0.3 + 1.7 * np.clip(speed / longest, 0, 1)) * scale
    ax.streamplot(x, y, field[..., 0], field[..., 1], color="black", linewidth=width, density=density, zorder=3)


def _quiver(xy: Floats, arrows: Floats, longest: float, width: float, ax: Axes) -> None:
    """Arrows in the units of the axes, the longest common ones of length ``longest``."""
    drawn = np.linalg.norm(arrows, axis=-1) > _SHORTEST * _longest(arrows)
    xy, arrows = xy[drawn], arrows[drawn]
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "color": "black", "zorder": 3, "headwidth": 4}
    options["units"] = "inches"
    common = _longest(arrows)
    options |= {"scale": common / longest, "width": width}
    _key(float(f"{common:.1g}"), longest / common, options, ax)
    ax.quiver(*xy.T, *arrows.T, rasterized=len(xy) > RASTERIZE_ABOVE, **options)


def _key(length: float, unit: float, options: dict[str, Any], ax: Axes) -> None:
    """An arrow of a round length under the lower right corner; ``unit`` is what length one is drawn as."""
    low, high = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    bottom = high[1] if ax.yaxis_inverted() else high[0]
    down = 0.03 * (1 + 1.5 * n_notes(ax)) * (high[1] - high[0])
    y, right = bottom + (down if ax.yaxis_inverted() else -down), low[1]
    limits = ax.get_xlim(), ax.get_ylim()
    ax.quiver([right - length * unit], [y], [length], [0.0], clip_on=False, gid=KEY, **options)
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.annotate(
        f"arrow length {length:g}", (right - length * unit, y), xytext=(-4, 0), textcoords="offset points", ha="right",
        va="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip


def _longest(arrows: Floats) -> float:
    """95th percentile of the lengths of arrows that are there, so that one does not shrink the others."""
    lengths = np.linalg.norm(arrows, axis=-1)
    lengths = lengths[lengths > 0]
    return float(np.quantile(lengths, 0.95)) if len(lengths) else 1.0
