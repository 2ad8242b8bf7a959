"""Which received signals act on which targets, as dots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._term_names import signal_label
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_positive
from spacetravlr.pl._colors import DIVERGING, GREY, centred
from spacetravlr.pl._figure import finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn

_SMALLEST, _LARGEST = 6.0, 180.0  # areas of dots in points squared


@document
def signals(
    adata: AnnData | SpatialData,
    target: str | Sequence[str] | None = None,
    *,
    fdr: float = 0.1,
    n_top: int = 30,
    signals_key: str = _keys.SIGNALS_TEST,
    cmap: str = DIVERGING,
    limit: float | str | None = None,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw signals by targets: how much each adds, in which direction, and which are significant.

    The area of a dot is the gain on held-out blocks (a point where there is none), its colour the effect, and a black
    ring marks q-values of at most ``fdr``. Signals are grouped by pathway where the pairs have one.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.test_signals`, or SpatialData.
    target
        Targets shown; by default the ``n_top`` with the smallest p-values.
    fdr
        Largest q-value with a ring.
    n_top
        Signals shown, those with the smallest p-values, and targets where none are named.
    %(signals_key)s
    %(cmap)s
    %(limit)s
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
        When there are no tests, or none of ``target``.
    ValueError
        When ``fdr`` or ``n_top`` is out of range.
    """
    assert_in_range(fdr, 0, 1, name="fdr")
    assert_positive(n_top, name="n_top")
    table = get.signals(adata, target, signals_key=signals_key, table_key=table_key)  # by p-value
    columns = list(dict.fromkeys(table["target"]))[: None if target is not None else int(n_top)]
    table = table[table["target"].isin(columns)]
    rows = _by_pathway(table, list(dict.fromkeys(table["signal"]))[: int(n_top)])
    columns = sorted(columns)
    table = table[table["signal"].isin(rows["signal"])]
    names = list(rows["signal"])

    ax = new_axes(ax, figsize, (2.8 + 0.32 * len(columns), 1.9 + 0.24 * len(rows)))
    gain = np.maximum(table["gain"].to_numpy(float), 0.0)
    most = gain.max(initial=0.0) or 1.0
    called = table["q"].to_numpy(float) <= fdr
    dots = ax.scatter(
        [columns.index(name) for name in table["target"]], [names.index(name) for name in table["signal"]],
        s=_SMALLEST + (_LARGEST - _SMALLEST) * gain / most, c=table["effect"], cmap=cmap,
        norm=centred(table["effect"].to_numpy(float), limit), edgecolors=["black" if c else GREY for c in called],
        linewidths=[1.6 if c else 0.4 for c in called],
    )  # fmt: skip
    ax.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize=8)
    ax.set_yticks(np.arange(len(names)), [signal_label(name) for name in names], fontsize=8)
    ax.set_xlim(-0.7, len(columns) - 0.3)
    ax.set_ylim(len(names) - 0.3, -0.7)
    _mark_pathways(ax, list(rows["pathway"]))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(dots, ax=ax, shrink=0.5, pad=0.02)
    bar.set_label("effect (SD of the target per SD of the signal)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    _legend(ax, most, fdr, n_called=int(called.sum()))
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _by_pathway(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Signals of ``names`` with their pathways, those of one pathway together."""
    found = table.drop_duplicates("signal").set_index("signal").loc[names, ["pathway"]].reset_index()
    return found.sort_values(["pathway", "signal"], kind="stable")


def _mark_pathways(ax: Axes, pathways: list[str]) -> None:
    """Lines between groups, and their names on the right."""
    ends = [i + 1 for i in range(len(pathways)) if i + 1 == len(pathways) or pathways[i + 1] != pathways[i]]
    start = 0
    for end in ends:
        if pathways[start]:
            ax.text(
                1.01, (start + end - 1) / 2, pathways[start], transform=ax.get_yaxis_transform(), fontsize=7,
                va="center", color="0.35",
            )  # fmt: skip
        if end < len(pathways):
            ax.axhline(end - 0.5, color="0.88", lw=0.6, zorder=0)
        start = end


def _legend(ax: Axes, most: float, fdr: float, *, n_called: int) -> None:
    from matplotlib.lines import Line2D

    def dot(share: float, label: str, **look: object) -> Line2D:
        area = _SMALLEST + (_LARGEST - _SMALLEST) * share
        return Line2D([], [], ls="", marker="o", ms=np.sqrt(area), mfc="0.8", label=label, **look)  # type: ignore[arg-type]

    plain = {"mec": GREY, "mew": 0.4}
    handles = [
        dot(0.0, "gain: none", **plain),
        dot(1.0, f"{most:.2g}", **plain),
        dot(0.3, f"q ≤ {fdr:g}" if n_called else f"q ≤ {fdr:g}: none", mec="black", mew=1.6),
    ]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, fontsize=7, frameon=False,
        handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
