"""Group cells of one type by their regulation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._order import CellOrder
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator, resolve_n_jobs
from spacetravlr._validators import assert_in_range, assert_key, assert_non_negative, assert_one_of
from spacetravlr.models._microniches import By, NicheOptions, TypeNiches, niches_of_type, read_supported
from spacetravlr.models.perturb._model import FittedModel

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Bools

logger = logging.getLogger(__name__)

Scope = Literal["types", "tissue"]
_TISSUE = "niche"


@document
def microniches(
    adata: AnnData | SpatialData,
    *,
    cell_type: str | Sequence[str] | None = None,
    scope: Scope = "types",
    by: By = "coefficients",
    n_niches: int | None = None,
    max_niches: int = 6,
    n_pcs: int = 10,
    n_draws: int = 20,
    min_stability: float = 0.75,
    min_separation: float = 0.7,
    min_variation: float = 0.05,
    cluster_key: str | None = None,
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    rng: Rng = 0,
    n_jobs: int | None = None,
    key_added: str = _keys.MICRONICHE,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Group the cells of each type by how they are regulated, where distinct groups exist.

    Microniches are cells of one type with similar coefficients :cite:p:`spacetravlr2025`. Only coefficients that the
    fit supports are used: active terms of targets whose model is kept in the type, without intercepts and adjustment
    terms. They are standardised within the type, reduced to principal components and clustered by k-means.

    Clustering smooth coefficients always returns groups, so each group must pass two checks. Among two to
    ``max_niches`` groups, the largest number is chosen for which every group is

    * *stable*: over bootstrap samples of targets and cells, its mean Jaccard index with the most similar group is at
      least ``min_stability`` :cite:p:`hennig2007`;
    * *separated*: cells are less dense halfway to each other group than at the centres, by at least
      ``min_separation``. Pieces of a gradient can be perfectly stable, but they are not separated. (Cells in separate
      parts of the tissue are separated even under a gradient.)

    Otherwise the type is one niche, and ``uns`` gives the reason. The bootstrap resamples a single fit, so errors that
    are common to all targets or systematic in the fit look stable too. To cluster in other ways, use
    :func:`spacetravlr.get.betas_adata` and scanpy.

    Parameters
    ----------
    %(adata_fitted)s
    cell_type
        Cell types to group; all by default. Other cells get no niche.
    scope
        ``"types"`` groups each type separately. ``"tissue"`` groups all selected cells together; differences between
        types then dominate.
    by
        ``"coefficients"``, or ``"contributions"``: coefficients times regressors, which vary between neighbouring cells
        as expression does, including its noise.
    n_niches
        Force this number of niches regardless of stability; by default it is chosen.
    max_niches
        Largest number of niches per type that is tried.
    n_pcs
        Maximum number of principal components; fewer are used if they explain 95 % of the variance.
    n_draws
        Number of bootstrap samples for the stability.
    min_stability, min_separation
        Thresholds that each niche must reach, between 0 and 1.
    min_variation
        A coefficient counts as varying if its standard deviation over the cells of a type exceeds this fraction of its
        mean absolute value.
    %(cluster_key)s
    %(betas_key)s
    received_key
        Key of the received ligands, for contributions; defaults to the key that the fit used.
    %(rng)s
    %(n_jobs)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.obs['microniche']`` : categorical
        ``"B cell 0"``, ``"B cell 1"``, ..., the largest first; ``"niche 0"``, ... with ``scope="tissue"``.
    ``adata.uns['microniches']`` : dict
        ``niches``: DataFrame with ``niche``, ``cell_type``, ``n_cells``, ``stability`` and ``separation`` (NaN if the
        type is one niche). ``types``: DataFrame with ``cell_type``, ``n_cells``, ``n_targets`` and ``n_columns`` (of
        varying coefficients), ``n_niches``, ``rand_index`` (mean adjusted Rand index over bootstrap samples) and
        ``outcome`` (in words). ``trials``: DataFrame with ``cell_type``, ``n_niches``, ``rand_index`` and the smallest
        ``stability`` and ``separation`` for each number of niches that was tried. ``params``: the options.

    Raises
    ------
    KeyError
        If there are no coefficients, or a column does not exist.
    ValueError
        If a cell type does not exist, or an option is out of range.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> st.tl.microniches(adata)
    >>> set(adata.uns["microniches"]["types"]["outcome"])  # seeds have one coefficient in each cell type
    {'coefficients do not vary'}
    """
    table = unwrap(adata, table_key)
    options = _options(by, n_niches, max_niches, n_pcs, n_draws, min_stability, min_separation, min_variation)
    assert_one_of(scope, get_args(Scope), name="scope")
    resolve_n_jobs(n_jobs)
    model = read_betas(table, betas_key)
    key = cluster_key_of(table, cluster_key, betas_key=betas_key)
    groups = _groups(table, key, cell_type, scope)
    fitted = None
    if by == "contributions":
        fitted = FittedModel.read(table, betas_key=betas_key, received_key=received_key, n_jobs=n_jobs)
    order = CellOrder.of(table.obs_names)
    supported = read_supported(model, fitted)
    order.sort(supported.values)
    generator = as_generator(rng)
    found: dict[str, TypeNiches] = {}
    names = np.full(table.n_obs, None, dtype=object)
    for name in sorted(groups):
        mask = groups[name][order.rows]
        known = None if scope == "tissue" or key is None else name
        with threadpool_limits(1):  # many small products
            found[name] = result = niches_of_type(supported, mask, known, options, generator)
        names[order.rows[mask]] = [f"{name} {i}" for i in result.labels]
        logger.info("%s: %s (%d in %d cells)", name, result.outcome, result.labels.max() + 1, mask.sum())
    found = {name: found[name] for name in groups}
    niches = [f"{name} {i}" for name, r in found.items() for i in range(int(r.labels.max()) + 1)]
    out = table.copy() if copy else table
    out.obs[key_added] = pd.Categorical(names, categories=niches)
    out.uns.pop(f"{key_added}_colors", None)  # those of other niches
    out.uns[_keys.microniches(key_added)] = {
        "niches": _niches_table(found, niches),
        "types": _types_table(found),
        "trials": _trials_table(found),
        "params": {
            "scope": scope,
            "by": by,
            "n_niches": 0 if n_niches is None else int(n_niches),
            "max_niches": int(max_niches),
            "n_pcs": int(n_pcs),
            "n_draws": int(n_draws),
            "min_stability": float(min_stability),
            "min_separation": float(min_separation),
            "min_variation": float(min_variation),
            "cluster_key": key or "",
            "betas_key": betas_key,
            "received_key": received_key or "",
            "rng_seed": int(rng) if isinstance(rng, int) else "",
        },
    }
    return out if copy else None


def _options(
    by: By,
    n_niches: int | None,
    max_niches: int,
    n_pcs: int,
    n_draws: int,
    min_stability: float,
    min_separation: float,
    min_variation: float,
) -> NicheOptions:
    assert_one_of(by, get_args(By), name="by")
    for value, least, name in (
        (n_niches, 1, "n_niches"), (max_niches, 2, "max_niches"), (n_pcs, 1, "n_pcs"), (n_draws, 1, "n_draws"),
    ):  # fmt: skip
        if value is not None and (int(value) != value or value < least):
            msg = f"Expected `{name}` to be a whole number of at least {least}, found `{value}`."
            raise ValueError(msg)
    assert_in_range(min_stability, 0, 1, name="min_stability")
    assert_in_range(min_separation, 0, 1, name="min_separation")
    assert_non_negative(min_variation, name="min_variation")
    return NicheOptions(by, n_niches, max_niches, n_pcs, n_draws, min_stability, min_separation, min_variation)


def _groups(adata: AnnData, key: str | None, cell_type: str | Sequence[str] | None, scope: Scope) -> dict[str, Bools]:
    """Cells of each group, by the name that their niches start with, in the order of the categories."""
    everything = np.ones(adata.n_obs, dtype=bool)
    if key is None:
        if cell_type is not None:
            msg = f"Expected cell types when `cell_type` is given, found none; pass `cluster_key` with {cell_type!r}."
            raise ValueError(msg)
        return {_TISSUE: everything}
    assert_key(adata, "obs", key, name="cluster_key")
    labels = pd.Categorical(adata.obs[key]).remove_unused_categories()
    masks = {str(c): np.asarray(labels.codes == i) for i, c in enumerate(labels.categories)}
    wanted = list(masks) if cell_type is None else [cell_type] if isinstance(cell_type, str) else list(cell_type)
    for name in wanted:
        assert_one_of(str(name), list(masks), name="cell_type")
    masks = {str(name): masks[str(name)] for name in wanted}
    return masks if scope == "types" else {_TISSUE: np.any(list(masks.values()), axis=0)}


def _niches_table(found: dict[str, TypeNiches], niches: list[str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, result in found.items():
        for i, n in enumerate(np.bincount(result.labels)):
            stability, separation = (
                (np.nan, np.nan) if result.trial is None else (result.trial.stability[i], result.trial.separation[i])
            )
            rows.append({"cell_type": name, "n_cells": int(n), "stability": stability, "separation": separation})
    out = pd.DataFrame(rows)
    out.insert(0, "niche", niches)
    return out.set_axis(out.index.astype(str))


def _types_table(found: dict[str, TypeNiches]) -> pd.DataFrame:
    rows = [
        {
            "cell_type": name,
            "n_cells": len(r.labels),
            "n_targets": r.n_targets,
            "n_columns": r.n_columns,
            "n_niches": int(r.labels.max()) + 1,
            "rand_index": np.nan if r.trial is None else r.trial.rand_index,
            "outcome": r.outcome,
        }
        for name, r in found.items()
    ]
    out = pd.DataFrame(rows)
    return out.set_axis(out.index.astype(str))


def _trials_table(found: dict[str, TypeNiches]) -> pd.DataFrame:
    rows = [
        (name, len(t.stability), t.rand_index, float(t.stability.min()), float(t.separation.min()))
        for name, r in found.items()
        for t in r.trials
    ]
    out = pd.DataFrame(rows, columns=["cell_type", "n_niches", "rand_index", "stability", "separation"])
    types = {"cell_type": object, "n_niches": int, "rand_index": float, "stability": float, "separation": float}
    return out.astype(types).set_axis(out.index.astype(str))
