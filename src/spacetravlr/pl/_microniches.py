"""Microniches on the tissue, and how far they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_key, assert_one_of
from spacetravlr.pl._colors import group_colors
from spacetravlr.pl._figure import clean, finish, new_grid
from spacetravlr.pl._tissue import draw_groups, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn


@document
def microniches(
    adata: AnnData | SpatialData,
    *,
    key: str = _keys.MICRONICHE,
    cell_type: str | None = None,
    library_key: str | None = None,
    library_id: str | None = None,
    size: float | None = None,
    table_key: str | None = None,
    ax: Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw microniches on the tissue, and beside them how stable and how far apart they are.

    Bars are the stability of each niche, the mean Jaccard index over draws, and diamonds its separation; dashed and
    dotted lines are what was asked of them. Cell types that are one niche have no bar: there was nothing to tell apart.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.microniches`, or SpatialData.
    key
        Key of the niches.
    cell_type
        Only niches of this type; other cells are grey. All by default.
    %(library_key)s
    %(library_id)s
    %(size)s
    %(table_key)s
    ax
        Two axes to draw on.
    %(figsize)s
    %(title)s
    %(return_fig)s
    %(save)s

    Returns
    -------
    Both axes, or the figure.

    Raises
    ------
    KeyError
        When there are no niches.
    ValueError
        When ``cell_type`` has none.
    """
    from anndata import AnnData

    table = unwrap(adata, table_key)
    hint = "Call `st.tl.microniches(adata)` first."
    assert_key(table, "obs", key, name="key", hint=hint)
    assert_key(table, "uns", _keys.microniches(key), name="key", hint=hint)
    stored = table.uns[_keys.microniches(key)]
    niches, params = stored["niches"], stored["params"]
    if cell_type is not None:
        assert_one_of(str(cell_type), list(niches["cell_type"].astype(str).unique()), name="cell_type")
        niches = niches[niches["cell_type"].astype(str) == str(cell_type)]
    names = niches["niche"].astype(str).tolist()
    colors = group_colors(table, key)
    layout = tissue_layout(table, library_key=library_key, library_id=library_id)
    panel = (layout.panel[0] + 1.6, max(layout.panel[1] + 0.4, 1.2 + 0.22 * len(names)))
    tissue, bars = new_grid(ax, 2, figsize, panel, 2)

    niche = table.obs[key].astype(object)
    shown = pd.Categorical(niche.where(niche.isin(names), None).to_numpy(), categories=names)
    cells = AnnData(obs=pd.DataFrame({key: shown}, index=table.obs_names))
    cells.uns[f"{key}_colors"] = [colors[n] for n in names]
    draw_groups(cells, key, tissue, layout=layout, size=size)
    tissue.set_title("microniches")
    _draw_trust(bars, niches, names, [colors[n] for n in names], params)
    return finish([tissue, bars], title=title, return_fig=return_fig, save=save)


def _draw_trust(ax: Axes, niches: pd.DataFrame, names: list[str], colors: list[Any], params: Any) -> None:
    place = np.arange(len(names))
    stability, separation = (niches[c].to_numpy(float) for c in ("stability", "separation"))
    ax.barh(place, np.nan_to_num(stability), color=colors, height=0.7, label="stability")
    ax.plot(separation, place, "D", color="black", ms=4, label="separation", clip_on=False, zorder=3)
    for y in place[np.isnan(stability)]:
        ax.text(0.01, y, "one niche", va="center", fontsize=8, color="dimgrey")
    for name, style in (("min_stability", "--"), ("min_separation", ":")):
        ax.axvline(float(params[name]), color="black", lw=1, ls=style)
    ax.set_yticks(place, names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("stability (bars; asked for: dashed), separation (diamonds; dotted)", fontsize=8)
    ax.set_title("stability and separation")
    clean(ax)
