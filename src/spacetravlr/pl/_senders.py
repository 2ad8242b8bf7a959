"""Which cell types send one signal to which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._received import read_received
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import find_signals, signal_label
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_one_of
from spacetravlr.pl._colors import GREY, Rgba, group_colors
from spacetravlr.pl._figure import finish, new_axes, set_title
from spacetravlr.pl._signalling import draw_band

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.models.perturb._cells import CellsLike
    from spacetravlr.pl._figure import Drawn

Per = Literal["type", "cell"]
_GAP, _WIDTH = 0.03, 0.04  # between types, and of their bars
_ROOM = 0.03  # for the name of a type, however little it sends


@document
def senders(
    adata: AnnData | SpatialData,
    signal: str,
    *,
    per: Per = "type",
    receivers: CellsLike = None,
    groupby: str | None = None,
    min_share: float = 0.0,
    received_key: str = _keys.RECEIVED,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw from which cell types a received signal comes, and which receive it.

    Bands go from senders on the left to receivers on the right, in the colour of the sender. They are as wide as the
    amount of ligand that arrives, by the weights of ``pp.received_ligands``. That is where ligand could reach, not
    whether it acts: for that see :func:`spacetravlr.tl.test_signals`.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.received_ligands`, or SpatialData.
    signal
        A received signal: a ligand, or ``"<ligand> (contact)"`` for one of contact.
    per
        ``"type"`` draws all that the cells of a type receive together, so that bars of both sides add up to the same;
        ``"cell"`` the mean of a receiving cell, so that common types do not look like better receivers.
    receivers
        Cells that receive: a mask, names, positions, or a comparison on ``adata.obs``; all by default.
    groupby
        Column of ``adata.obs`` with the groups; the cell types of the fit by default.
    min_share
        Bands below this part of what a receiver gets are left out.
    received_key
        Key of the received ligands.
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
        When the signal was not received, or ``groupby`` does not exist.
    ValueError
        When ``per`` or ``min_share`` is out of range, no cell receives, or there are no groups.

    See Also
    --------
    spacetravlr.get.senders, which has the numbers

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, rng=0)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, st.datasets.simulated_priors(adata).ligand_receptor, layer="log1p")
    >>> ax = st.pl.senders(adata, "CXCL12")
    """
    assert_one_of(per, get_args(Per), name="per")
    assert_in_range(min_share, 0, 1, name="min_share")
    adata = unwrap(adata, table_key)
    state = read_received(adata, received_key)
    known = [*state.lr.columns, *state.tfl.columns]
    (signal,) = find_signals([signal], known, name="signal", where=f"adata.uns[{received_key!r}]")
    table = get.senders(adata, signal, receivers=receivers, groupby=groupby, received_key=received_key)
    table["size"] = table["amount"] * (table["n_receivers"] if per == "type" else 1.0)
    total = float(table["size"].sum())
    ax = new_axes(ax, figsize, (5.0, 3.6))
    ax.set_axis_off()
    ligand, signal_range = _keys.parse_signal(signal)
    set_title(ax, f"{ligand} ({signal_range}), {_WHAT[per]}")
    if total <= 0:
        ax.text(0.5, 0.5, f"no {signal_label(signal)} arrives", ha="center", va="center", color="0.4",
                transform=ax.transAxes)  # fmt: skip
        return finish(ax, title=title, return_fig=return_fig, save=save)
    key = cluster_key_of(adata, groupby)
    _draw(table.assign(size=table["size"] / total), group_colors(adata, str(key)), min_share, ax)
    return finish(ax, title=title, return_fig=return_fig, save=save)


_WHAT = {"type": "total received", "cell": "mean received per cell"}


def _draw(table: pd.DataFrame, colors: dict[str, Rgba], min_share: float, ax: Axes) -> None:
    """Bars of senders and of receivers, and a band for each pair of them."""
    from matplotlib.patches import Rectangle

    out = table.groupby("sender", sort=False)["size"].sum()
    into = table.groupby("receiver", sort=False)["size"].sum()
    tops = []
    for side, heights in enumerate((out, into)):
        room = np.maximum(heights.to_numpy(), _ROOM)
        y = 0.5 + (room.sum() + _GAP * (len(heights) - 1)) / 2
        places: dict[str, float] = {}
        for name, height, taken in zip(heights.index, heights, room, strict=True):
            top = y - (taken - height) / 2
            places[name] = top
            left = side - _WIDTH / 2
            ax.add_patch(Rectangle((left, top - height), _WIDTH, height, color=colors.get(name, GREY), lw=0, zorder=2))
            options: dict[str, Any] = {"ha": "left" if side else "right", "va": "center", "fontsize": 8}
            ax.text(side + (_WIDTH if side else -_WIDTH), top - height / 2, f"{name}  {height:.0%}", **options)
            y -= taken + _GAP
        tops.append(places)
    leaving, arriving = (dict(places) for places in tops)
    for row in table.itertuples(index=False):
        if row.size > 0 and row.share >= min_share:
            draw_band(ax, _WIDTH / 2, 1 - _WIDTH / 2, leaving[row.sender], arriving[row.receiver], row.size,
                      colors.get(row.sender, GREY))  # fmt: skip
        leaving[row.sender] -= row.size
        arriving[row.receiver] -= row.size
    reach = max(np.maximum(h, _ROOM).sum() + _GAP * (len(h) - 1) for h in (out, into))
    for side, text in enumerate(("sender", "receiver")):
        ax.text(side, 0.5 + reach / 2 + 0.03, text, ha="center", va="bottom", fontsize=9, color="0.35")
    ax.set(xlim=(-0.45, 1.45), ylim=(0.5 - reach / 2 - 0.03, 0.5 + reach / 2 + 0.1))
