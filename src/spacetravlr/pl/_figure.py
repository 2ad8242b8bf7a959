"""What every plot does first and last: find its axes, name them, save and hand back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spacetravlr import _keys

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure, SubFigure

    from spacetravlr._types import Floats

    Drawn: TypeAlias = Axes | list[Axes] | Figure | SubFigure

#: Diverging maps of coefficients and changes, sequential ones of what is at least zero.
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
#: Colours of the kinds of modulators, told apart by people who see colours differently too.
KIND_COLORS = {"tf": "#4477aa", "lr": "#ee7733", "tfl": "#228833"}
KIND_LABELS = {"tf": "transcription factor", "lr": "ligand-receptor pair", "tfl": "ligand-TF pair"}
GREY = "#bbbbbb"


def new_axes(ax: Axes | None, figsize: tuple[float, float] | None, default: tuple[float, float]) -> Axes:
    """Use the axes given, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize or default, layout="constrained")[1]


def new_grid(
    ax: Axes | Sequence[Axes] | None,
    n: int,
    figsize: tuple[float, float] | None,
    panel: tuple[float, float],
    ncols: int,
) -> list[Axes]:
    """Use the ``n`` axes given, or those of a new figure with panels of size ``panel``."""
    if ax is not None:
        given: list[Any] = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != n:
            msg = f"Expected `ax` to be {n} axes, one for each panel, found `{len(given)}`."
            raise ValueError(msg)
        return given
    import matplotlib.pyplot as plt

    rows = -(-n // ncols)
    columns = -(-n // rows)
    size = figsize or (panel[0] * columns, panel[1] * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    axes = list(grid.ravel())
    for extra in axes[n:]:
        figure.delaxes(extra)
    return axes[:n]


def finish(ax: Axes | list[Axes], *, title: str | None, return_fig: bool, save: str | PathLike[str] | None) -> Drawn:
    """Set the title where one is given, save, and return the axes or the figure."""
    first = ax[0] if isinstance(ax, list) else ax
    figure = first.figure
    if title is not None:
        if isinstance(ax, list) and len(ax) > 1:
            figure.suptitle(title)
        else:
            first.set_title(title)
    if save is not None:
        # a sub-figure is saved with the figure it is part of
        first.get_figure(root=True).savefig(save, dpi=200, bbox_inches="tight")  # type: ignore[union-attr]
    if return_fig:
        return figure
    return ax[0] if isinstance(ax, list) and len(ax) == 1 else ax


def clean(ax: Axes) -> None:
    """Take away the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)


def centred(values: Floats, limit: float | None = None) -> Normalize:
    """Centre a colour scale on zero; it ends at the 99th percentile, so that one cell does not blanch a map."""
    from matplotlib.colors import Normalize

    finite = np.abs(values[np.isfinite(values)])
    if limit is None:
        limit = float(np.quantile(finite, 0.99)) if finite.size else 0.0
        if limit == 0.0 and finite.size:
            limit = float(finite.max())
    limit = limit if limit > 0 else 1.0
    return Normalize(-limit, limit)


def group_colors(adata: AnnData, key: str) -> dict[str, Any]:
    """Colour of each category: ``uns["{key}_colors"]`` where it fits, else scanpy's defaults; nothing is written."""
    categories = [str(c) for c in adata.obs[key].astype("category").cat.categories]
    stored = adata.uns.get(f"{key}_colors")
    if stored is not None and len(stored) >= len(categories):
        return dict(zip(categories, map(str, stored), strict=False))
    from scanpy.plotting import palettes

    pool = palettes.default_20 if len(categories) <= 20 else palettes.default_102
    return {c: pool[i % len(pool)] for i, c in enumerate(categories)}


def term_labels(rows: Any) -> list[str]:
    """Readable names of modulators: ``FOXO1``, ``CXCL12-CXCR4``, ``CCL19 x EBF1``; contact pairs say so."""
    labels = []
    for row in rows.itertuples(index=False):
        contact = " (contact)" if row.range == _keys.CONTACT else ""
        if row.kind == "tf":
            labels.append(str(row.tf))
        elif row.kind == "lr":
            labels.append(f"{row.ligand}\N{EN DASH}{row.receptor}{contact}")
        elif row.kind == "tfl":
            labels.append(f"{row.ligand} \N{MULTIPLICATION SIGN} {row.tf}{contact}")
        else:
            labels.append("intercept")
    return labels
