"""Modulators of a target, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_one_of, assert_positive
from spacetravlr.pl._colors import GREY, KIND_COLORS, KIND_LABELS
from spacetravlr.pl._figure import as_list, clean, finish, new_grid, term_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn

Value = Literal["effect", "mean", "importance"]
_PALE = 0.35
_Z90 = 1.645  # standard errors of a 90 % interval
_XLABEL = {
    "effect": "change of {} per SD of the modulator",
    "mean": "mean coefficient for {}",
    "importance": "importance for {}",
}


@document
def modulators(
    adata: AnnData | SpatialData,
    target: str,
    cell_type: str | Sequence[str] | None = None,
    *,
    value: Value = "effect",
    n_top: int = 15,
    fdr: float = 0.1,
    betas_key: str = _keys.BETAS,
    ncols: int = 3,
    table_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Rank the modulators of a target in each cell type.

    Parameters
    ----------
    %(adata_fitted)s
    %(target_one)s
    cell_type
        One cell type or several, one panel each; by default every type. ``"all"`` is all cells together
        (``"all cells"`` where a type is called "all").
    value
        Length of the bars: ``"effect"`` is the mean coefficient times the standard deviation of the modulator in the
        type, so that transcription factors and pairs compare; ``"mean"`` is the mean coefficient in original units;
        ``"importance"`` is what the fit found of the modulator as a whole, the same in every type.
    n_top
        Modulators shown, the largest first.
    fdr
        Where errors are known (fits with ``counts_layer=``): bars of modulators whose q-value in the type is above this
        are pale. Lines are 90 % intervals, ``mean`` plus and minus 1.64 standard errors.
    %(betas_key)s
    %(ncols)s
    %(table_key)s
    %(ax_panels)s
    %(figsize)s
    %(title)s
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes (a list for several cell types), or the figure.

    Raises
    ------
    KeyError
        When there are no coefficients, or none of ``target``.
    ValueError
        When a cell type is not in the model.
    """
    from matplotlib.patches import Patch

    assert_one_of(value, get_args(Value), name="value")
    assert_positive(n_top, name="n_top")
    assert_in_range(fdr, 0.0, 1.0, name="fdr")
    adata = unwrap(adata, table_key)
    table = get.modulators(adata, target=target, effects=value == "effect", betas_key=betas_key)
    known = list(table["cell_type"].unique())
    wanted = (known[1:] or known) if cell_type is None else as_list(cell_type)
    for name in wanted:
        assert_one_of(name, known, name="cell_type")
    shown = [_bars(table[table["cell_type"] == name], value).head(n_top) for name in wanted]

    rows = max(len(b) for b in shown)
    axes = new_grid(ax, len(wanted), figsize, (4.4, 1.3 + 0.2 * rows), ncols)
    for name, part, panel in zip(wanted, shown, axes, strict=True):
        position = np.arange(len(part))
        bars = panel.barh(position, part[value], color=[KIND_COLORS[k] for k in part["kind"]], height=0.75)
        if "se" in part and value != "importance":
            for bar, q in zip(bars, part["q"], strict=True):
                bar.set_alpha(_PALE if q > fdr else 1.0)
            unit = part["modulator_sd"].to_numpy(float) if value == "effect" else 1.0
            panel.errorbar(
                part[value], position, xerr=_Z90 * part["se"] * unit, fmt="none", ecolor="0.25", elinewidth=0.8
            )
        panel.set_yticks(position, term_labels(part), fontsize=8)
        # every panel has the same bar height, so empty rows stay empty
        panel.set_ylim(rows - 0.4, -0.6)
        panel.axvline(0, color="black", lw=0.8)
        panel.set_xlabel(_XLABEL[value].format(target), fontsize=9)
        panel.set_title("all cells" if name == known[0] else name)
        if part.empty:
            panel.text(0.5, 0.5, "none", transform=panel.transAxes, ha="center", va="center", color=GREY)
        clean(panel)
    kinds = [k for k in KIND_COLORS if any((b["kind"] == k).any() for b in shown)]
    handles = [Patch(color=KIND_COLORS[k], label=KIND_LABELS[k]) for k in kinds]
    if ax is None:
        axes[0].figure.legend(
            handles=handles, fontsize=7, loc="outside lower center", ncols=2 if len(kinds) > 3 else 3, frameon=False
        )
    else:
        axes[0].legend(handles=handles, fontsize=7, loc="best", framealpha=0.9, edgecolor="none")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _bars(part: pd.DataFrame, value: str) -> pd.DataFrame:
    # what a fit removed is not shown as a bar of length zero
    part = part[np.nan_to_num(part[value].to_numpy(float)) != 0]
    return part.reindex(part[value].abs().sort_values(ascending=False, kind="stable").index)
