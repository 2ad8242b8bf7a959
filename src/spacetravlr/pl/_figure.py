"""What every plot does first and last: find its axes, name them, save and hand back."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    Drawn: TypeAlias = Axes | list[Axes] | Figure | SubFigure


#: What names of slides are marked with, so that titles keep clear of them.
SLIDE_NAME = "slide"
#: And unseen text that keeps the room of a title.
TITLE_ROOM = "title"
_LETTER = 0.58  # mean width of a letter, in font sizes


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
            first.set_title(title, pad=_pad(first))
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
    """Write a title over one panel: in several lines where it is longer than the panel, smaller where a word is."""
    slot = ax.get_subplotspec()
    part = 1.2 * ax.get_position().width if slot is None else len(slot.colspan) / slot.get_gridspec().ncols
    points = 0.8 * 72 * part * ax.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]
    lines = fill(text, max(10, int(points / (_LETTER * fontsize))), break_long_words=False)
    longest = max(len(line) for line in lines.splitlines() or [""])
    size = float(np.clip(points / (_LETTER * max(longest, 1)), 7.0, fontsize))
    ax.set_title(lines, fontsize=size, pad=_pad(ax))
    if slot is not None and slot.get_gridspec().ncols > 1:
        # layouts leave no room for titles wider than their panel, but for other text: as wide, and not seen
        ax.annotate(
            lines, (0.5, 1), xycoords="axes fraction", ha="center", va="bottom", fontsize=size, alpha=0, gid=TITLE_ROOM
        )


def _pad(ax: Axes) -> float | None:
    """Distance of the title, larger where names of slides are below it."""
    return 18.0 if any(text.get_gid() == SLIDE_NAME for text in ax.texts) else None


def clean(ax: Axes) -> None:
    """Take away the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)
