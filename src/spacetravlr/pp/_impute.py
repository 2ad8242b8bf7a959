"""Fill in what single-cell measurements miss, from similar cells of the same type."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._expression import check_expression, layer_name, log_base, read_matrix
from spacetravlr._anndata._spatial import category_codes, unwrap
from spacetravlr._core.molecular_cv import Problem, Setting, smooth
from spacetravlr._docs import document
from spacetravlr._utils import as_generator, resolve_n_jobs
from spacetravlr._validators import assert_key, assert_one_of, assert_unique_names
from spacetravlr.pp._impute_auto import AUTO, assert_whole, choose, read_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Rng

Scale = Literal["log1p", "linear"]

# exp of more than this is no count of anything: such values are not logarithms.
_LARGEST_LOGARITHM = 30.0


@document
def impute(
    adata: AnnData | SpatialData,
    *,
    layer: str | None = None,
    n_neighbors: int | Literal["auto"] = 15,
    n_steps: int | Literal["auto"] = 3,
    counts_layer: str | None = None,
    cluster_key: str | None = _keys.CELL_TYPE,
    n_pcs: int = 30,
    use_rep: str | None = None,
    scale: Scale = "log1p",
    rng: Rng = 0,
    n_jobs: int | None = None,
    key_added: str = _keys.IMPUTED,
    copy: bool = False,
) -> AnnData | None:
    r"""Smooth expression over similar cells of the same type.

    .. math:: X' = P^n X

    with the Markov matrix :math:`P` of the ``n_neighbors`` nearest neighbours in expression (principal components),
    found within each cell type, so that types do not bleed into each other, and :math:`n` the number of steps. Every
    cell then keeps its library size: it is scaled so that its total, of :math:`e^x - 1` for ``scale="log1p"``, is what
    it was. Position is not used.

    How much smoothing is right depends on how deep the tissue was measured and on how much varies within its types.
    With ``"auto"``, molecular cross-validation decides: counts are thinned into two independent halves, one half is
    smoothed and held against the other within types, and the noise that halves have more than the whole is allowed for.
    No smoothing at all and, with ``cluster_key``, the mean of the type are tried too; the mean is taken unless
    something beats it by more than a thousandth. This takes about fifty times as long as one imputation, and several
    times the memory of the layer.

    Imputation smooths a target and its regulators over the same cells, so a fit on imputed expression looks better than
    it is; compare with scores against the values as measured.

    Parameters
    ----------
    adata
        Annotated data, or SpatialData.
    %(layer_normalised)s
    n_neighbors
        Neighbours per cell, or ``"auto"`` for 5, 15, 30 or 60. Cell types of ``n_neighbors`` cells or fewer use all
        their other cells.
    n_steps
        Steps of diffusion, more is smoother; or ``"auto"`` for 1, 2, 3 or 6.
    counts_layer
        Layer with the raw counts of ``layer``, ``"X"`` for ``adata.X``; read with ``"auto"`` only, which needs them.
    cluster_key
        Column of ``adata.obs`` with the type of each cell; ``None`` searches neighbours among all cells.
    n_pcs
        Principal components, at most one less than there are cells or genes.
    use_rep
        Key of ``obsm`` to search neighbours in (such as ``"X_pca"``), instead of principal components of the layer. Not
        with ``"auto"``: components of all counts know both halves.
    scale
        ``"log1p"`` when values are :math:`\log(1 + y)`, to the base that ``sc.pp.log1p`` noted in
        ``adata.uns["log1p"]``; ``"linear"`` when they are not logarithms.
    rng
        Seed or generator of the principal components, of the halves and, above 20,000 cells per type, of the neighbour
        search.
    %(n_jobs)s
    key_added
        Layer to write.
    %(copy)s

    Returns
    -------
    ``None``, or the copy. Writes

    - ``adata.layers[key_added]`` : dense float32, cells x genes
    - ``adata.uns[key_added]`` : dict with the parameters, as chosen where they were ``"auto"``, and ``method``:
      ``"diffusion"``, ``"none"`` (the layer as it was) or ``"type_mean"``. With ``"auto"`` also ``losses``, a table of
      what was tried: ``method``, ``n_neighbors``, ``n_steps``, ``loss`` (mean squared error of a value, plus the same
      for all), its standard deviation ``sd`` over the thinnings, and ``chosen``.

    Warns
    -----
    UserWarning
        When the mean of the type is chosen: nothing that varies within types could be told from counting noise.

    Raises
    ------
    KeyError
        When a key does not exist.
    ValueError
        When expression is negative or not finite, values are no logarithms, a parameter is out of range, or ``"auto"``
        is asked for without counts.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, depth=1.0, rng=0)
    >>> st.pp.impute(adata, layer="log1p", n_neighbors="auto", n_steps="auto", counts_layer="counts")
    >>> adata.uns["imputed"]["method"]
    'diffusion'
    """
    table = unwrap(adata)
    assert_unique_names(table)
    assert_one_of(scale, get_args(Scale), name="scale")
    for name, value in (("n_neighbors", n_neighbors), ("n_steps", n_steps), ("n_pcs", n_pcs)):
        assert_whole(value, name=name, may_be_auto=name != "n_pcs")
    automatic = AUTO in (n_neighbors, n_steps)
    resolve_n_jobs(n_jobs)
    if use_rep is not None:
        assert_key(table, "obsm", use_rep, name="use_rep", hint="Call `sc.pp.pca(adata)` first.")
    codes = None
    if cluster_key is not None:
        hint = "Cluster the cells first, or pass `cluster_key=None` to search neighbours among all cells."
        assert_key(table, "obs", cluster_key, name="cluster_key", hint=hint)
        codes = category_codes(table, cluster_key, name="cluster_key")[0]
    counts = read_counts(table, counts_layer, use_rep) if automatic else None
    values = _read(table, layer, scale)
    # values times this are natural logarithms
    factor = np.log(log_base(table)) if scale == "log1p" else None

    generator = as_generator(rng)
    rng_seed = int(generator.integers(2**31 - 1))
    groups = np.zeros(table.n_obs, dtype=np.int64) if codes is None else codes
    embed = partial(_principal_components, n_pcs=n_pcs, rng_seed=rng_seed)
    problem = Problem(groups, _totals(values, factor), factor, embed, rng_seed, n_jobs)
    tried = None
    if counts is None:
        setting = Setting("diffusion", int(n_neighbors), int(n_steps))
    else:
        setting, tried = choose(counts, n_neighbors, n_steps, problem, generator, type_mean=codes is not None)
    embedding = None if use_rep is None else _representation(table, use_rep)
    imputed = smooth(values, setting, problem, embedding)

    table = table.copy() if copy else table
    table.layers[key_added] = imputed
    table.uns[key_added] = {
        "layer": layer or "",
        "method": setting.method,
        "n_neighbors": setting.n_neighbors,
        "n_steps": setting.n_steps,
        "counts_layer": (counts_layer or "") if automatic else "",
        "cluster_key": cluster_key or "",
        "n_pcs": int(n_pcs),
        "use_rep": use_rep or "",
        "scale": scale,
    }
    if tried is not None:
        table.uns[key_added]["losses"] = tried
    return table if copy else None


def _read(adata: AnnData, layer: str | None, scale: Scale) -> Any:
    """Expression as CSR or dense float32, checked."""
    values = read_matrix(adata, layer).astype(np.float32, copy=False)
    check_expression(values, adata.var_names, layer=layer)
    if scale == "log1p" and (0 not in values.shape) and values.max() > _LARGEST_LOGARITHM:
        msg = (
            f"Expected {layer_name(layer)} to hold logarithms, found values up to {values.max():.4g}; call "
            '`sc.pp.log1p` first or pass `scale="linear"`.'
        )
        raise ValueError(msg)
    return values


def _representation(adata: AnnData, use_rep: str) -> Floats:
    embedding = np.asarray(adata.obsm[use_rep])
    if embedding.ndim != 2 or not np.isfinite(embedding).all():
        msg = f"Expected adata.obsm[{use_rep!r}] (`use_rep`) to be finite, cells x components."
        raise ValueError(msg)
    return embedding


def _totals(values: Any, log_factor: float | None) -> Floats:
    """Total of each cell, in float64; of what values are the logarithms of when ``log_factor`` is given."""
    if sparse.issparse(values):
        if log_factor is not None:
            values = (values if log_factor == 1 else values * np.float32(log_factor)).expm1()
        return np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    rows = (row if log_factor is None else _expm1(row, log_factor) for row in values)
    return np.array([row.sum(dtype=np.float64) for row in rows])


def _expm1(values: Floats, log_factor: float) -> Floats:
    return np.expm1(values if log_factor == 1 else values * log_factor, dtype=np.float64)


def _principal_components(values: Any, n_pcs: int, rng_seed: int) -> Floats:
    from sklearn.decomposition import PCA

    n_pcs = min(n_pcs, min(values.shape) - 1)
    if n_pcs < 1:
        return np.zeros((values.shape[0], 1), dtype=np.float32)
    return PCA(n_pcs, svd_solver="arpack", random_state=rng_seed).fit_transform(values)
