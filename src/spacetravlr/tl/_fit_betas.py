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
    from spatialdata import SpatialData

    from spacetravlr.nn import NetworkConfig


@document
def fit_betas(
    adata: AnnData | SpatialData,
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
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit spatially varying coefficients of the regulators of each target gene.

    For a target :math:`H` in cell :math:`j` (:doc:`/how-it-works`, section 3),

    .. math::

        H_j = b_{0j} + \sum_m b_{jm} TF_{jm} + \sum_k b_{jk} L_{jk} R_{jk} + \sum_p b_{jp} L_{jp} TF_{jp}

    with coefficients that vary from cell to cell. With ``counts_layer``, the fit accounts for counting noise
    (:doc:`/how-it-works`, "Counts"). It fits one hierarchical model (*pooled*): a pooled effect of every regressor,
    plus departures by cell type and position, each shrunk by an amount learned from the data, on noise-corrected
    regressors. A target keeps this model if its regressors add evidence to what cell type and smooth position explain.

    Without ``counts_layer``, values are treated as exact, and three kinds of coefficients (*bodies*) compete: a sparse
    group lasso per cell type (*seed*), smooth coefficient surfaces over cell type, niche and position (*surface*), and
    a network that refines the seed from the niche image (*network*). Each cell type of each target keeps the body that
    does best on held-out spatial blocks, or none. Scores come from separate blocks that took no part in any choice. The
    coefficients are then refitted on all cells with the chosen settings. Results do not depend on the order of cells,
    genes, cell types or targets, but a shared network does depend on which targets are fitted together
    (``block_size``).

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.received_ligands` and :func:`spacetravlr.pp.modulators`, or
        SpatialData.
    targets
        Genes to model; by default all targets of the modulator table.
    body
        ``"auto"``: the hierarchical model with counts, otherwise seed, surface and network compete. ``"pooled"``: the
        hierarchical model, also for exact values. For exact values also ``"surface"``, ``"cnn"`` or ``"vit"``: that
        body and the seed; and ``"seed"``: the seed alone. A network chosen explicitly is compared on two
        selection folds; under ``"auto"`` it is compared on the last one only.
    layer
        Layer with expression; defaults to the layer that the modulators were made with.
    counts_layer
        Layer with the raw counts behind ``layer`` (``"X"`` for ``adata.X``): ``layer`` must be the log1p of counts over
        a size factor per cell.
    noise
        ``"poisson"``: counts are Poisson draws around the cell's expression. ``"none"``: values are exact, as in
        simulations or protein imaging, and as the published program assumes. Defaults to ``"poisson"`` with
        ``counts_layer`` and to ``"none"`` without it.
    raw_layer
        Layer with expression before imputation (``"X"`` for ``adata.X``). Adds ``r2_kept_raw``, the held-out R2 against
        it.
    cluster_key
        Column of ``adata.obs`` with cell types; defaults to the column that the modulators were made with.
    modulators_key
        Key of the modulators.
    score_threshold
        Minimum gain of held-out R2 over the cell-type mean; below it, coefficients are zero.
    n_folds
        Number of spatial folds for selection; one more fold is used for scores.
    min_cells
        Cell types with fewer cells use a seed fitted on all cells.
    group_penalty, l1_penalty
        Penalties of the seed on groups and on single coefficients; by default chosen by held-out error.
    solver
        Solver of the seed: ``"gram"``, or the reference package ``"group-lasso"`` for the final fit (slow).
    network
        Settings of the network, :class:`spacetravlr.nn.NetworkConfig`. They include ``mode`` (seed plus a departure, or
        seed times a gate, as published), ``encoder`` (one body per block of targets, or one per target), ``device``
        and ``trainer_kwargs``.
    block_size
        Number of targets fitted together.
    store
        Folder (zarr) to which blocks are written as they finish. A later call resumes an interrupted one, and the
        coefficients stay on disk.
    store_as
        Storage format of the coefficients in ``store``: ``"float32"``; ``"float16"``, half the size with three digits;
        or ``"bodies"``, tens of kilobytes per target, from which coefficients are evaluated each time they are read.
        They are read as float32 in all cases.
    %(client)s
    fdr
        False discovery rate at which regressors are called active, where errors are available (*pooled*).
    n_draws
        Number of posterior draws of the coefficients to keep, some hundred kilobytes per target (*pooled*).
        :func:`spacetravlr.tl.perturb` uses them for standard errors of effects.
    uncertainty
        Also keep the posterior standard deviation of each coefficient at each cell (*pooled* and surfaces).
    rng
        Seed or generator for the assignment of blocks to folds and the initial weights of networks.
    n_jobs
        Number of threads, or of processes where the fit is long (``st.settings.processes``); ``None`` uses
        ``st.settings.n_jobs``. Workers of ``client`` use their own number. Results do not depend on it.
    %(show_progress_bar)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.obsm['betas']`` : array (float32), cells x columns
        For each target its intercept, then its terms; a dask array over the store if ``store`` is given.
    ``adata.obsm['betas_sd']`` : array (float32), cells x columns
        With ``uncertainty``: posterior standard deviations in the units of the coefficients; NaN where the surface was
        not kept or is a departure from the seed.
    ``adata.uns['betas']`` : dict
        - ``terms``: one row per column, with ``target``, ``kind``, ``tf``, ``ligand``, ``receptor``, ``range``,
          ``importance`` (standard deviation of the contribution within cell types, relative to that of the target),
          ``evidence`` (log Bayes factor against absence, for terms in a body that was kept; otherwise NaN) and
          ``active``. With counts, a term is active if its q-value is at most ``fdr``. Otherwise it is active if its
          evidence supports it or, for targets without a kept surface, if it exceeds 5 % of the median importance.
        - ``scores``: one row per target and cell type, with numbers of cells, held-out ``r2_zero``, ``r2_pooled``,
          ``r2_seed``, ``r2_surface``, ``r2_network`` and ``r2_kept``, training R2, and ``kept``. With
          ``body="auto"``, ``r2_network`` is given only for targets that keep a network in some cell type. With counts
          also ``ceiling`` (share of the variance within the type that is not counting noise), ``explained`` (share of
          the ceiling that is explained, with a 90 % interval over spatial blocks for all types together; NaN below a
          ceiling of 0.02), ``r2_field`` (R2 of type and smooth position alone), ``r2_adjusted`` (the same with
          adjustment terms), ``evidence_gain`` (log evidence that the other regressors add to these) and ``p_terms``
          (p-value that all regressors predict no better than type and position).
        - ``training``: learning curves.
        - ``params`` and ``store``.
        - ``bodies``: what :func:`spacetravlr.tl.transfer_betas` evaluates; small compared with the coefficients. With
          ``store``, each block of targets keeps its own.
        - ``fitted_on``: sums of the expression and signals of each cell. Functions that use the coefficients compare
          them with the current data to detect changes.

    Raises
    ------
    KeyError
        If something has not been computed yet or a gene is unknown.
    ValueError
        If an option or a value cannot be used. This is checked before any long work, and ``adata`` is left unchanged.

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
    table = unwrap(adata, table_key)
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
