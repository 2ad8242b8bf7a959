"""How well targets are modelled, and how the networks learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes
from spacetravlr.pl._colors import BODY_COLORS, CURVE_COLORS
from spacetravlr.pl._figure import as_list, clean, finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.get._scores import Per
    from spacetravlr.pl._figure import Drawn

_MARKERS = {"pooled": "s", "surface": "o", "network": "^"}
#: What refined coefficients are compared with, by their column: its name, and what they are called.
_REFERENCES = {
    "r2_field": ("type and smooth position alone", "with regulators"),
    "r2_seed": ("the seed", "of the refinement"),
}
#: Differences of R2 below this are rounding, not an improvement.
_TIE = 1e-3
#: Models far below the mean of the data are drawn at this value: how far below says nothing.
_FLOOR = -0.5


@document
def scores(
    adata: AnnData | SpatialData,
    target: str | Sequence[str] | None = None,
    *,
    per: Per = "cell_type",
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Compare the refined coefficients with the seed, or those of counts with none, on held-out blocks.

    One marker per target, cell type and body; above the diagonal the refinement beats the seed. Of a fit to counts,
    what type and smooth position explain is compared with what regulators add to them, and a dash is the ceiling: what
    is not counting noise. Filled markers are what the fit kept. Values below -0.5 are drawn at -0.5. Differences of at
    most 0.001 count as ties.

    Parameters
    ----------
    %(adata_fitted)s
    %(targets_all)s
    per
        One marker for each ``"cell_type"`` of a target, or one for each ``"target"``.
    %(betas_key)s
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
        When there are no coefficients, or none of ``target``.
    ValueError
        When no refinement was fitted.
    """
    table = get.scores(adata, target=target, per=per, betas_key=betas_key, table_key=table_key)
    bodies = [b for b in _MARKERS if f"r2_{b}" in table and table[f"r2_{b}"].notna().any()]
    reference = next((c for c in _REFERENCES if c in table and table[c].notna().any()), None)
    if not bodies or reference is None:
        msg = "Expected the scores to hold the held-out R2 of a seed and of a refinement, found none to compare."
        raise ValueError(msg)
    ax = new_axes(ax, figsize, (4.4, 4.2))
    seed = table[reference].to_numpy(float).clip(_FLOOR)
    lowest, highest = [], []
    for body in bodies:
        color, marker = BODY_COLORS[body], _MARKERS[body]
        refined = table[f"r2_{body}"].to_numpy(float).clip(_FLOOR)
        known = np.isfinite(refined) & np.isfinite(seed)
        kept = known & (table["kept"].astype(str) == body).to_numpy() if "kept" in table else known
        for mask, face in ((known & ~kept, "none"), (kept, color)):
            ax.scatter(
                seed[mask], refined[mask], s=22, marker=marker, facecolor=face, edgecolor=color, lw=0.9, alpha=0.8
            )
        gain = refined[known] - seed[known]
        ties = int((np.abs(gain) <= _TIE).sum())
        label = f"{body}: better in {int((gain > _TIE).sum())} of {int(known.sum())}"
        label += f", {ties} tie{'s' * (ties > 1)}" if ties else ""
        ax.scatter([], [], s=22, marker=marker, color=color, label=label)
        if known.any():
            lowest.append(min(seed[known].min(), refined[known].min()))
            highest.append(max(seed[known].max(), refined[known].max()))
    if "ceiling" in table:
        ceiling = table["ceiling"].to_numpy(float)
        ax.scatter(seed, ceiling, s=30, marker="_", color="0.6", zorder=0, label="ceiling: not counting noise")
        highest.append(float(np.nanmax(ceiling, initial=0.0)))
    low, high = min([*lowest, 0.0]), max([*highest, 0.1])
    margin = 0.05 * (high - low)
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color="black", lw=0.8, ls="--", zorder=0)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.8", lw=0.8, zorder=0)
    alone, refined_name = _REFERENCES[reference]
    ax.set(xlim=ends, ylim=ends, xlabel=f"held-out R² of {alone}", ylabel=f"held-out R² {refined_name}", aspect="equal")
    if "kept" in table:
        ax.scatter([], [], s=22, facecolor="none", edgecolor="black", label="hollow: not kept")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16))
    clean(ax)
    return finish(ax, title=title, return_fig=return_fig, save=save)


@document
def training(
    adata: AnnData | SpatialData,
    target: str | Sequence[str] | None = None,
    *,
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the loss of the networks against the epoch: thin lines are targets, thick lines their median.

    Parameters
    ----------
    %(adata_fitted)s
    %(targets_all)s
    %(betas_key)s
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
        When there are no training curves, or none of ``target``.
    """
    from matplotlib.ticker import MaxNLocator

    adata = unwrap(adata, table_key)
    read_betas(adata, betas_key)
    curves = adata.uns[betas_key].get("training")
    if curves is None or len(curves) == 0:
        msg = (
            f"Training curves not found in adata.uns[{betas_key!r}]; only networks have them: "
            'call `st.tl.fit_betas(adata, body="cnn")` first.'
        )
        raise KeyError(msg)
    if target is not None:
        wanted = as_list(target)
        assert_genes(wanted, curves["target"].astype(str).unique(), name="target", where="the training curves")
        curves = curves[curves["target"].astype(str).isin(wanted)]
    ax = new_axes(ax, figsize, (4.8, 3.4))
    names = curves["target"].astype(str)
    for column, color in CURVE_COLORS.items():
        wide = pd.DataFrame({"epoch": curves["epoch"], "target": names, "loss": curves[column]}).pivot_table(
            index="epoch", columns="target", values="loss"
        )
        if wide.shape[1] > 1:
            ax.plot(wide.index, wide.to_numpy(), color=color, lw=0.7, alpha=0.35)
        # the median of curves of different lengths jumps where one ends, so each counts on with its last value
        middle = wide.ffill().median(axis=1)
        ax.plot(middle.index, middle, color=color, lw=2, label=column)
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize=8)
    clean(ax)
    if names.nunique() == 1:
        ax.set_title(names.iloc[0])
    return finish(ax, title=title, return_fig=return_fig, save=save)
