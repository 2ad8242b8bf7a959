"""Fit the coefficients of every target gene."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from spacetravlr import _keys
from spacetravlr._anndata._fitted_on import FITTED_ON
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import absolute_path
from spacetravlr.models.fit._options import FitOptions
from spacetravlr.models.fit._run import run_fit

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr.nn import NetworkConfig


@document
def fit_betas(
    adata: AnnData,
    targets: Sequence[str] | str | None = None,
    *,
    body: Literal["auto", "pooled", "surface", "cnn", "vit", "seed"] = "auto",
    layer: str | None = None,
    counts_layer: str | None = None,
    noise: Literal["poisson", "none"] | None = None,
    raw_layer: str | None = None,
    cluster_key: str | None = None,
    modulators_key: str = _keys.MODULATORS,
    score_threshold: float = 0.01,
    n_folds: int = 3,
    min_cells: int = 30,
    group_penalty: float | None = None,
    l1_penalty: float | None = None,
    solver: Literal["gram", "group-lasso"] = "gram",
    network: NetworkConfig | None = None,
    block_size: int = 100,
    store: str | os.PathLike[str] | None = None,
    store_as: Literal["float32", "float16", "bodies"] = "float32",
    client: Any = None,
    fdr: float = 0.1,
    n_draws: int = 50,
    uncertainty: bool = False,
    rng: Rng = 0,
    n_jobs: int | None = None,
    show_progress_bar: bool | None = None,
    key_added: str = _keys.BETAS,
    copy: bool = False,
) -> AnnData | None:
    r"""Learn how each gene depends on its regulators and neighbours, at each cell.

    For a target :math:`H` in cell :math:`j` (:doc:`/how-it-works`, section 3),

    .. math::

        H_j = b_{0j} + \sum_m b_{jm} TF_{jm} + \sum_k b_{jk} L_{jk} R_{jk} + \sum_p b_{jp} L_{jp} TF_{jp}

    with coefficients that vary from cell to cell. With ``counts_layer``, expression is taken as measured with counting
    noise (:doc:`/how-it-works`, "Counts"): one hierarchy has a pooled effect of every regressor, with departures by
    cell type and position, each shrunk as far as the data ask (*pooled*), on regressors from which the noise is taken
    out. A target keeps it where its regressors add evidence to what type and smooth position explain.

    Without, values are taken as exact, and three bodies compete: a sparse group lasso in each cell type
    (*seed*), smooth coefficient surfaces over cell type, niche and position (*surface*), and a network that refines the
    seed from the niche image (*network*). Each cell type of each target keeps the best on held-out spatial blocks, or
    none of them. Other blocks, which took no part in any choice, report the scores; the coefficients are then refitted
    on all cells with the chosen settings. Results do not depend on the order of cells, genes, cell types or targets; a
    shared network does depend on which targets are fitted together (``block_size``).

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.received_ligands` and :func:`spacetravlr.pp.modulators`, or
        SpatialData.
    targets
        Genes to model; all targets of the modulator table by default.
    body
        ``"auto"``: with counts the hierarchy, else seed, surface and network compete; ``"pooled"``: the hierarchy,
        whether values are exact or not; for exact values ``"surface"``, ``"cnn"``, ``"vit"``: that one and the seed;
        ``"seed"``: the seed alone. A network that is asked for is compared on up to three choosing folds, one that
        competes on the last.
    layer
        Expression; what the modulators were made with by default.
    counts_layer
        Counts that ``layer`` is the log1p of, over a size factor of each cell (``"X"`` for ``adata.X``).
    noise
        ``"poisson"``: counts are Poisson draws around what a cell expresses; ``"none"``: values are exact, as in
        simulations or protein imaging, and as the published program takes them. The first with ``counts_layer``, else
        the second.
    raw_layer
        Un-imputed expression (``"X"`` for ``adata.X``): adds ``r2_kept_raw``, the held-out R2 against it.
    cluster_key
        Cell types; what the modulators were made with by default.
    modulators_key
        Key of the modulators.
    score_threshold
        Least gain of held-out R2 over the mean of the cell type; below it, coefficients are zero.
    n_folds
        Spatial folds that choose; one more fold reports.
    min_cells
        Cell types with fewer cells use the seed of all cells together.
    group_penalty, l1_penalty
        Penalties of the seed on groups and on single coefficients; chosen by held-out error by default.
    solver
        Solver of the seed: ``"gram"``, or the reference package ``"group-lasso"`` for the delivered fit (slow).
    network
        Settings of the network, :class:`spacetravlr.nn.NetworkConfig`: among them ``mode`` (seed plus a departure, or
        seed times a gate as published), ``encoder`` (one body for a block of targets, or one per target), ``device``
        and ``trainer_kwargs``.
    block_size
        Targets fitted together.
    store
        Folder (zarr) that blocks are written to as they finish. A later call picks up where an interrupted one stopped,
        and the coefficients stay on disk.
    store_as
        What ``store`` holds of the coefficients: ``"float32"``; ``"float16"``, half of it and three digits; or
        ``"bodies"``, tens of kilobytes per target, from which coefficients are evaluated whenever they are read. They
        read as float32 either way.
    %(client)s
    fdr
        False discovery rate at which regressors are called active, where errors are known (*pooled*).
    n_draws
        Draws of the coefficients from their posterior to keep, some hundred kilobytes per target (*pooled*);
        :func:`spacetravlr.tl.perturb` takes errors of effects from them.
    uncertainty
        Also keep the posterior standard deviation of each coefficient at each cell (*pooled* and surfaces).
    rng
        Seed or generator: which blocks form a fold, and the start of networks.
    n_jobs
        Threads; ``None`` is ``st.settings.n_jobs``, on workers of ``client`` their own number. Results do not depend on
        it.
    %(show_progress_bar)s
    %(key_added)s
    %(copy)s

    Returns
    -------
    ``None``, or a copy of ``adata`` when ``copy``. Writes

    ``adata.obsm['betas']`` : array (float32), cells x columns
        Per target its intercept, then its terms; a dask array over the store when ``store`` is given.
    ``adata.obsm['betas_sd']`` : array (float32), cells x columns
        With ``uncertainty``: posterior standard deviations in the units of the coefficients; NaN where the surface was
        not kept, or is a departure from the seed.
    ``adata.uns['betas']`` : dict
        ``terms`` (one row per column: target, kind, tf, ligand, receptor, range, ``importance``: standard deviation of
        the contribution within cell types in units of the target's, ``evidence``: log Bayes factor against absence of a
        term that a delivered surface holds, otherwise NaN, ``active``: supported by that evidence (with counts at odds
        of nine to one) or, for targets that deliver no such surface, of more than 5 % of the median importance),
        ``scores`` (one row per target and cell type: cells, held-out ``r2_zero``, ``r2_pooled``, ``r2_seed``,
        ``r2_surface``, ``r2_network``, ``r2_kept``, training R2, ``kept``; with ``body="auto"``, ``r2_network`` only of
        targets that keep a network somewhere; with counts ``ceiling``: share of the variance within the type that is
        not counting noise, ``explained``: the part of it that is explained, with a 90 % interval over spatial blocks,
        ``r2_field``: R2 of type and smooth position alone, ``evidence_gain`` and ``p_terms``: what the regressors add
        to that), ``training`` (learning curves), ``params``, ``store``, ``bodies``: what
        :func:`spacetravlr.tl.transfer_betas` evaluates,
        small beside the coefficients (with ``store`` the blocks of targets keep their own), and ``fitted_on``: sums of
        the expression and signals of each cell, from which whatever uses the coefficients sees that something else lies
        there now.

    Raises
    ------
    KeyError
        When something was not computed yet or a gene is not known.
    ValueError
        When an option or a value cannot be used; before any long work, and ``adata`` is left as it was.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, n_targets=2, rng=0)
    >>> grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="surface", show_progress_bar=False)
    >>> sorted(adata.uns["betas"]["scores"]["target"].unique())
    ['CD79A', 'PAX5']
    """
    table = unwrap(adata)
    options = FitOptions.of(
        body=body, layer=layer, counts_layer=counts_layer, noise=noise, raw_layer=raw_layer, cluster_key=cluster_key,
        modulators_key=modulators_key, score_threshold=score_threshold, n_folds=n_folds, min_cells=min_cells,
        group_penalty=group_penalty, l1_penalty=l1_penalty, solver=solver, network=network, block_size=block_size,
        store=store, store_as=store_as, client=client, fdr=fdr, n_draws=n_draws, uncertainty=uncertainty, rng=rng,
        n_jobs=n_jobs, show_progress_bar=show_progress_bar,
    )  # fmt: skip
    fit = run_fit(table, targets, options)
    out = table.copy() if copy else table
    out.obsm[key_added] = fit.result.betas
    if fit.result.sd is not None:
        out.obsm[f"{key_added}_sd"] = fit.result.sd
    elif key_added in out.uns:  # those of the fit that this one replaces
        out.obsm.pop(f"{key_added}_sd", None)
    out.uns[key_added] = {
        "terms": fit.result.terms,
        "scores": fit.result.scores,
        "training": fit.result.training,
        **({} if fit.result.by_type is None else {"by_type": fit.result.by_type}),
        "params": fit.params,
        "store": "" if store is None else str(absolute_path(store)),
        "bodies": fit.result.bodies,
        FITTED_ON: fit.tissue.fitted_on(fit.result.terms, out.obs_names),
    }
    return out if copy else None
