"""How well each target is modelled, held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.models._held_out import target_scores

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

Per = Literal["cell_type", "target"]


def scores(
    adata: AnnData | SpatialData,
    *,
    target: str | Sequence[str] | None = None,
    per: Per = "cell_type",
    betas_key: str = _keys.BETAS,
) -> pd.DataFrame:
    """Tabulate the held-out and training scores of the fit.

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`.
    target
        Modelled genes; all by default.
    per
        ``"cell_type"`` is one row a target and cell type, ``"target"`` averages over types, weighted by held-out
        variance, so that the average is again one minus a ratio of sums of squares.
    betas_key
        Key of the coefficients.

    Returns
    -------
    Cells, held-out R2 (``r2_*``, on blocks that took no part in any choice), training R2 (``r2_train_*``), and which
    body was kept.

    Raises
    ------
    KeyError
        When there are no coefficients, or none of ``target``.
    ValueError
        When ``per`` is unknown.
    """
    assert_one_of(per, get_args(Per), name="per")
    model = read_betas(unwrap(adata), betas_key)
    table = model.scores
    if target is not None:
        wanted = [target] if isinstance(target, str) else list(target)
        assert_genes(wanted, model.target_names, name="target", where="the fitted targets")
        table = table[table["target"].astype(str).isin(wanted)]
    return target_scores(table) if per == "target" else table.reset_index(drop=True).copy()
