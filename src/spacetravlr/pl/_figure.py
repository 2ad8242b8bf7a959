"""What every plot does first and last: find its axes, name them, save and hand back."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._modulators import ADJUSTMENT

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    Drawn: TypeAlias = Axes | list[Axes] | Figure | SubFigure


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


def as_list(names: Any) -> list[str]:
    """One name, several, or clusters that are numbers."""
    several = isinstance(names, Sequence | np.ndarray) and not isinstance(names, str)
    return [str(name) for name in names] if several else [str(names)]


def set_title(ax: Axes, text: str, fontsize: float = 11) -> None:
    """Write a title that may be longer than the panel is wide, in several lines if need be."""
    width = ax.get_position().width * ax.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]
    ax.set_title(fill(text, max(20, int(1.3 * 72 * width / (0.55 * fontsize)))), fontsize=fontsize)


def clean(ax: Axes) -> None:
    """Take away the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)


def term_labels(rows: Any) -> list[str]:
    """Readable names of modulators: ``FOXO1``, ``CXCL12-CXCR4``, ``CCL19 x EBF1``, ``CXCR4 (receptor)``.

    Contact pairs say so.
    """
    labels = []
    for row in rows.itertuples(index=False):
        contact = " (contact)" if row.range == _keys.CONTACT else ""
        if row.kind == "tf":
            labels.append(str(row.tf))
        elif row.kind == ADJUSTMENT:
            labels.append(f"{row.receptor} (receptor)")
        elif row.kind == "lr":
            labels.append(f"{row.ligand}\N{EN DASH}{row.receptor}{contact}")
        elif row.kind == "tfl":
            labels.append(f"{row.ligand} \N{MULTIPLICATION SIGN} {row.tf}{contact}")
        else:
            labels.append("intercept")
    return labels
