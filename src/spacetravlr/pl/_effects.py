"""Effects of a perturbation by gene and cell type, and how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._clusters import aggregate_name, cell_groups, cluster_key_of
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_in_range, assert_one_of, assert_positive
from spacetravlr.pl._colors import BLUE, DIVERGING, GREY, RED, centred, group_colors
from spacetravlr.pl._figure import as_list, clean, finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn

Kind = Literal["heatmap", "volcano", "violin"]
_MAX_VIOLINS, _NEARLY_ALL = 6, 0.995
_LEAST_Q = 1e-12  # what lies beyond is drawn there


@document
def perturbation_effects(
    adata: AnnData | SpatialData,
    genes: str | Sequence[str] | None = None,
    *,
    kind: Kind = "heatmap",
    cell_type: str | None = None,
    fdr: float = 0.1,
    n_genes: int = 30,
    n_labels: int = 10,
    perturbed_key: str = _keys.PERTURBED,
    limit: float | str | None = None,
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
    come from ``st.tl.perturb(..., n_samples=)``; without them, the heat map has no dots. ``kind="violin"``: the change
    of each cell, by gene and cell type, in standard deviations of the gene in the type. Where many cells do not change
    at all, violins are of those that do, with their share; a bar is the mean over all cells.

    Parameters
    ----------
    %(adata_perturbed)s
    genes
        Genes of the heat map and of the violins; by default those that change most.
    kind
        ``"heatmap"``, ``"volcano"`` or ``"violin"``.
    cell_type
        Cell type of the volcano; all cells together by default. Only this type in violins; all by default.
    fdr
        False discovery rate at which a change is marked.
    n_genes
        Genes of the heat map where none are named. Violins show at most 6 of them.
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
        When there is no perturbation, or one of the ``genes`` does not exist.
    ValueError
        When nothing changed, ``cell_type`` does not exist, or a volcano is asked for without errors.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> st.tl.perturb(adata, "FOXO1")
    >>> st.pl.perturbation_effects(adata).get_title()
    'FOXO1=0'
    >>> ax = st.pl.perturbation_effects(adata, "PAX5", kind="violin")
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
    wanted = None
    if genes is not None:
        wanted = as_list(genes)
        assert_genes(wanted, adata.var_names, name="genes")
        assert_genes(wanted, table["gene"], name="genes", where="the genes that the perturbation changes")
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
    largest = wide["effect"].abs().max(axis=1).sort_values(ascending=False, kind="stable").index
    order = pd.Index(wanted if wanted is not None else largest[:n_genes])
    if kind == "violin":
        types = groups[1:] or groups
        if cell_type is not None:
            assert_one_of(str(cell_type), types, name="cell_type")
            types = [str(cell_type)]
        shown = list(order) if wanted is not None else list(order[:_MAX_VIOLINS])
        ax = new_axes(ax, figsize, (1.6 + len(shown) * max(0.8, 0.28 * len(types)), 3.6))
        _violins(adata, table, shown, types, perturbed_key, ax)
        ax.set_title(label)
        return finish(ax, title=title, return_fig=return_fig, save=save)
    marked = (wide["q"].reindex(index=order) <= fdr).to_numpy() if "q" in wide else None
    ax = new_axes(ax, figsize, (2.4 + 0.35 * len(groups), max(3.6, 1.4 + 0.2 * len(order))))
    _heatmap(wide["effect"].loc[order], marked, limit, cmap, ax)
    ax.set_title(label)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _heatmap(effect: pd.DataFrame, marked: np.ndarray | None, limit: float | str | None, cmap: str, ax: Axes) -> None:
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


def _violins(
    adata: AnnData, table: pd.DataFrame, genes: list[str], types: list[str], perturbed_key: str, ax: Axes
) -> None:
    from matplotlib.patches import Patch

    stored = adata.uns[perturbed_key]
    before = get_expression(adata, genes, layer=str(stored["layer"]) or None, check=False)
    change = get_expression(adata, genes, layer=perturbed_key, check=False) - before
    key = cluster_key_of(adata, betas_key=str(stored.get("betas_key", _keys.BETAS)))
    of_type = {group.name: group.cells for group in cell_groups(adata, key if key in adata.obs else None)}
    colors = group_colors(adata, key) if key is not None and key in adata.obs else {}
    spread = table.set_index(["gene", "group"])["sd"]
    width, shares = 0.8 / len(types), []
    for t, name in enumerate(types):
        for g, gene in enumerate(genes):
            sd = float(spread[gene, name])
            values = change[of_type[name], g].astype(float) / sd if sd > 0 else np.zeros(int(of_type[name].sum()))
            place = g - 0.4 + width * (t + 0.5)
            color = colors.get(name, GREY)
            moved = values[values != 0]
            shares.append((place, len(moved) / max(len(values), 1)))
            if len(moved) and np.ptp(moved) > 0:
                violin = ax.violinplot(moved, positions=[place], widths=0.95 * width, showextrema=False)
                violin["bodies"][0].set(facecolor=color, edgecolor="none", alpha=0.8)  # type: ignore[index]
            ax.plot([place - 0.45 * width, place + 0.45 * width], [values.mean()] * 2, color="black", lw=1.2)
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    if min(share for _, share in shares) < _NEARLY_ALL:
        for place, share in shares:
            ax.text(
                place, 0.01, f"{share:.0%}", transform=ax.get_xaxis_transform(), fontsize=6, rotation=90, ha="center",
                va="bottom", color="0.35",
            )  # fmt: skip
        ax.set_xlabel("%: cells that change at all; violins are of these", fontsize=8, color="0.35")
    ax.set_xticks(np.arange(len(genes)), genes, rotation=0 if len(genes) <= 4 else 90)
    ax.set(xlim=(-0.5, len(genes) - 0.5), ylabel="change in a cell (SD of the gene)")
    handles = [Patch(color=colors.get(name, GREY), alpha=0.8, label=name) for name in types]
    ax.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    clean(ax)


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
    for color, text in ((RED, f"up, q ≤ {fdr:g}"), (BLUE, f"down, q ≤ {fdr:g}"), (GREY, "neither")):
        ax.scatter([], [], s=28, color=color, lw=0, label=text)
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handletextpad=0.2)
    clean(ax)
