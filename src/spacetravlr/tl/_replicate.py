"""Whether a fit reproduces on independent halves of the counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator, resolve_n_jobs
from spacetravlr.models._replicate import Recipe, compare, genes_to_knock_out, over_splits

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

_MOST_GENES = 20


@document
def replicate(
    adata: AnnData | SpatialData,
    *,
    counts_layer: str | None = None,
    n_splits: int = 1,
    genes: Sequence[str] | str | None = None,
    betas_key: str = _keys.BETAS,
    rng: Rng = 0,
    n_jobs: int | None = None,
    show_progress_bar: bool | None = None,
    key_added: str = _keys.REPLICATE,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit two independent halves of the counts and measure how well they agree.

    Each molecule is assigned to half :math:`A` or :math:`B` (:func:`spacetravlr.pp.split_counts`). Each half is then
    normalised, its received ligands are computed, and it is fitted as ``adata`` was, with the same regressors, options
    and folds. Cell types, weights and size factors are kept. The halves share the expression of the cells but not the
    counting noise, so a coefficient or effect that appears in only one half is noise. One that appears in both is not
    necessarily causal (:doc:`/how-it-works`, on limits). Each fit has only half of the molecules; the fit of all
    molecules does better.

    Agreement of coefficients and effects is measured by cosine similarity, :math:`a \cdot b / (|a|\,|b|)`, because zero
    means no effect. It is 0 if one half has none.

    Parameters
    ----------
    %(adata_fitted)s
        The fitted values must be the log1p of counts over a size factor per cell; imputation is not repeated.
    counts_layer
        Layer with raw counts (``"X"`` for ``adata.X``); defaults to the layer that the fit used.
    n_splits
        Number of splits into halves; each needs two fits.
    genes
        Genes to knock out; by default the 20 with the largest importance.
    %(betas_key)s
    %(rng)s
    %(n_jobs)s
    %(show_progress_bar)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.uns['replicate']['targets']`` : DataFrame, one row per target
        ``r2``: share of the variance within cell types in one half that the fit of the other half predicts, in blocks
        of the tissue that the fit has not seen; ``reliability``: correlation of the target between the halves, within
        types and in these blocks, which is the share of its variance that is not noise and can be predicted at all;
        ``explained``: ``r2`` over ``reliability`` (NaN below a reliability of 0.02); ``coefficients``: agreement of the
        coefficients in all cells, each multiplied by the standard deviation of its regressor within types (NaN if both
        halves have none); ``active_jaccard``: Jaccard index of the active terms of the two halves; ``kept_a``,
        ``kept_b``: the body that most cells of each half keep. Adjustment terms contribute to ``r2`` only.
    ``adata.uns['replicate']['effects']`` : DataFrame, one row per knocked-out gene
        ``mean_effects``: agreement of its mean effects on the targets (with one target, agreement of the sign);
        ``cell_effects``: agreement of its effects on all targets in all cells (NaN if there are none); ``size``: root
        mean square of the mean effects.
    ``adata.uns['replicate']['params']`` : dict
        The options.

    With several splits, all numbers are means over splits, and columns ``*_sd`` hold the standard deviations.

    Raises
    ------
    KeyError
        If there are no coefficients, a layer does not exist, or ``genes`` cannot be perturbed.
    ValueError
        If counts are needed but no layer is given, values do not follow from the counts, or the coefficients were not
        fitted on this object. This is checked before any long work.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, n_targets=2, depth=3.0, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False)
    >>> st.tl.replicate(adata, genes=["FOXO1"], show_progress_bar=False)
    >>> list(adata.uns["replicate"]["targets"].columns)
    ['r2', 'reliability', 'explained', 'coefficients', 'active_jaccard', 'kept_a', 'kept_b']
    """
    table = unwrap(adata, table_key)
    if n_splits < 1 or int(n_splits) != n_splits:
        msg = f"Expected `n_splits` to be a whole number of at least 1, found `{n_splits}`."
        raise ValueError(msg)
    resolve_n_jobs(n_jobs)
    recipe = Recipe.read(
        table, betas_key=betas_key, counts_layer=counts_layer, n_jobs=n_jobs, show_progress_bar=show_progress_bar
    )
    knocked_out = genes_to_knock_out(recipe.model, genes, _MOST_GENES)
    generator = as_generator(rng)
    found = []
    for _ in range(int(n_splits)):
        first, second = (recipe.replay(half) for half in recipe.halves(generator))
        found.append(compare(first, second, knocked_out, n_jobs))
    targets, effects = over_splits(found)
    medians = (targets["explained"], targets["coefficients"], effects["mean_effects"])
    logger.info(
        "medians over targets: explained %.2f, coefficients %.2f; over knockouts: mean effects %.2f",
        *(column.quantile(0.5) for column in medians),
    )
    out = table.copy() if copy else table
    out.uns[key_added] = {
        "targets": targets,
        "effects": effects,
        "params": {
            "betas_key": betas_key,
            "counts_layer": recipe.counts_layer,
            "n_splits": int(n_splits),
            "rng_seed": int(rng) if isinstance(rng, int) else "",
        },
    }
    return out if copy else None
