"""Modulators of a target, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._expression import is_smoothed
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_one_of, assert_positive
from spacetravlr.models._held_out import held_out_r2, target_scores
from spacetravlr.pl._colors import GREY, KIND_COLORS, KIND_LABELS
from spacetravlr.pl._figure import as_list, clean, finish, new_grid, set_title

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn

Value = Literal["effect", "mean", "importance"]
_PALE = 0.35
_NOTHING = "zero"  # what scores say was kept where no model was
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

    Titles tell the number of cells and the held-out R2 of the target there, with the ceiling where it is known: the
    part that is not counting noise. Against imputed values an R2 says so.

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

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> panels = st.pl.modulators(adata, "PAX5", ["B cell", "T cell"], n_top=5)
    >>> panels[0].get_title().splitlines()[0]
    'B cell'
    """
    from matplotlib.lines import Line2D
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
    axes = new_grid(ax, len(wanted), figsize, (4.4, 1.5 + 0.2 * rows), ncols)
    quality = _quality(adata, target, known[0], betas_key)
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
        panel.set_yticks(position, list(part["label"]), fontsize=8)
        # every panel has the same bar height, so empty rows stay empty
        panel.set_ylim(rows - 0.4, -0.6)
        panel.axvline(0, color="black", lw=0.8)
        panel.set_xlabel(_XLABEL[value].format(target), fontsize=9)
        set_title(panel, "all cells" if name == known[0] else name)
        cells = int(table.loc[table["cell_type"] == name, "n_cells"].iloc[0]) if len(table) else 0
        panel.set_title(f"{panel.get_title()}\n{quality(name, cells)}", fontsize=9)
        if part.empty:
            panel.text(0.5, 0.5, "none", transform=panel.transAxes, ha="center", va="center", color=GREY)
        clean(panel)
    kinds = [k for k in KIND_COLORS if any((b["kind"] == k).any() for b in shown)]
    handles: list[Artist] = [Patch(color=KIND_COLORS[k], label=KIND_LABELS[k]) for k in kinds]
    if any("se" in part for part in shown) and value != "importance":
        handles.append(Patch(color="black", alpha=_PALE, label=f"pale: q > {fdr:g}"))
        handles.append(Line2D([], [], color="0.25", lw=0.8, label="90 % interval"))
    options: dict[str, Any] = {"handles": handles, "fontsize": 7, "frameon": False, "ncols": min(len(handles), 3)}
    if ax is None:
        axes[0].figure.legend(loc="outside lower center", **options)
    else:
        # below the axis label, where no bar is
        axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / _height(axes[0])), **options)
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _height(ax: Axes) -> float:
    """Of the axes, in inches."""
    return max(ax.get_position().height * ax.get_figure(root=True).get_figheight(), 0.5)  # type: ignore[union-attr]


def _quality(adata: AnnData, target: str, everything: str, betas_key: str) -> Callable[[str, int], str]:
    """What to say of the model of the target in a cell type: cells and held-out R2."""
    model = read_betas(adata, betas_key)
    scores, gene = model.scores, pd.Index([target])
    rivals = scores[scores["target"].astype(str) == target]
    raw = "r2_kept_raw" in scores and rivals["r2_kept_raw"].notna().any()
    smoothed = is_smoothed(adata, str(model.params.get("layer") or "")) and not raw

    def quality(cell_type: str, n_cells: int) -> str:
        where = None if cell_type == everything else cell_type
        r2 = float(held_out_r2(scores, gene, where)[0])
        text = f"{n_cells:,} cells"
        known = target_scores(rivals) if where is None else rivals[rivals["cell_type"].astype(str) == where]
        if "kept" in known and len(known) and str(known["kept"].iloc[0]) == _NOTHING:
            text += ", no model kept"
        elif not np.isfinite(r2):
            return text
        else:
            text += f", held-out R² {r2:.2f}"
            if smoothed:
                return f"{text} of imputed values"
        if "ceiling" in known and len(known) and np.isfinite(known["ceiling"].iloc[0]):
            text += f" (ceiling {float(known['ceiling'].iloc[0]):.2f})"
        return text

    return quality


def _bars(part: pd.DataFrame, value: str) -> pd.DataFrame:
    # what a fit removed is not shown as a bar of length zero
    part = part[np.nan_to_num(part[value].to_numpy(float)) != 0]
    return part.reindex(part[value].abs().sort_values(ascending=False, kind="stable").index)
