"""Effects of a perturbation by gene and cell type, and how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._clusters import aggregate_name
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_one_of, assert_positive
from spacetravlr.pl._colors import BLUE, DIVERGING, GREY, RED, centred
from spacetravlr.pl._figure import clean, finish, new_axes

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn

Kind = Literal["heatmap", "volcano"]
_LEAST_Q = 1e-12  # what lies beyond is drawn there


@document
def perturbation_effects(
    adata: AnnData | SpatialData,
    *,
    kind: Kind = "heatmap",
    cell_type: str | None = None,
    fdr: float = 0.1,
    n_genes: int = 30,
    n_labels: int = 10,
    perturbed_key: str = _keys.PERTURBED,
    limit: float | None = None,
    cmap: str = DIVERGING,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw what a perturbation does to each gene in each cell type, with what is significant marked.

    ``kind="heatmap"``: mean change in standard deviations of the gene, genes x cell types; a dot marks changes with a
    q-value of at most ``fdr``. ``kind="volcano"``: the same changes of one cell type against their q-values. Errors
    come from ``st.tl.perturb(..., n_samples=)``; without them, the heat map has no dots.

    Parameters
    ----------
    %(adata_perturbed)s
    kind
        ``"heatmap"`` or ``"volcano"``.
    cell_type
        Cell type of the volcano; all cells together by default.
    fdr
        False discovery rate at which a change is marked.
    n_genes
        Genes of the heat map, those that change most.
    n_labels
        Genes named in the volcano, the most significant first.
    %(perturbed_key)s
    %(limit)s
    %(cmap)s
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
        When there is no perturbation.
    ValueError
        When nothing changed, ``cell_type`` does not exist, or a volcano is asked for without errors.
    """
    assert_one_of(kind, get_args(Kind), name="kind")
    assert_in_range(fdr, 0.0, 1.0, name="fdr")
    for name, n in (("n_genes", n_genes), ("n_labels", n_labels)):
        assert_positive(n, name=name)
    adata = unwrap(adata, table_key)
    table = get.perturbation_effect(adata, perturbed_key=perturbed_key)
    table = table[~table["perturbed"]]
    if table.empty:
        msg = "Expected the perturbation to change a gene, found no change."
        raise ValueError(msg)
    spread = table["sd"].to_numpy(float)
    table = table.assign(effect=np.divide(table["change"], spread, out=np.zeros(len(table)), where=spread > 0))
    groups = list(dict.fromkeys(table["group"]))
    label = str(adata.uns[perturbed_key].get("label", perturbed_key))
    if kind == "volcano":
        cell_type = groups[0] if cell_type is None else str(cell_type)
        assert_one_of(cell_type, groups, name="cell_type")
        if "q" not in table:
            msg = "Expected errors for `kind='volcano'`, found none; call `st.tl.perturb(adata, ..., n_samples=50)`."
            raise ValueError(msg)
        ax = new_axes(ax, figsize, (4.6, 3.8))
        _volcano(table[table["group"] == cell_type], fdr, n_labels, ax)
        where = "all cells" if cell_type == aggregate_name(groups[1:]) else cell_type
        ax.set_title(f"{label}, {where}")
        return finish(ax, title=title, return_fig=return_fig, save=save)
    wide = {
        name: table.pivot_table(name, "gene", "group", sort=False)[groups] for name in ("effect", "q") if name in table
    }
    order = wide["effect"].abs().max(axis=1).sort_values(ascending=False, kind="stable").index[:n_genes]
    marked = (wide["q"].reindex(index=order) <= fdr).to_numpy() if "q" in wide else None
    ax = new_axes(ax, figsize, (2.4 + 0.35 * len(groups), 1.4 + 0.2 * len(order)))
    _heatmap(wide["effect"].loc[order], marked, limit, cmap, ax)
    ax.set_title(label)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _heatmap(effect: pd.DataFrame, marked: np.ndarray | None, limit: float | None, cmap: str, ax: Axes) -> None:
    values = effect.to_numpy(float)
    image = ax.imshow(values, cmap=cmap, norm=centred(values, limit), aspect="auto", interpolation="nearest")
    if marked is not None:
        y, x = np.nonzero(marked)
        ax.scatter(x, y, s=9, color="black", lw=0)
    ax.set_xticks(np.arange(effect.shape[1]), list(effect.columns), rotation=90, fontsize=8)
    ax.set_yticks(np.arange(effect.shape[0]), list(effect.index), fontsize=8)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=20, pad=0.03)
    bar.set_label("mean change (SD of the gene)")


def _volcano(table: pd.DataFrame, fdr: float, n_labels: int, ax: Axes) -> None:
    table = table[table["q"].notna()].sort_values("p", kind="stable")
    x, height = table["effect"].to_numpy(float), -np.log10(np.maximum(table["q"].to_numpy(float), _LEAST_Q))
    significant = table["q"].to_numpy(float) <= fdr
    colors = np.where(significant, np.where(x > 0, RED, BLUE), GREY)
    ax.scatter(x, height, s=28, c=colors, lw=0)
    ax.axhline(-np.log10(fdr), color="0.6", lw=0.8, ls="--")
    ax.axvline(0, color="black", lw=0.8)
    for n, i in enumerate(np.flatnonzero(significant)[:n_labels]):
        side, up = ("left", 3) if x[i] >= 0 else ("right", -3), n % 2 == 0  # neighbours above and below by turns
        ax.annotate(
            str(table["gene"].iloc[i]), (x[i], height[i]), xytext=(side[1], 2 if up else -2),
            textcoords="offset points", ha=side[0], va="bottom" if up else "top", fontsize=8,
        )  # fmt: skip
    reach = 1.35 * max(float(np.abs(x).max(initial=0)), 1e-6)
    ax.set(xlim=(-reach, reach), ylim=(0, 1.15 * max(float(height.max(initial=0)), -np.log10(fdr))))
    ax.set(xlabel="mean change (SD of the gene)", ylabel=r"$-\log_{10}$ q")
    clean(ax)
