"""Fill in what single-cell measurements miss, from similar cells of the same type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._expression import check_expression, layer_name, log_base, read_matrix
from spacetravlr._anndata._spatial import category_codes, unwrap
from spacetravlr._core.imputation import diffuse, keep_totals, markov_matrix
from spacetravlr._docs import document
from spacetravlr._utils import as_generator, resolve_n_jobs
from spacetravlr._validators import assert_key, assert_one_of, assert_unique_names

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
    n_neighbors: int = 15,
    n_steps: int = 3,
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

    Imputation smooths a target and its regulators over the same cells, so a fit on imputed expression looks better than
    it is; compare with scores against the values as measured.

    Parameters
    ----------
    adata
        Annotated data, or SpatialData.
    %(layer_normalised)s
    n_neighbors
        Neighbours per cell. Cell types of ``n_neighbors`` cells or fewer use all their other cells.
    n_steps
        Steps of diffusion: more is smoother.
    cluster_key
        Column of ``adata.obs`` with the type of each cell; ``None`` searches neighbours among all cells.
    n_pcs
        Principal components, at most one less than there are cells or genes.
    use_rep
        Key of ``obsm`` to search neighbours in (such as ``"X_pca"``), instead of principal components of the layer.
    scale
        ``"log1p"`` when values are :math:`\log(1 + y)`, to the base that ``sc.pp.log1p`` noted in
        ``adata.uns["log1p"]``; ``"linear"`` when they are not logarithms.
    rng
        Seed or generator of the principal components and, above 20,000 cells per type, of the neighbour search.
    %(n_jobs)s
    key_added
        Layer to write.
    %(copy)s

    Returns
    -------
    ``None``, or the copy. Writes

    - ``adata.layers[key_added]`` : dense float32, cells x genes
    - ``adata.uns[key_added]`` : dict with the parameters

    Raises
    ------
    KeyError
        When a key does not exist.
    ValueError
        When expression is negative or not finite, values are no logarithms, or a parameter is out of range.
    """
    table = unwrap(adata)
    assert_unique_names(table)
    assert_one_of(scale, get_args(Scale), name="scale")
    for name, value in (("n_neighbors", n_neighbors), ("n_steps", n_steps), ("n_pcs", n_pcs)):
        if value < 1 or int(value) != value:
            msg = f"Expected `{name}` to be a whole number of at least 1, found `{value}`."
            raise ValueError(msg)
    resolve_n_jobs(n_jobs)
    if use_rep is not None:
        assert_key(table, "obsm", use_rep, name="use_rep", hint="Call `sc.pp.pca(adata)` first.")
    codes = None
    if cluster_key is not None:
        hint = "Cluster the cells first, or pass `cluster_key=None` to search neighbours among all cells."
        assert_key(table, "obs", cluster_key, name="cluster_key", hint=hint)
        codes = category_codes(table, cluster_key, name="cluster_key")[0]
    values = _read(table, layer, scale)
    # values times this are natural logarithms
    factor = np.log(log_base(table)) if scale == "log1p" else None

    rng_seed = int(as_generator(rng).integers(2**31 - 1))
    embedding = _principal_components(values, n_pcs, rng_seed) if use_rep is None else _representation(table, use_rep)
    markov = markov_matrix(embedding, int(n_neighbors), groups=codes, rng_seed=rng_seed, n_jobs=n_jobs)
    imputed = keep_totals(diffuse(markov, values, int(n_steps)), _totals(values, factor), log_factor=factor)

    table = table.copy() if copy else table
    table.layers[key_added] = imputed
    table.uns[key_added] = {
        "layer": layer or "",
        "n_neighbors": int(n_neighbors),
        "n_steps": int(n_steps),
        "cluster_key": cluster_key or "",
        "n_pcs": int(n_pcs),
        "use_rep": use_rep or "",
        "scale": scale,
    }
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
