"""What a fit finds where nothing regulates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator, resolve_n_jobs
from spacetravlr._validators import assert_one_of
from spacetravlr.models._null_fits import Exchange, Null, compare_with_nulls, find
from spacetravlr.models._replicate import Recipe, genes_to_knock_out
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

_MOST_GENES = 20


@document
def null_fits(
    adata: AnnData | SpatialData,
    null: Null = "moved",
    *,
    n_fits: int = 5,
    counts_layer: str | None = None,
    genes: Sequence[str] | str | None = None,
    betas_key: str = _keys.BETAS,
    rng: Rng = 0,
    n_jobs: int | None = None,
    show_progress_bar: bool | None = None,
    key_added: str = _keys.NULL_FITS,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Repeat the fit on null targets, which nothing can regulate, and report what it finds.

    The fit is repeated with the targets' counts swapped between cells. Regulators, signals, positions and everything
    else stay the same. Whatever this fit keeps or calls is false. Comparing it with the original fit gives a check for
    this section and these prior tables that does not depend on the assumptions of the model.

    * ``"moved"``: each cell type is moved over itself, as on a torus of the quantiles of its positions, one cell for
      one. Neighbours mostly stay neighbours, so smoothness alone is not mistaken for regulation. Each fit uses a new
      random shift.
    * ``"shuffled"``: counts are permuted among a dozen cells of the same type and similar depth. Targets lose their
      smoothness, so this null is easier to pass.

    Counts are brought to the depth of the cell that gets them: those of a deeper cell are thinned, those of a shallower
    one are supplemented by molecules of the cell beside it.

    Parameters
    ----------
    %(adata_fitted)s
        The fitted values must be the log1p of counts over a size factor per cell.
    null
        How counts are swapped, see above.
    n_fits
        Number of null fits. Each takes as long as the original fit. The smallest possible ``p`` is
        ``1 / (n_fits + 1)``.
    counts_layer
        Layer with raw counts (``"X"`` for ``adata.X``); defaults to the layer that the fit used.
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
    ``None``, or the copy. Writes

    ``adata.uns['null_fits']['targets']`` : DataFrame, one row per target
        ``r2``: held-out R2 of what was kept; ``gain``: by how much modulators raise the held-out R2 over cell type and
        smooth position, as in :func:`spacetravlr.get.scores`; ``kept``: whether a model was kept; ``active``: number of
        active terms, without adjustment.
        Columns ``null_*`` are means over the null fits. ``p``: share of the fits, the one of the section among them,
        with at least this ``gain``.
    ``adata.uns['null_fits']['effects']`` : DataFrame, one row per gene that was knocked out
        ``size``: root mean square over the other targets of the mean effect in one round; ``null_size``, ``p``.
    ``adata.uns['null_fits']['summary']`` : dict
        ``kept`` and ``active`` of all targets, as it is and (``null_*``) on average over the null fits, and
        ``false_discovery``: ``null_active`` over ``active``, at most one; NaN where nothing is active.
    ``adata.uns['null_fits']['params']`` : dict
        The options.

    Raises
    ------
    KeyError
        If there are no coefficients, a layer does not exist, or ``genes`` cannot be perturbed.
    ValueError
        If counts are needed but no layer is given, values do not follow from the counts, or the coefficients were not
        fitted on this object. This is checked before any long work.

    See Also
    --------
    spacetravlr.tl.replicate : Whether the fit reproduces on independent halves of the counts.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, n_targets=2, depth=3.0, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False)
    >>> st.tl.null_fits(adata, n_fits=1, genes=["FOXO1"], show_progress_bar=False)
    >>> sorted(adata.uns["null_fits"]["summary"])
    ['active', 'false_discovery', 'kept', 'null_active', 'null_kept']
    """
    table = unwrap(adata, table_key)
    assert_one_of(null, get_args(Null), name="null")
    if n_fits < 1 or int(n_fits) != n_fits:
        msg = f"Expected `n_fits` to be a whole number of at least 1, found `{n_fits}`."
        raise ValueError(msg)
    resolve_n_jobs(n_jobs)
    recipe = Recipe.read(
        table, betas_key=betas_key, counts_layer=counts_layer, n_jobs=n_jobs, show_progress_bar=show_progress_bar
    )
    model = recipe.model
    knocked_out = genes_to_knock_out(model, genes, _MOST_GENES)
    exchange, names, generator = Exchange.of(recipe), recipe.exchanged_names, as_generator(rng)
    as_it_is = GeneFactory(table, betas_key=betas_key, received_key=model.received_key, n_jobs=n_jobs)
    observed = find(as_it_is, list(names), knocked_out)
    found, counts = [], recipe.target_counts
    for _ in range(int(n_fits)):
        replica = recipe.replay_exchanged(exchange.counts(counts, null, generator))
        found.append(find(GeneFactory(replica.adata, n_jobs=n_jobs), list(names.values()), knocked_out))
    targets, effects = compare_with_nulls(observed, found, knocked_out)
    n_active, null_active = int(targets["active"].sum()), float(targets["null_active"].sum())
    summary = {
        "kept": int(targets["kept"].sum()),
        "null_kept": float(targets["null_kept"].sum()),
        "active": n_active,
        "null_active": null_active,
        "false_discovery": min(1.0, null_active / n_active) if n_active else np.nan,
    }
    logger.info(
        "%d of %d targets keep a model, %.1f with %s counts; %d terms are active, %.1f with null targets",
        summary["kept"], len(targets), summary["null_kept"], null, n_active, null_active,
    )  # fmt: skip
    out = table.copy() if copy else table
    out.uns[key_added] = {
        "targets": targets,
        "effects": effects,
        "summary": summary,
        "params": {
            "null": null,
            "n_fits": int(n_fits),
            "betas_key": betas_key,
            "counts_layer": recipe.counts_layer,
            "rng_seed": int(rng) if isinstance(rng, int) else "",
        },
    }
    return out if copy else None
