"""How well targets are modelled, and how the networks learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._expression import is_smoothed
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.pl._colors import BLUE, BODY_COLORS, CURVE_COLORS, ORANGE
from spacetravlr.pl._figure import as_list, clean, finish, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Floats
    from spacetravlr.get._scores import Per
    from spacetravlr.pl._figure import Drawn

Kind = Literal["scatter", "ranking"]
_MARKERS = {"pooled": "s", "surface": "o", "network": "^"}
#: What refined coefficients are compared with, by their column: its name, and what they are called.
_REFERENCES = {
    "r2_adjusted": ("type, position and adjustment", "with regulators"),
    "r2_field": ("type and smooth position alone", "with regulators"),
    "r2_seed": ("the seed", "of the refinement"),
}
#: Differences of R2 below this are rounding, not an improvement.
_TIE = 1e-3
#: Models far below the mean of the data are drawn at this value: how far below says nothing.
_FLOOR = -0.5
_WIDEST = 2.0  # interval of an explained part that tells nothing
_EXPLAINED = ("explained", "explained_low", "explained_high")
CEILING = "0.88"
_NONE = "no model kept (mean of the type)"
#: Targets that have a bar with a name each; more are a curve.
_MAX_BARS = 60
#: Markers of a scatter shrink when there are more than this many.
_MANY = 150


@document
def scores(
    adata: AnnData | SpatialData,
    target: str | Sequence[str] | None = None,
    *,
    kind: Kind = "scatter",
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

    ``kind="scatter"``: one marker per target, cell type and body; above the diagonal the refinement beats the seed. Of
    a fit to counts, what type, smooth position and adjustment terms explain is compared with what regulators add to
    them, and a dash is the ceiling: what is not counting noise. Filled markers are what the fit kept. Values below -0.5
    are drawn at -0.5. Differences of at most 0.001 count as ties.

    ``kind="ranking"``: targets by the held-out R2 of what was kept, over all cell types. Pale bars end at the ceiling,
    a tick is what type, position and adjustment terms (or the seed) explain alone. Up to 60 targets have a bar and a
    name each, with the part of the ceiling that is explained and its interval; more are a curve.

    Parameters
    ----------
    %(adata_fitted)s
    %(targets_all)s
    kind
        ``"scatter"`` or ``"ranking"``.
    per
        One marker of the scatter for each ``"cell_type"`` of a target, or one for each ``"target"``.
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
        When ``kind`` is unknown, or no refinement was fitted.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, n_targets=3, n_tfs=4, n_active_tfs=2, depth=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, layer="log1p", counts_layer="counts", show_progress_bar=False)
    >>> ax = st.pl.scores(adata)
    >>> ax = st.pl.scores(adata, kind="ranking")
    """
    assert_one_of(kind, get_args(Kind), name="kind")
    if kind == "ranking":
        per = "target"
    table = get.scores(adata, target=target, per=per, betas_key=betas_key, table_key=table_key)
    bodies = [b for b in _MARKERS if f"r2_{b}" in table and table[f"r2_{b}"].notna().any()]
    reference = next((c for c in _REFERENCES if c in table and table[c].notna().any()), None)
    if not bodies or reference is None:
        msg = "Expected the scores to hold the held-out R2 of a seed and of a refinement, found none to compare."
        raise ValueError(msg)
    model = read_betas(plain := unwrap(adata, table_key), betas_key)
    of = " of imputed values" if is_smoothed(plain, str(model.params.get("layer") or "")) else ""
    if kind == "ranking":
        few = len(table) <= _MAX_BARS
        ax = new_axes(ax, figsize, (5.4, max(2.0, 1.2 + 0.2 * len(table))) if few else (6.0, 3.6))
        (_bars if few else _curve)(table, reference, of, ax)
        return finish(ax, title=title, return_fig=return_fig, save=save)
    ax = new_axes(ax, figsize, (4.4, 4.2))
    _scatter(table, bodies, reference, of, ax)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _kept(table: pd.DataFrame, of: str) -> tuple[Floats, str]:
    """Held-out R2 of what was kept, against measured values where it is known, and what it is called."""
    if "r2_kept_raw" in table and table["r2_kept_raw"].notna().any():
        return table["r2_kept_raw"].to_numpy(float), "held-out R² (measured values)"
    return table["r2_kept"].to_numpy(float), f"held-out R²{of}"


def _ranked(table: pd.DataFrame, reference: str, of: str) -> tuple[pd.DataFrame, str]:
    """Targets from best to worst with what a ranking shows of each."""
    kept, name = _kept(table, of)
    shown = pd.DataFrame({"target": table["target"].astype(str), "kept": kept})
    shown["nothing"] = (table["kept"].astype(str) == "zero").to_numpy() if "kept" in table else False
    for column, source in (("alone", reference), ("ceiling", "ceiling"), *((c, c) for c in _EXPLAINED)):
        shown[column] = table[source].to_numpy(float) if source in table else np.nan
    if name.endswith("(measured values)"):  # the other column is not against these
        shown["alone"] = np.nan
    for column in ("kept", "alone"):
        shown[column] = shown[column].clip(lower=_FLOOR)
    return shown.sort_values("kept", ascending=False, kind="stable", na_position="last").reset_index(drop=True), name


def _bars(table: pd.DataFrame, reference: str, of: str, ax: Axes) -> None:
    shown, name = _ranked(table, reference, of)
    place = np.arange(len(shown))
    if shown["ceiling"].notna().any():
        ax.barh(place, shown["ceiling"], color=CEILING, height=0.8, label="ceiling: not counting noise")
    for chosen, color, label in ((~shown["nothing"], BLUE, "with regulators"), (shown["nothing"], "0.6", _NONE)):
        if chosen.any():
            ax.barh(place[chosen], shown["kept"].fillna(0)[chosen], color=color, height=0.5, label=label)
    if shown["alone"].notna().any():
        ax.plot(shown["alone"], place, "|", color=ORANGE, ms=9, mew=2, label=f"{_REFERENCES[reference][0]}")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(place, shown["target"], fontsize=8)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel(name)
    if shown["explained"].notna().any():
        ax.text(1.02, 1.0, "explained of the ceiling", transform=ax.transAxes, fontsize=7, color="0.35", va="bottom")
        for y, row in zip(place, shown.itertuples(index=False), strict=True):
            ax.text(1.02, float(y), _explained(row), transform=ax.get_yaxis_transform(), fontsize=7, va="center")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.55 / _height(ax)), ncols=2)
    clean(ax)


def _explained(row: Any) -> str:
    """The explained part of the ceiling with its interval, in per cent."""
    if not np.isfinite(row.explained):
        return "-"
    if row.explained_high - row.explained_low > _WIDEST:
        return "undetermined"
    text = f"{100 * row.explained:.0f} %"
    if np.isfinite(row.explained_low) and np.isfinite(row.explained_high):
        text += f" ({100 * row.explained_low:.0f} to {100 * row.explained_high:.0f})"
    return text


def _curve(table: pd.DataFrame, reference: str, of: str, ax: Axes) -> None:
    shown, name = _ranked(table, reference, of)
    place = np.arange(1, len(shown) + 1)
    if shown["ceiling"].notna().any():
        ax.vlines(place, 0, shown["ceiling"], color=CEILING, lw=1.5, label="ceiling: not counting noise", zorder=0)
    ax.plot(place, shown["kept"], color=BLUE, lw=2, label="with regulators")
    if shown["alone"].notna().any():
        ax.plot(place, shown["alone"], ".", color=ORANGE, ms=4, alpha=0.8, label=f"{_REFERENCES[reference][0]}")
    ax.axhline(0, color="black", lw=0.8)
    none = shown["nothing"]
    if none.any():
        ax.plot(place[none], shown["kept"][none], ".", color="0.6", ms=4, label=_NONE)
    ax.set(
        xlabel=f"{len(shown)} targets, the best first ({int((~none).sum())} with a model)",
        ylabel=name,
        xlim=(0, len(shown) + 1),
    )
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    clean(ax)


def _height(ax: Axes) -> float:
    """Of the axes, in inches."""
    return max(ax.get_position().height * ax.get_figure(root=True).get_figheight(), 0.5)  # type: ignore[union-attr]


def _scatter(table: pd.DataFrame, bodies: list[str], reference: str, of: str, ax: Axes) -> None:
    seed = table[reference].to_numpy(float).clip(_FLOOR)
    lowest, highest = [], []
    area, alpha = (22.0, 0.8) if len(table) <= _MANY else (9.0, 0.5)
    for body in bodies:
        color, marker = BODY_COLORS[body], _MARKERS[body]
        refined = table[f"r2_{body}"].to_numpy(float).clip(_FLOOR)
        known = np.isfinite(refined) & np.isfinite(seed)
        kept = known & (table["kept"].astype(str) == body).to_numpy() if "kept" in table else known
        for mask, face in ((known & ~kept, "none"), (kept, color)):
            ax.scatter(
                seed[mask], refined[mask], s=area, marker=marker, facecolor=face, edgecolor=color, lw=0.9, alpha=alpha
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
        ax.scatter(
            seed,
            ceiling,
            s=30 if area > 9 else 12,
            marker="_",
            color="0.6",
            zorder=0,
            label="ceiling: not counting noise",
        )
        highest.append(float(np.nanmax(ceiling, initial=0.0)))
    low, high = min([*lowest, 0.0]), max([*highest, 0.1])
    margin = 0.05 * (high - low)
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color="black", lw=0.8, ls="--", zorder=0)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.8", lw=0.8, zorder=0)
    alone, refined_name = _REFERENCES[reference]
    ax.set(xlim=ends, ylim=ends, xlabel=f"held-out R²{of} of {alone}", ylabel=f"held-out R²{of} {refined_name}")
    ax.set_aspect("equal")
    if "kept" in table:
        ax.scatter([], [], s=22, facecolor="none", edgecolor="black", label="hollow: not kept")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16))
    clean(ax)


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

    The loss is the mean squared error of the standardised target, without penalties.

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
    ax.set(xlabel="epoch", ylabel="mean squared error (SD² of the target)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    n = names.nunique()
    ax.legend(frameon=False, fontsize=8, title=f"median of {n} targets" if n > 1 else None, title_fontsize=8)
    clean(ax)
    if n == 1:
        ax.set_title(names.iloc[0])
    return finish(ax, title=title, return_fig=return_fig, save=save)
