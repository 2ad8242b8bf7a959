"""Who sends what to whom, and what it does there, as a figure in layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import signal_label
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_positive
from spacetravlr.pl._colors import BLUE, GREY, KIND_COLORS, ORANGE, Rgba, group_colors
from spacetravlr.pl._figure import finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn

LAYERS = ("sender", "signal", "partner", "target")
_TITLES = {"sender": "sender", "signal": "signal", "partner": "receptor or TF", "target": "target"}
_GAP, _WIDTH = 0.025, 0.035  # between nodes, and of a node
_SIGNS = {"target goes up with the signal": ORANGE, "goes down": BLUE}
_LEAST_SHARE = 0.05  # of a signal that a type that is drawn sends


class _Link(NamedTuple):
    layer: int
    source: str
    sink: str
    size: float
    color: str | Rgba


@document
def signalling(
    adata: AnnData | SpatialData,
    target: str | Sequence[str] | None = None,
    *,
    fdr: float = 0.1,
    n_top: int = 20,
    pathway: str | Sequence[str] | None = None,
    signals_key: str = _keys.SIGNALS_TEST,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the signals that act, from the cell types that send them to the targets.

    From left to right: sending cell types (those of at least 5 % of the signal, over all cells), signals, the receptor
    or TF through which each acts, and targets. Bands towards a target are as wide as the effect is large, orange where
    the target goes up with the signal and blue where it goes down; bands from senders are shares of the signal.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.test_signals`, or SpatialData.
    target
        Targets shown; all by default.
    fdr
        Largest q-value of what is drawn. Where there is none, the figure says so.
    n_top
        Pairs of a target and a signal drawn, those with the smallest p-values.
    pathway
        Only signals of these pathways; all by default.
    %(signals_key)s
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
        When ``fdr`` or ``n_top`` is out of range, or no signal is of ``pathway``.
    """
    assert_in_range(fdr, 0, 1, name="fdr")
    assert_positive(n_top, name="n_top")
    adata = unwrap(adata, table_key)
    table = get.signals(adata, target, signals_key=signals_key)
    if pathway is not None:
        wanted = [pathway] if isinstance(pathway, str) else list(pathway)
        known = sorted(set(table["pathway"]) - {""})
        if not set(wanted) <= set(known):
            msg = f"Expected `pathway` to be among {', '.join(known) or 'none'}, found `{pathway!r}`."
            raise ValueError(msg)
        table = table[table["pathway"].isin(wanted)]
    table = table[(table["q"] <= fdr) & (table["effect"] != 0)].head(int(n_top))
    ax = new_axes(ax, figsize, (8.5, max(3.2, 1.2 + 0.27 * len(table))))
    ax.set_axis_off()
    if table.empty:
        ax.text(0.5, 0.5, f"no signal at a false discovery rate of {fdr:g}", ha="center", va="center", color="0.4",
                transform=ax.transAxes)  # fmt: skip
        return finish(ax, title=title, return_fig=return_fig, save=save)
    params = adata.uns[signals_key]["params"]
    key = cluster_key_of(adata, str(params.get("cluster_key", "")) or None)
    shares = _shares(adata, list(dict.fromkeys(table["signal"])), key, str(params["received_key"]))
    colors = group_colors(adata, key) if key is not None else {}
    links = _links(table, shares, colors)
    order = _order(table, links)
    _draw(ax, links, order, _node_colors(table, colors), dict(zip(table["signal"], table["pathway"], strict=True)))
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _shares(adata: AnnData, signals: list[str], key: str | None, received_key: str) -> pd.DataFrame:
    """Share of each signal that each type sends, over all cells; of at least ``_LEAST_SHARE``."""
    if key is None:
        return pd.DataFrame({"signal": signals, "sender": "all", "share": 1.0})
    parts = []
    for signal in signals:
        sent = get.senders(adata, signal, groupby=key, received_key=received_key, per_cell=True).sum(axis=0)
        total = float(sent.sum())
        share = sent / total if total > 0 else sent
        parts.append(pd.DataFrame({"signal": signal, "sender": share.index.astype(str), "share": share.to_numpy()}))
    found = pd.concat(parts, ignore_index=True)
    return found[found["share"] >= _LEAST_SHARE]


def _links(table: pd.DataFrame, shares: pd.DataFrame, colors: dict[str, Rgba]) -> list[_Link]:
    size = table["effect"].abs()
    sign = np.where(table["effect"] > 0, ORANGE, BLUE)
    of_signal = size.groupby(table["signal"]).sum()
    first = [
        _Link(0, row.sender, row.signal, float(row.share * of_signal[row.signal]), colors.get(row.sender, GREY))
        for row in shares.itertuples(index=False)
    ]
    partner = _partners(table)
    second = [
        _Link(1, s, p, float(w), c) for s, p, w, c in zip(table["signal"], partner, size, sign, strict=True)
    ]  # fmt: skip
    third = [_Link(2, p, t, float(w), c) for p, t, w, c in zip(partner, table["target"], size, sign, strict=True)]
    return first + second + third


def _partners(table: pd.DataFrame) -> list[str]:
    """Names of partners; a gene may be a receptor of one signal and a TF of another."""
    return [f"{p} (TF)" if kind == "tfl" else p for p, kind in zip(table["partner"], table["kind"], strict=True)]


def _order(table: pd.DataFrame, links: list[_Link]) -> dict[str, list[str]]:
    """Nodes of each layer from top to bottom: signals by pathway, the others near what they are linked to."""
    pathways = dict(zip(table["signal"], table["pathway"], strict=True))
    order = {"signal": sorted(pathways, key=lambda name: (pathways[name], name))}
    for layer, number, side in (("sender", 0, "signal"), ("partner", 1, "signal"), ("target", 2, "partner")):
        place = {name: i for i, name in enumerate(order[side])}
        sums: dict[str, list[float]] = {}
        for link in links:
            if link.layer != number:
                continue
            mine, other = (link.source, link.sink) if layer == "sender" else (link.sink, link.source)
            total = sums.setdefault(mine, [0.0, 0.0])
            total[0] += link.size * place[other]
            total[1] += link.size
        order[layer] = sorted(sums, key=lambda name: (sums[name][0] / max(sums[name][1], 1e-12), name))
    return order


def _node_colors(table: pd.DataFrame, colors: dict[str, Rgba]) -> dict[tuple[int, str], str | Rgba]:
    found: dict[tuple[int, str], str | Rgba] = {(0, name): color for name, color in colors.items()}
    for name, kind in zip(_partners(table), table["kind"], strict=True):
        found[2, name] = KIND_COLORS["tf"] if kind == "tfl" else KIND_COLORS["receptor"]
    return found


def _draw(
    ax: Axes,
    links: list[_Link],
    order: dict[str, list[str]],
    colors: dict[tuple[int, str], str | Rgba],
    pathways: dict[str, str],
) -> None:
    """Nodes as bars, links as bands between them."""
    from matplotlib.patches import Patch, Rectangle

    heights = []
    for i, layer in enumerate(LAYERS):
        into = {n: sum(k.size for k in links if k.layer == i - 1 and k.sink == n) for n in order[layer]}
        out = {n: sum(k.size for k in links if k.layer == i and k.source == n) for n in order[layer]}
        heights.append({n: max(into[n], out[n]) for n in order[layer]})
    total = max(sum(h.values()) for h in heights)
    unit = (1 - _GAP * (max(len(h) for h in heights) - 1)) / max(total, 1e-12)
    unit = max(unit, 0.3 / max(total, 1e-12))
    tops: list[dict[str, float]] = []
    for i, layer in enumerate(LAYERS):
        used = unit * sum(heights[i].values()) + _GAP * (len(order[layer]) - 1)
        y, places = 0.5 + used / 2, {}
        for name in order[layer]:
            height = unit * heights[i][name]
            places[name] = y
            color = colors.get((i, name), "0.45")
            ax.add_patch(Rectangle((i - _WIDTH, y - height), 2 * _WIDTH, height, color=color, lw=0, zorder=2))
            _label(ax, i, y - height / 2, name, pathways.get(name, "") if layer == "signal" else "")
            y -= height + _GAP
        tops.append(places)
        ax.text(i, 1.06, _TITLES[layer], ha="center", va="bottom", fontsize=9, color="0.35")
    leaving = [dict(t) for t in tops]
    arriving = [dict(t) for t in tops]
    ranks = [{name: r for r, name in enumerate(order[layer])} for layer in LAYERS]
    for link in sorted(links, key=lambda k: (k.layer, ranks[k.layer][k.source], ranks[k.layer + 1][k.sink])):
        height = unit * link.size
        start, end = leaving[link.layer][link.source], arriving[link.layer + 1][link.sink]
        leaving[link.layer][link.source] -= height
        arriving[link.layer + 1][link.sink] -= height
        draw_band(ax, link.layer + _WIDTH, link.layer + 1 - _WIDTH, start, end, height, link.color)
    handles = [Patch(color=color, alpha=0.45, lw=0, label=text) for text, color in _SIGNS.items()]
    ax.legend(handles=handles, loc="upper right", bbox_to_anchor=(1.0, 0.02), ncols=2, fontsize=7, frameon=False)
    ax.set_xlim(-0.75, len(LAYERS) - 0.3)
    ax.set_ylim(-0.04, 1.12)


def _label(ax: Axes, layer: int, y: float, name: str, pathway: str) -> None:
    ligand, _ = _keys.parse_signal(name)
    text = signal_label(name)
    text += f" · {pathway}" if pathway not in ("", ligand) else ""
    first = layer == 0
    ax.text(
        layer + (-1.6 if first else 1.6) * _WIDTH, y, text, ha="right" if first else "left", va="center", fontsize=7.5,
        linespacing=0.9, zorder=3, bbox={"facecolor": "white", "alpha": 0.65, "lw": 0, "pad": 0.6},
    )  # fmt: skip


def draw_band(ax: Axes, left: float, right: float, start: float, end: float, height: float, color: str | Rgba) -> None:
    """A band whose upper edge goes from ``start`` to ``end``."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    middle = (left + right) / 2
    corners = [
        (left, start), (middle, start), (middle, end), (right, end),
        (right, end - height), (middle, end - height), (middle, start - height), (left, start - height), (left, start),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    ax.add_patch(PathPatch(Path(corners, codes), facecolor=color, alpha=0.45, lw=0, zorder=1))
