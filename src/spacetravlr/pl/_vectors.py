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
from spacetravlr.pl._tissue import Layout, draw_cells, tissue_layout

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Floats
    from spacetravlr.pl._figure import Drawn

Kind = Literal["quiver", "stream", "cells"]
#: Width of the average in grid steps, and how full a grid point must be to have an arrow.
_SMOOTHING, _MIN_MASS = 1.0, 0.25
#: Arrows below this share of the longest would be drawn as dots.
_SHORTEST = 0.01
_AUTO = "auto"


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
        Grid points along the longer side.
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
        _quiver(xy, arrows, 2 * layout.spacing * scale, 0.0018, ax)
        return
    grid = grid_arrows(xy, arrows, n_grid=n_grid, smoothing=_SMOOTHING, min_mass=_MIN_MASS)
    low, high = xy.min(axis=0), xy.max(axis=0)
    step = float((high - low).max()) / max(n_grid - 1, 1)
    if kind == "quiver":
        _quiver(grid.points, grid.arrows, 1.4 * step * scale, 0.0035, ax)
        return
    # stream lines need the whole grid; NaN is where they end
    index = np.round((grid.points - low) / step).astype(int)
    field = np.full((*np.maximum(index.max(axis=0) + 1, 2), 2), np.nan)
    field[index[:, 0], index[:, 1]] = grid.arrows
    field = field.transpose(1, 0, 2)
    speed = np.nan_to_num(np.linalg.norm(field, axis=-1))
    x, y = (low[d] + step * np.arange(field.shape[1 - d]) for d in (0, 1))
    width = (0.3 + 1.7 * np.clip(speed / _longest(grid.arrows), 0, 1)) * scale
    limits = ax.get_xlim(), ax.get_ylim()
    ax.streamplot(x, y, field[..., 0], field[..., 1], color="black", linewidth=width, density=1.4, zorder=3)
    ax.set(xlim=limits[0], ylim=limits[1])


def _quiver(xy: Floats, arrows: Floats, longest: float, width: float, ax: Axes) -> None:
    """Arrows in the units of the axes, the longest common ones of length ``longest``."""
    drawn = np.linalg.norm(arrows, axis=-1) > _SHORTEST * _longest(arrows)
    xy, arrows = xy[drawn], arrows[drawn]
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "color": "black", "zorder": 3, "headwidth": 4}
    ax.quiver(*xy.T, *arrows.T, scale=_longest(arrows) / longest, width=width, **options)


def _longest(arrows: Floats) -> float:
    """95th percentile of the lengths of arrows that are there, so that one does not shrink the others."""
    lengths = np.linalg.norm(arrows, axis=-1)
    lengths = lengths[lengths > 0]
    return float(np.quantile(lengths, 0.95)) if len(lengths) else 1.0
