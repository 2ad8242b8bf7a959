"""Transfer the coefficients of a fit to another section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from spacetravlr import _keys
from spacetravlr._anndata._fitted_on import FITTED_ON
from spacetravlr._anndata._spatial import unwrap_both
from spacetravlr._docs import document
from spacetravlr._utils import resolve_n_jobs
from spacetravlr._validators import assert_one_of
from spacetravlr.models._transfer import transfer

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def transfer_betas(
    reference: AnnData | SpatialData,
    query: AnnData | SpatialData,
    *,
    position: Literal["average", "same"] = "average",
    missing: Literal["raise", "drop"] = "raise",
    cluster_key: str | None = None,
    received_key: str | None = None,
    layer: str | None = None,
    betas_key: str = _keys.BETAS,
    n_jobs: int | None = None,
    key_added: str = _keys.BETAS,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Evaluate the coefficients of one section at the cells of another.

    Each cell of ``query`` gets the coefficients of its cell type in its niche, from the bodies (seeds, surfaces,
    networks) that :func:`spacetravlr.tl.fit_betas` kept for ``reference``. Nothing is fitted. Afterwards, all functions
    that read coefficients work on ``query``: :func:`spacetravlr.tl.perturb`, ``st.get``, ``st.pl``, screens.

    Coefficients may also depend on the position :math:`s` in the section. A position has no meaning in another section
    unless both sections share a coordinate frame. With the default ``position="average"``, functions of position are
    replaced with their mean over the reference cells of the same type:

    .. math::

        \bar\phi_b(c) = \frac{1}{n_c} \sum_{j:\,c(j) = c} \phi_b(s_j)

    Surfaces are linear in :math:`\phi`, so this gives the coefficients of a cell of that type in that niche, averaged
    over all positions in the reference. For networks this is exact for the linear part and an approximation for the
    learned part. Variation with position alone becomes constant within a type. ``position="same"`` evaluates functions
    of position at the coordinates of each cell. Use it for a part of the same section that was left out, or for
    registered serial sections.

    Within one section, niche and position are often confounded. A coefficient that truly follows the niche may have
    been fitted as a function of position, and averaging then loses it. On six pairs of simulated slides whose
    coefficients vary over the tissue, averaged surfaces explained 13 to 49 % of the variance within types, networks 41
    to 57 % and seeds 31 to 42 %; on held-out blocks of their own slide, surfaces reached 85 to 90 %. ``r2_query`` in
    the scores shows how well the transfer works. Compare it with ``r2_kept`` (for a fit to counts with ``r2_kept``
    minus ``r2_field``, because smooth intercepts are not transferred), and with a transfer of ``body="seed"``, before
    you trust a perturbation. ``r2_query`` allows for a constant offset per type, because levels differ between
    sections and no perturbation depends on them.

    Parameters
    ----------
    reference
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`; only ``uns`` is read.
    query
        Annotated data with the same genes and cell types, after :func:`spacetravlr.pp.spatial_weights` and
        :func:`spacetravlr.pp.received_ligands` with the settings of the reference. The units of its coordinates may
        differ (``microns_per_unit``).
    position
        How position enters: ``"average"`` over the reference, or the cell's own position if both sections share the
        ``"same"`` coordinate frame.
    missing
        What to do about genes of the model that ``query`` lacks: ``"raise"`` an error, or ``"drop"`` the targets and
        regressors that need them, with a warning. A dropped regressor cannot change in a perturbation.
    cluster_key, received_key, layer
        Cell types, received ligands and expression of ``query``; by default the keys of the fit.
    betas_key
        Key of the coefficients in ``reference``.
    %(n_jobs)s
    %(key_added)s
    table_key
        Table to use of ``reference`` and ``query``, where they are SpatialData with more than one. For different tables
        pass ``sdata.tables[...]``.
    copy
        Return a changed copy instead of changing ``query``.

    Returns
    -------
    ``None``, or a changed copy of ``query`` if ``copy=True``. Sets the same fields as
    :func:`spacetravlr.tl.fit_betas`:

    ``query.obsm['betas']`` : array (float32), cells x columns
        Coefficients at the cells of ``query``.
    ``query.uns['betas']`` : dict
        ``terms``, ``scores`` and ``training`` of the reference, ``params``, ``store`` ("") and ``fitted_on``. The
        scores have three more columns: ``n_query`` (number of cells of the type in ``query``), ``sst_query`` (sum of
        squares of the target in these cells) and ``r2_query`` (share of it that the coefficients explain, up to a
        constant). :func:`spacetravlr.get.ranked_effects` then uses ``r2_query`` as the R2 of each model.

    Raises
    ------
    KeyError
        If ``reference`` has no bodies, a prerequisite is missing in ``query``, or genes are missing.
    ValueError
        If ``query`` has cell types (or, for ``position="same"``, slides) that the reference lacks, or its signals were
        received with other settings.
    FileNotFoundError
        If the coefficients of ``reference`` are in a store that no longer exists.

    Warns
    -----
    UserWarning
        With ``position="same"``, about the share of cells outside the reference; also about dropped genes, and about
        standard deviations, which are not transferred.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=400, n_targets=2, n_slides=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> first, second = (adata[adata.obs["slide"] == name].copy() for name in ("slide 1", "slide 2"))
    >>> for section in (first, second):
    ...     st.pp.spatial_weights(section)
    ...     st.pp.received_ligands(section, lr, layer="log1p")
    >>> st.pp.modulators(first, grn)
    >>> st.tl.fit_betas(first, body="surface", show_progress_bar=False)
    >>> st.tl.transfer_betas(first, second)
    >>> st.tl.perturb(second, "FOXO1")
    >>> second.obsm["betas"].shape == (second.n_obs, first.obsm["betas"].shape[1])
    True
    """
    assert_one_of(position, ("average", "same"), name="position")
    assert_one_of(missing, ("raise", "drop"), name="missing")
    resolve_n_jobs(n_jobs)
    source, table = unwrap_both(reference, query, table_key)
    result = transfer(
        source, table, position=position, missing=missing, cluster_key=cluster_key,
        received_key=received_key, layer=layer, betas_key=betas_key, n_jobs=n_jobs,
    )  # fmt: skip
    out = table.copy() if copy else table
    out.obsm[key_added] = result.betas
    out.obsm.pop(f"{key_added}_sd", None)  # of a fit that this one replaces
    out.uns[key_added] = {
        "terms": result.terms,
        "scores": result.scores,
        "training": result.training,
        "params": result.params,
        "store": "",
        FITTED_ON: result.fitted_on,
    }
    return out if copy else None
