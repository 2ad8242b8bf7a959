"""A screen at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import get
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_key, assert_one_of, assert_positive
from spacetravlr.pl._colors import DIVERGING, GREY, ROLE_COLORS, ROLE_LABELS, centred
from spacetravlr.pl._figure import clean, finish, new_axes

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints
    from spacetravlr.pl._figure import Drawn

Kind = Literal["heatmap", "ranking"]


@document
def screen(
    adata: AnnData | SpatialData,
    *,
    kind: Kind = "heatmap",
    cell_type: str | None = None,
    n_perturbations: int = 30,
    n_genes: int = 40,
    limit: float | str | None = None,
    cmap: str = DIVERGING,
    table_key: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Draw the strongest perturbations of a screen.

    ``kind="heatmap"``: mean change of each gene in units of its standard deviation, perturbations and genes with
    similar effects beside each other; the perturbed gene itself is grey. ``kind="ranking"``: perturbations by the mean
    absolute change over all modelled genes. Colours are the roles of the perturbed gene (transcription factor, ligand,
    receptor), one stripe for each that it has.

    Parameters
    ----------
    %(adata_screen)s
    kind
        ``"heatmap"`` or ``"ranking"``.
    cell_type
        Only cells of this type; all by default.
    n_perturbations
        Perturbations shown, the strongest.
    n_genes
        Genes shown, those that change most.
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
        When ``adata`` is not a screen.
    ValueError
        When ``cell_type`` does not exist.
    """
    assert_one_of(kind, get_args(Kind), name="kind")
    for name, n in (("n_perturbations", n_perturbations), ("n_genes", n_genes)):
        assert_positive(n, name=name)
    adata = unwrap(adata, table_key)
    assert_key(adata, "uns", "screen", name="adata", hint="Call `st.tl.genome_screen(adata)` and pass its result.")
    part = adata if cell_type is None else get.screen(adata, cell_type=cell_type)
    part = part[:, part.var["modelled"].to_numpy(bool)]
    effect = _effects(part)
    strength = np.abs(np.nan_to_num(effect)).mean(axis=1)
    rows = np.argsort(-strength, kind="stable")[:n_perturbations]
    rows = rows[strength[rows] > 0] if strength.any() else rows
    where = "all cells" if cell_type is None else str(cell_type)
    mode = str(adata.uns["screen"].get("mode", "perturbation"))
    if kind == "ranking":
        ax = new_axes(ax, figsize, (4.6, max(1.9, 0.9 + 0.2 * len(rows))))
        _ranking(part.obs.iloc[rows], strength[rows], ax)
    else:
        columns = np.argsort(-np.abs(np.nan_to_num(effect[rows])).max(axis=0), kind="stable")[:n_genes]
        rows, columns = (
            rows[_similar(effect[np.ix_(rows, columns)])],
            columns[_similar(effect[np.ix_(rows, columns)].T)],
        )
        ax = new_axes(ax, figsize, (2.6 + 0.2 * len(columns), max(3.0, 1.4 + 0.2 * len(rows))))
        _heatmap(effect[np.ix_(rows, columns)], part.obs_names[rows], part.var_names[columns], limit, cmap, ax)
    ax.set_title(f"{mode}, {where}")
    if kind == "heatmap":
        _mark_roles(part.obs.iloc[rows], ax)
    return finish(ax, title=title, return_fig=return_fig, save=save)


def _effects(part: AnnData) -> Floats:
    """Change in standard deviations of the modelled genes; NaN for the perturbed gene itself."""
    spread = part.var["sd"].to_numpy(float)
    effect = np.asarray(part.X, dtype=float) / np.where(spread > 0, spread, np.inf)
    effect[part.obs_names.to_numpy()[:, None] == part.var_names.to_numpy()[None]] = np.nan
    return effect


def _similar(effect: Floats) -> Ints:
    """Order of the rows in which similar ones are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(effect) < 3:
        return np.arange(len(effect))
    return leaves_list(linkage(np.nan_to_num(effect), method="average", optimal_ordering=True))


def _heatmap(effect: Floats, rows: pd.Index, columns: pd.Index, limit: float | str | None, cmap: str, ax: Axes) -> None:
    from matplotlib import colormaps

    colors = colormaps[cmap].with_extremes(bad=GREY)
    image = ax.imshow(effect, cmap=colors, norm=centred(effect, limit), aspect="auto", interpolation="nearest")
    ax.set_xticks(np.arange(len(columns)), columns, rotation=90, fontsize=8)
    ax.set_yticks(np.arange(len(rows)), rows, fontsize=8)
    ax.set(xlabel="gene", ylabel="perturbed gene")
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=20, pad=0.06)
    bar.set_label("mean change (SD of the gene)")


def _ranking(obs: pd.DataFrame, strength: Floats, ax: Axes) -> None:
    position, height = np.arange(len(obs)), 0.75
    roles = _roles(obs)
    for y, length, own in zip(position, strength, roles, strict=True):
        colors = [ROLE_COLORS[r] for r in own] or [GREY]
        stripe = height / len(colors)
        for i, color in enumerate(colors):
            ax.barh(y - height / 2 + (i + 0.5) * stripe, length, height=stripe, color=color, lw=0)
    ax.set_yticks(position, obs.index, fontsize=8)
    ax.set_ylim(len(obs) - 0.4, -0.6)
    ax.set_xlabel("mean absolute change of modelled genes (SD)")
    if any(roles):
        ax.legend(handles=_role_handles(roles), frameon=False, fontsize=8, loc="lower right")
    clean(ax)


def _roles(obs: pd.DataFrame) -> list[list[str]]:
    """Roles of each perturbed gene; it may have several."""
    known = {r: obs[f"is_{r}"].to_numpy(bool) for r in ROLE_COLORS if f"is_{r}" in obs}
    return [[r for r, has in known.items() if has[i]] for i in range(len(obs))]


def _role_handles(roles: list[list[str]]) -> list[Patch]:
    from matplotlib.patches import Patch

    handles = [Patch(color=c, label=ROLE_LABELS[r]) for r, c in ROLE_COLORS.items() if any(r in own for own in roles)]
    return handles + ([] if all(roles) else [Patch(color=GREY, label="none of these")])


def _mark_roles(obs: pd.DataFrame, ax: Axes) -> None:
    """Squares right of a heat map in the colours of the roles of each row, and their legend above."""
    from matplotlib.transforms import ScaledTranslation

    roles = _roles(obs)
    if not any(roles):
        return
    scale = ax.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    for i, role in enumerate(ROLE_COLORS):
        rows = [y for y, own in enumerate(roles) if role in own]
        beside = ax.get_yaxis_transform() + ScaledTranslation((6 + 7 * i) / 72, 0, scale)
        ax.plot([1.0] * len(rows), rows, "s", ms=4.5, color=ROLE_COLORS[role], transform=beside, clip_on=False)
    handles = [h for h in _role_handles(roles) if h.get_label() != "none of these"]
    # in one row where the heat map is as wide as that
    ncols = len(handles) if ax.get_xlim()[1] > 15 else 1
    ax.legend(handles=handles, frameon=False, fontsize=7, ncols=ncols, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    ax.set_title(ax.get_title(), pad=8 + 12 * -(-len(handles) // ncols))
