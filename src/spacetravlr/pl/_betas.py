"""Maps of coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spacetravlr import _keys, get
from spacetravlr._anndata._betas import BetaModel, read_betas
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._modulators import INTERCEPT, column_names
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import find_terms, term_labels
from spacetravlr._docs import document
from spacetravlr._validators import assert_in_range, assert_one_of
from spacetravlr.pl._colors import DIVERGING, GREY, centred
from spacetravlr.pl._figure import as_list, finish, new_grid, set_title
from spacetravlr.pl._tissue import draw_values, note, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr._types import Bools, Floats
    from spacetravlr.pl._figure import Drawn

Mask = Literal["insignificant", "constant"]
Value = Literal["coefficient", "effect"]


@document
def betas(
    adata: AnnData | SpatialData,
    target: str,
    modulator: str | Sequence[str] | None = None,
    *,
    value: Value = "coefficient",
    n_top: int = 6,
    mask: Mask | None = None,
    fdr: float = 0.1,
    betas_key: str = _keys.BETAS,
    library_key: str | None = None,
    library_id: str | None = None,
    limit: float | str | None = None,
    share_limit: bool = False,
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
        One modulator or several, as figures call them: ``"FOXO1"``, ``"CXCL12-CXCR4"`` (ligand and receptor),
        ``"CCL19 x EBF1"`` (ligand and transcription factor), ``"CXCR4 (receptor)"`` (the main effect of a receptor),
        ``"intercept"``; or as tables do: ``"CXCL12$CXCR4"``, ``"CCL19#EBF1"``, ``"CXCR4"``, ``"beta0"``. By default the
        most important ones.
    value
        ``"coefficient"`` is the change of the target per unit of the modulator; ``"effect"`` is that times the standard
        deviation of the modulator over all cells, so that transcription factors and pairs compare.
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
    share_limit
        One colour scale for all panels; most useful with ``value="effect"``.
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

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> panels = st.pl.betas(adata, "PAX5", ["FOXO1", "CXCL12-CXCR4"], value="effect", share_limit=True)
    >>> [panel.get_title() for panel in panels]
    ['FOXO1 → PAX5', 'CXCL12-CXCR4 → PAX5']
    """
    assert_one_of(value, get_args(Value), name="value")
    assert_one_of(mask, (None, *get_args(Mask)), name="mask")
    assert_in_range(fdr, 0.0, 1.0, name="fdr")
    adata = unwrap(adata, table_key)
    model = read_betas(adata, betas_key)
    block, rows = model.of(target), target_rows(model, target)
    names = [name.removeprefix("beta_") for name in column_names(rows)]
    if modulator is None:
        wanted = _most_important(rows, block)[:n_top]
    else:
        wanted = find_terms(as_list(modulator), rows, name="modulator", where=f"the modulators of {target!r}")
    hidden = None if mask is None else _hidden(adata, target, mask, fdr, betas_key)
    labels = term_labels(rows)
    drawn = block[:, wanted].astype(float)
    if value == "effect":
        drawn *= _spreads(adata, target, rows, betas_key)[wanted]
    layout = tissue_layout(adata, library_key=library_key, library_id=library_id)
    axes = new_grid(ax, len(wanted), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
    for column, values, panel in zip(wanted, drawn.T, axes, strict=True):
        norm, background = centred(drawn if share_limit else values, limit), None
        if hidden is not None:
            values, background = np.where(hidden.get(names[column], False), np.nan, values), GREY
        text = _unit(target, labels[column], value)
        draw_values(values, panel, layout=layout, label=text, cmap=cmap, norm=norm, size=size, background=background)
        if not drawn[:, wanted.index(column)].any():
            note(panel, "zero everywhere: not kept")
        set_title(panel, f"{labels[column]} \N{RIGHTWARDS ARROW} {target}")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def _unit(target: str, label: str, value: Value) -> str:
    if label == INTERCEPT:
        return f"expression of {target}"
    return f"change of {target} per {'unit' if value == 'coefficient' else 'SD'}\nof {label}"


def _spreads(adata: AnnData, target: str, rows: pd.DataFrame, betas_key: str) -> Floats:
    """Standard deviation over all cells of what each coefficient multiplies; one for the intercept."""
    table = get.modulators(adata, target=target, effects=True, betas_key=betas_key)
    table = table[table["cell_type"] == table["cell_type"].iloc[0]] if len(table) else table
    spread = np.ones(len(rows))
    spread[(rows["kind"] != INTERCEPT).to_numpy()] = table["modulator_sd"].to_numpy(float)
    return spread


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
