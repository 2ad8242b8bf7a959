"""Maps of what cells receive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize

from spacetravlr import _keys
from spacetravlr._anndata._received import read_received
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import find_signals, signal_label
from spacetravlr._docs import document
from spacetravlr.pl._colors import SEQUENTIAL
from spacetravlr.pl._figure import as_list, finish, new_grid, set_title
from spacetravlr.pl._tissue import draw_values, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn


@document
def received_ligands(
    adata: AnnData | SpatialData,
    ligands: str | Sequence[str],
    *,
    received_key: str = _keys.RECEIVED,
    library_key: str | None = None,
    library_id: str | None = None,
    cmap: str = SEQUENTIAL,
    size: float | None = None,
    ncols: int = 3,
    table_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    r"""Map the ligand that reaches each cell, :math:`L_{jk} = \sum_i W_{ij} \mathrm{ligand}_k(i)`.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.received_ligands`, or SpatialData.
    ligands
        One signal or several: the name of a ligand, or ``"<ligand>|contact"`` (``"<ligand> (contact)"``) for its
        contact signal. A ligand that acts by contact only may go by its bare name.
    received_key
        Key of the received ligands.
    %(library_key)s
    %(library_id)s
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
    Axes (a list for several ligands), or the figure.

    Raises
    ------
    KeyError
        When the ligands were not received.
    """
    adata = unwrap(adata, table_key)
    state = read_received(adata, received_key)
    tables = state.lr.join(state.tfl[state.tfl.columns.difference(state.lr.columns)])
    names = find_signals(as_list(ligands), tables.columns, name="ligands", where=f"adata.uns[{received_key!r}]")
    layout = tissue_layout(adata, library_key=library_key, library_id=library_id)
    axes = new_grid(ax, len(names), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
    for name, panel in zip(names, axes, strict=True):
        values = tables[name].to_numpy()
        gene, kind = _keys.parse_signal(name)
        norm = Normalize(0, float(np.quantile(values, 0.995)) or 1.0)
        draw_values(values, panel, layout=layout, label=f"received {gene} ({kind})", cmap=cmap, norm=norm, size=size)
        set_title(panel, signal_label(name))
    return finish(axes, title=title, return_fig=return_fig, save=save)
