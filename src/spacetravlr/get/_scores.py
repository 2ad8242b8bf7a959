"""Held-out accuracy of the model of each target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_one_of
from spacetravlr.models._held_out import held_out_gain, target_scores

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

Per = Literal["cell_type", "target"]


@document
def scores(
    adata: AnnData | SpatialData,
    *,
    target: str | Sequence[str] | None = None,
    per: Per = "cell_type",
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Tabulate the held-out accuracy of the fit, and its training scores.

    Parameters
    ----------
    %(adata_fitted)s
    %(targets_all)s
    per
        ``"cell_type"`` gives one row per target and cell type; ``"target"`` averages over types, weighted by held-out
        variance, so that the average is again one minus a ratio of sums of squares.
    %(betas_key)s
    %(table_key)s

    Returns
    -------
    Number of cells, held-out R2 (``r2_*``, on CV blocks that took no part in any choice), training R2
    (``r2_train_*``), ``gain`` and ``kept``, the body that was kept. ``r2_kept_raw``, if present, is the held-out R2
    against values before imputation.

    ``gain`` is what regulators add on held-out blocks: the R2 of the model minus the best R2 without regulators, which
    is that of the type mean or, in fits to counts, that of type and smooth position, alone (``r2_field``) or with
    adjustment terms (``r2_adjusted``). Of fits to counts
    the model is ``r2_pooled``, whether it was kept or not; of others it is what was kept. NaN where a score is not
    known. A target may keep a model and gain nothing: whether a model is kept is decided on other blocks, and in fits
    to counts by the evidence for its terms. So ``kept`` alone does not say that a target is regulated.

    None of these scores shows that the regulators are right: see the section on limits in :doc:`/how-it-works`.

    Raises
    ------
    KeyError
        If there are no coefficients, or none for ``target``.
    ValueError
        If ``per`` is unknown.
    """
    assert_one_of(per, get_args(Per), name="per")
    model = read_betas(unwrap(adata, table_key), betas_key)
    # names come back from a file as categories or as text
    table = model.scores.astype({"target": str, "cell_type": str})
    if target is not None:
        wanted = [target] if isinstance(target, str) else list(target)
        assert_genes(wanted, model.target_names, name="target", where="the fitted targets")
        table = table[table["target"].isin(wanted)]
    if per == "target":
        return target_scores(table)
    table = table.reset_index(drop=True)
    table.insert(table.columns.get_loc("kept") if "kept" in table else table.shape[1], "gain", held_out_gain(table))
    return table
