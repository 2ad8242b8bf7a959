"""Maps of coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import BetaModel, read_betas
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._modulators import INTERCEPT, column_names
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_in_range, assert_one_of
from spacetravlr.pl._colors import DIVERGING, GREY, centred
from spacetravlr.pl._figure import as_list, finish, new_grid, term_labels
from spacetravlr.pl._tissue import draw_values, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Bools
    from spacetravlr.pl._figure import Drawn

Mask = Literal["insignificant", "constant"]


@document
def betas(
    adata: AnnData | SpatialData,
    target: str,
    modulator: str | Sequence[str] | None = None,
    *,
    n_top: int = 6,
    mask: Mask | None = None,
    fdr: float = 0.1,
    betas_key: str = _keys.BETAS,
    library_key: str | None = None,
    library_id: str | None = None,
    limit: float | None = None,
    cmap: str = DIVERGING,
    size: float | None = None,
    ncols: int = 3,
    table_key: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    return_fig: bool = False,
    save: str | PathLike[str] | None = None,
) -> Drawn:
    """Map the coefficients of modulators of a target at each cell.

    Colours are centred on zero: the modulator raises the target where it is red, lowers it where it is blue.

    Parameters
    ----------
    %(adata_fitted)s
    %(target_one)s
    modulator
        One modulator or several: ``"FOXO1"``, ``"CXCL12$CXCR4"`` (ligand and receptor) or ``"CCL19#EBF1"`` (ligand and
        transcription factor), ``"CXCR4"`` (a receptor by itself), ``"beta0"`` for the intercept. By default the most
        important ones.
    n_top
        How many maps when no modulator is named.
    mask
        What is left grey, where errors are known (fits with ``counts_layer=``): ``"insignificant"``, cells of types in
        which the q-value of the coefficient is above ``fdr``; ``"constant"``, all cells where that of a coefficient
        that varies is.
    fdr
        False discovery rate of ``mask``.
    %(betas_key)s
    %(library_key)s
    %(library_id)s
    %(limit)s
    %(cmap)s
    %(size)s
    %(ncols)s
    %(table_key)s
    %(ax_panels)s
    %(figsize)s
    %(title)s
    %(return_fig)s
    %(save)s

    Returns
    -------
    Axes (a list for several modulators), or the figure.

    Raises
    ------
    KeyError
        When there are no coefficients, or the target or the modulator is not in the model.
    ValueError
        When ``mask`` is asked for and the fit knows no errors.
    """
    assert_one_of(mask, (None, *get_args(Mask)), name="mask")
    assert_in_range(fdr, 0.0, 1.0, name="fdr")
    adata = unwrap(adata, table_key)
    model = read_betas(adata, betas_key)
    block, rows = model.of(target), target_rows(model, target)
    names = [name.removeprefix("beta_") for name in column_names(rows)]
    if modulator is None:
        wanted = [names[i] for i in _most_important(rows, block)[:n_top]]
    else:
        wanted = [m.removeprefix("beta_") for m in as_list(modulator)]
    assert_genes(wanted, names, name="modulator", where=f"the modulators of {target!r}")
    hidden = None if mask is None else _hidden(adata, target, mask, fdr, betas_key)
    labels = term_labels(rows)
    layout = tissue_layout(adata, library_key=library_key, library_id=library_id)
    axes = new_grid(ax, len(wanted), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
    for name, panel in zip(wanted, axes, strict=True):
        column = names.index(name)
        label = f"expression of {target}" if name == "beta0" else f"effect on {target} per unit"
        values = block[:, column]
        norm, background = centred(values, limit), None
        if hidden is not None:
            values, background = np.where(hidden.get(name, False), np.nan, values), GREY
        draw_values(values, panel, layout=layout, label=label, cmap=cmap, norm=norm, size=size, background=background)
        panel.set_title(f"{labels[column]} \N{RIGHTWARDS ARROW} {target}")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _hidden(adata: AnnData, target: str, mask: Mask, fdr: float, betas_key: str) -> dict[str, Bools]:
    """Cells that are left grey, by modulator."""
    table = get.modulators(adata, target=target, betas_key=betas_key)
    if "q" not in table:
        msg = (
            f"Expected a fit with errors for `mask={mask!r}`, found one without; fit counts: "
            "`st.tl.fit_betas(adata, counts_layer=...)`."
        )
        raise ValueError(msg)
    key = cluster_key_of(adata, betas_key=betas_key)
    out = {}
    for name, part in table.groupby("modulator", sort=False):
        if mask == "constant":
            q = float(part["q_varies"].iloc[0])
            out[str(name)] = np.full(adata.n_obs, not q <= fdr)
            continue
        shown = part.loc[part["q"] <= fdr, "cell_type"].to_numpy()
        if key in adata.obs:
            out[str(name)] = ~np.isin(adata.obs[key].astype(str).to_numpy(), shown)
        else:
            out[str(name)] = np.full(adata.n_obs, not len(shown))
    return out


def target_rows(model: BetaModel, target: str) -> pd.DataFrame:
    """Rows of the terms table of one target, in the order of its columns."""
    columns = model.design.targets.columns_of(model.target_names.index(target))
    return model.table.iloc[columns]


def _most_important(rows: pd.DataFrame, block: np.ndarray) -> list[int]:
    """Positions of the terms, most important first; by importance where the fit found one."""
    score = rows["importance"].to_numpy(float) if "importance" in rows else np.abs(block).mean(axis=0)
    terms = np.flatnonzero((rows["kind"] != INTERCEPT).to_numpy())
    return list(terms[np.argsort(-np.nan_to_num(score[terms]), kind="stable")])
