"""Modulators of a target, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._received import read_received
from spacetravlr._anndata._spatial import category_codes
from spacetravlr._core.design import Kind
from spacetravlr._validators import assert_one_of, assert_positive
from spacetravlr.pl._figure import KIND_COLORS, KIND_LABELS, clean, finish, new_grid, term_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

    from spacetravlr._types import Floats
    from spacetravlr.pl._figure import Drawn

Value = Literal["effect", "mean", "importance"]
_XLABEL = {
    "effect": "change of {} per SD of the modulator",
    "mean": "mean coefficient for {}",
    "importance": "importance for {}",
}
ALL = "all"


def modulators(
    adata: AnnData,
    target: str,
    cell_type: str | Sequence[str] | None = None,
    *,
    value: Value = "effect",
    n_top: int = 15,
    betas_key: str = _keys.BETAS,
    ncols: int = 3,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Rank the modulators of a target in each cell type.

    Parameters
    ----------
    adata
        Annotated data after ``tl.fit_betas``.
    target
        Modelled gene.
    cell_type
        One cell type or several, one panel each; ``"all"`` is all cells together. By default every type.
    value
        Length of the bars: ``"effect"`` is the mean coefficient times the standard deviation of the modulator in the
        type, so that transcription factors and pairs compare; ``"mean"`` is the mean coefficient in original units;
        ``"importance"`` is what the fit found of the modulator as a whole, the same in every type.
    n_top
        Modulators shown, the largest first.
    betas_key
        Key of the coefficients.
    ncols
        Panels in a row.
    ax
        Axes to draw on, one for each cell type.
    figsize
        Size of the figure, in inches.
    title
        Title.
    return_fig
        Return the figure.
    save
        File to write.

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
    table = get.modulators(adata, target=target, betas_key=betas_key)
    known = list(table["cell_type"].unique())
    default = known[1:] or known
    wanted = default if cell_type is None else [cell_type] if isinstance(cell_type, str) else list(cell_type)
    for name in wanted:
        assert_one_of(name, known, name="cell_type")
    spread = _spread(adata, target, betas_key) if value == "effect" else {}
    bars = [_bars(table[table["cell_type"] == name], value, spread.get(name)) for name in wanted]
    shown = [b.reindex(b["value"].abs().sort_values(ascending=False, kind="stable").index).head(n_top) for b in bars]

    rows = max(len(b) for b in shown)
    axes = new_grid(ax, len(wanted), figsize, (4.4, 1.1 + 0.2 * rows), ncols)
    for name, part, panel in zip(wanted, shown, axes, strict=True):
        position = np.arange(len(part))
        panel.barh(position, part["value"], color=[KIND_COLORS[k] for k in part["kind"]], height=0.75)
        panel.set_yticks(position, term_labels(part), fontsize=8)
        # every panel has the same bar height, so empty rows stay empty
        panel.set_ylim(rows - 0.4, -0.6)
        panel.axvline(0, color="black", lw=0.8)
        panel.set_xlabel(_XLABEL[value].format(target), fontsize=9)
        panel.set_title("all cells" if name == ALL else name)
        clean(panel)
    kinds = [k for k in KIND_COLORS if any((b["kind"] == k).any() for b in shown)]
    handles = [Patch(color=KIND_COLORS[k], label=KIND_LABELS[k]) for k in kinds]
    axes[0].legend(handles=handles, fontsize=7, loc="lower right", framealpha=0.9, edgecolor="none")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _bars(part: pd.DataFrame, value: str, spread: Floats | None) -> pd.DataFrame:
    length = part["importance"] if value == "importance" else part["mean"]
    part = part.assign(value=length.to_numpy(float) * (1.0 if spread is None else spread))
    # what a fit removed is not shown as a bar of length zero
    return part[part["value"] != 0]


def _spread(adata: AnnData, target: str, betas_key: str) -> dict[str, Floats]:
    """Standard deviation of every modulator of a target, in all cells and in each cell type."""
    model = read_betas(adata, betas_key)
    design = model.design
    terms = design.terms.take(design.targets.terms_of(model.target_names.index(target)))
    state = read_received(adata, str(model.params.get("received_key") or _keys.RECEIVED))
    # a ligand-TF term has its own table of received ligands, where one gene may have another range
    values = np.empty((adata.n_obs, len(terms)), dtype=np.float32)
    genes = list(design.genes[terms.gene])
    expression = get_expression(adata, genes, layer=str(model.params.get("layer") or "") or None, check=False)
    for m, (kind, signal) in enumerate(zip(terms.kind, terms.signal, strict=True)):
        values[:, m] = expression[:, m]
        if signal >= 0:
            frame = state.tfl if kind == Kind.TFL else state.lr
            values[:, m] *= frame[design.signal_names[signal]].to_numpy()
    spread = {ALL: values.std(axis=0)}
    key = str(model.params.get("cluster_key") or "")
    if key in adata.obs:
        codes, names = category_codes(adata, key, name="cluster_key")
        spread.update({name: values[codes == c].std(axis=0) for c, name in enumerate(names)})
    return spread
