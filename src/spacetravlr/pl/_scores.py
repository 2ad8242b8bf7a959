"""How well targets are modelled, and how the networks learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import read_betas
from spacetravlr._validators import assert_genes
from spacetravlr.pl._figure import clean, finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes

    from spacetravlr.get._scores import Per
    from spacetravlr.pl._figure import Drawn

_BODIES = {"surface": ("#4477aa", "o"), "network": ("#ee7733", "^")}
#: Models far below the mean of the data are drawn at this value: how far below says nothing.
_FLOOR = -0.5


def scores(
    adata: AnnData,
    target: str | Sequence[str] | None = None,
    *,
    per: Per = "cell_type",
    betas_key: str = _keys.BETAS,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Compare the refined coefficients with the seed on held-out blocks.

    One marker a target, cell type and body; above the diagonal the refinement beats the seed. Filled markers are what
    the fit kept. Values below -0.5 are drawn there.

    Parameters
    ----------
    adata
        Annotated data after ``tl.fit_betas``.
    target
        Modelled genes; all by default.
    per
        One marker for each ``"cell_type"`` of a target, or one for each ``"target"``.
    betas_key
        Key of the coefficients.
    ax
        Axes to draw on.
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
    Axes, or the figure.

    Raises
    ------
    KeyError
        When there are no coefficients, or none of ``target``.
    ValueError
        When no refinement was fitted.
    """
    table = get.scores(adata, target=target, per=per, betas_key=betas_key)
    bodies = [b for b in _BODIES if f"r2_{b}" in table and table[f"r2_{b}"].notna().any()]
    if not bodies or not table["r2_seed"].notna().any():
        msg = "Expected the scores to hold the held-out R2 of a seed and of a refinement, found none to compare."
        raise ValueError(msg)
    ax = new_axes(ax, figsize, (4.4, 4.2))
    seed = table["r2_seed"].to_numpy(float).clip(_FLOOR)
    lowest, highest = [], []
    for body in bodies:
        color, marker = _BODIES[body]
        refined = table[f"r2_{body}"].to_numpy(float).clip(_FLOOR)
        there = np.isfinite(refined) & np.isfinite(seed)
        kept = there & (table["kept"].astype(str) == body).to_numpy() if "kept" in table else there
        for mask, face in ((there & ~kept, "none"), (kept, color)):
            ax.scatter(
                seed[mask], refined[mask], s=22, marker=marker, facecolor=face, edgecolor=color, lw=0.9, alpha=0.8
            )
        better = int((refined[there] > seed[there]).sum())
        label = f"{body}: better in {better} of {int(there.sum())}"
        ax.scatter([], [], s=22, marker=marker, color=color, label=label)
        lowest.append(min(seed[there].min(), refined[there].min()))
        highest.append(max(seed[there].max(), refined[there].max()))
    low, high = min(*lowest, 0.0), max(*highest, 0.1)
    margin = 0.05 * (high - low)
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color="black", lw=0.8, ls="--", zorder=0)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.8", lw=0.8, zorder=0)
    ax.set(
        xlim=ends, ylim=ends, xlabel="held-out R² of the seed", ylabel="held-out R² of the refinement", aspect="equal"
    )
    if "kept" in table:
        ax.scatter([], [], s=22, facecolor="none", edgecolor="black", label="hollow: not kept")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.13))
    clean(ax)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def training(
    adata: AnnData,
    target: str | Sequence[str] | None = None,
    *,
    betas_key: str = _keys.BETAS,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the loss of the networks against the epoch: thin lines are targets, thick ones their median.

    Parameters
    ----------
    adata
        Annotated data after ``tl.fit_betas`` with a network as body.
    target
        Modelled genes; all by default.
    betas_key
        Key of the coefficients.
    ax
        Axes to draw on.
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
    Axes, or the figure.

    Raises
    ------
    KeyError
        When there are no training curves, or none of ``target``.
    """
    from matplotlib.ticker import MaxNLocator

    read_betas(adata, betas_key)
    curves = adata.uns[betas_key].get("training")
    if curves is None or len(curves) == 0:
        msg = (
            f"Training curves not found in adata.uns[{betas_key!r}]; only networks have them: "
            'call `st.tl.fit_betas(adata, body="cnn")` first.'
        )
        raise KeyError(msg)
    if target is not None:
        wanted = [target] if isinstance(target, str) else list(target)
        assert_genes(wanted, curves["target"].astype(str).unique(), name="target", where="the training curves")
        curves = curves[curves["target"].astype(str).isin(wanted)]
    ax = new_axes(ax, figsize, (4.8, 3.4))
    names = curves["target"].astype(str)
    for column, color in (("train", "#4477aa"), ("validation", "#ee7733")):
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
