"""Maps of coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._betas import BetaModel, read_betas
from spacetravlr._anndata._modulators import INTERCEPT, column_names
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes
from spacetravlr.pl._colors import DIVERGING, centred
from spacetravlr.pl._figure import as_list, finish, new_grid, term_labels
from spacetravlr.pl._tissue import draw_values, tissue_layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from spacetravlr.pl._figure import Drawn


@document
def betas(
    adata: AnnData | SpatialData,
    target: str,
    modulator: str | Sequence[str] | None = None,
    *,
    n_top: int = 6,
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
    """
    adata = unwrap(adata, table_key)
    model = read_betas(adata, betas_key)
    block, rows = model.of(target), target_rows(model, target)
    names = [name.removeprefix("beta_") for name in column_names(rows)]
    if modulator is None:
        wanted = [names[i] for i in _most_important(rows, block)[:n_top]]
    else:
        wanted = [m.removeprefix("beta_") for m in as_list(modulator)]
    assert_genes(wanted, names, name="modulator", where=f"the modulators of {target!r}")
    labels = term_labels(rows)
    layout = tissue_layout(adata, library_key=library_key, library_id=library_id)
    axes = new_grid(ax, len(wanted), figsize, (layout.panel[0] + 1.1, layout.panel[1] + 0.5), ncols)
    for name, panel in zip(wanted, axes, strict=True):
        column = names.index(name)
        label = f"expression of {target}" if name == "beta0" else f"effect on {target} per unit"
        values = block[:, column]
        draw_values(values, panel, layout=layout, label=label, cmap=cmap, norm=centred(values, limit), size=size)
        panel.set_title(f"{labels[column]} \N{RIGHTWARDS ARROW} {target}")
    return finish(axes, title=title, return_fig=return_fig, save=save)


def target_rows(model: BetaModel, target: str) -> pd.DataFrame:
    """Rows of the terms table of one target, in the order of its columns."""
    columns = model.design.targets.columns_of(model.target_names.index(target))
    return model.table.iloc[columns]


def _most_important(rows: pd.DataFrame, block: np.ndarray) -> list[int]:
    """Positions of the terms, most important first; by importance where the fit found one."""
    score = rows["importance"].to_numpy(float) if "importance" in rows else np.abs(block).mean(axis=0)
    terms = np.flatnonzero((rows["kind"] != INTERCEPT).to_numpy())
    return list(terms[np.argsort(-np.nan_to_num(score[terms]), kind="stable")])
