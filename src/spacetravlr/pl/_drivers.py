"""What moves a read-out: the genes ranked, and where each acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._spatial import realign, unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_key, assert_positive
from spacetravlr.get._drivers import Mode, read_drivers
from spacetravlr.pl._colors import DIVERGING, GREY, centred, group_colors
from spacetravlr.pl._figure import as_list, clean, finish, new_axes, new_grid, set_title
from spacetravlr.pl._tissue import draw_values, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Floats
    from spacetravlr.pl._figure import Drawn

_DOSE = {"knockout": "knockout", "increase": "+1 SD"}
_PER_CELL = {"knockout": "by losing {gene} there", "increase": "per unit of {gene} there"}


@document
def drivers(
    adata: AnnData | SpatialData,
    gene: str | Sequence[str] | None = None,
    *,
    mode: Mode = "knockout",
    n_top: int = 20,
    drivers_key: str = _keys.DRIVERS,
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
    """Draw the genes that move a read-out, or where in the tissue one of them does.

    Without ``gene``: first-order effects of the genes at the top, each a bar made of what the cells of each type
    contribute, upwards to the right and downwards to the left. A dot marks the sum, a diamond the effect of the
    knockout where it was simulated in full. With ``gene``: one map per gene of what a dose in each cell does to the
    read-out.

    Parameters
    ----------
    %(adata_drivers)s
    gene
        A gene or several, one map each; by default the ranking.
    %(driver_mode)s
    n_top
        Genes of the ranking.
    %(drivers_key)s
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
        When there are no drivers, or no such gene.
    ValueError
        When ``mode`` is unknown, or no gene has an effect.
    """
    assert_positive(n_top, name="n_top")
    adata = unwrap(adata, table_key)
    table = get.drivers(adata, mode=mode, drivers_key=drivers_key)
    label = str(read_drivers(adata, drivers_key)["params"]["label"])
    if gene is None:
        everywhere = table[(table["cell_type"] == table["cell_type"].iloc[0]) & (table[mode] != 0)]
        if everywhere.empty:
            msg = f"Expected drivers of {label}, found that no gene has an effect."
            raise ValueError(msg)
        shown = list(everywhere["gene"].head(n_top))
        single = new_axes(ax, figsize, (5.6, max(2.2, 1.0 + 0.22 * len(shown))))  # type: ignore[arg-type]
        _ranking(adata, table[table["gene"].isin(shown)], shown, mode, single, drivers_key)
        single.set_xlabel(f"change of {label}, first order")
        single.set_title(f"drivers of {label} ({_DOSE[mode]})")
        return finish(single, title=title, return_fig=return_fig, save=save)
    names = as_list(gene)
    values = _per_cell(adata, names, mode, drivers_key)
    layout = tissue_layout(adata, library_key=library_key, library_id=library_id)
    axes = new_grid(ax, len(names), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
    for name, column, panel in zip(names, values.T, axes, strict=True):
        text = f"change of {label}\n{_PER_CELL[mode].format(gene=name)}"
        draw_values(
            column, panel, layout=layout, label=text, cmap=cmap, norm=centred(column, limit), size=size, background=GREY
        )
        set_title(panel, f"{name} \N{RIGHTWARDS ARROW} {label}")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _per_cell(adata: AnnData, names: list[str], mode: Mode, drivers_key: str) -> Floats:
    """What each cell contributes, cells x genes; NaN where nothing was perturbed."""
    key = _keys.driver_knockouts(drivers_key) if mode == "knockout" else drivers_key
    stored, hint = read_drivers(adata, drivers_key), "Call `st.tl.drivers(adata, ...)` again."
    assert_key(adata, "obsm", key, name="drivers_key", hint=hint)
    columns = [str(name) for name in np.atleast_1d(stored["genes"])]
    assert_genes(names, columns, name="gene", where="the genes with a role")
    values = np.asarray(adata.obsm[key], dtype=float)[:, [columns.index(name) for name in names]]
    where = f"adata.uns[{drivers_key!r}]['cells']"
    cells = realign(stored["cells"], adata.obs_names, where=where, hint=hint)["perturbed"].to_numpy(dtype=bool)
    values[~cells] = np.nan
    return values


def _ranking(adata: AnnData, table: pd.DataFrame, genes: list[str], mode: Mode, ax: Axes, drivers_key: str) -> None:
    everywhere, *types = dict.fromkeys(table["cell_type"])
    key = cluster_key_of(adata, betas_key=str(read_drivers(adata, drivers_key)["params"]["betas_key"]))
    colors = group_colors(adata, key) if key is not None and key in adata.obs else {}
    position = np.arange(len(genes))
    above, below = np.zeros(len(genes)), np.zeros(len(genes))
    for name in types or [everywhere]:
        part = table[table["cell_type"] == name].set_index("gene").loc[genes, mode].to_numpy(float)
        start = np.where(part > 0, above, below)
        ax.barh(position, part, left=start, height=0.75, color=colors.get(name, GREY), label=name if types else None)
        above, below = above + np.maximum(part, 0), below + np.minimum(part, 0)
    total = table[table["cell_type"] == everywhere].set_index("gene").loc[genes]
    ax.plot(total[mode], position, "o", color="black", ms=4, label="sum", clip_on=False)
    if mode == "knockout" and total["checked"].notna().any():
        checked = total["checked"]
        ax.plot(checked, position, "D", color="black", mfc="white", ms=5, label="simulated in full", clip_on=False)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(position, genes, fontsize=8)
    ax.set_ylim(len(genes) - 0.4, -0.6)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    clean(ax)
