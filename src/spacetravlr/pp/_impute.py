"""Fill in what single-cell measurements miss, from similar cells of the same type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._expression import layer_name
from spacetravlr._anndata._spatial import category_codes, unwrap
from spacetravlr._core.imputation import diffuse, keep_totals, markov_matrix
from spacetravlr._utils import as_generator, resolve_n_jobs, warn
from spacetravlr._validators import assert_expression, assert_key, assert_one_of, assert_unique_names, looks_like_counts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Rng

Scale = Literal["log1p", "linear"]

# exp of more than this is no count of anything: such values are not logarithms.
_LARGEST_LOGARITHM = 30.0


def impute(
    adata: AnnData | SpatialData,
    *,
    layer: str | None = None,
    k: int = 15,
    t: int = 3,
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

    .. math:: X' = P^t X

    with the Markov matrix :math:`P` of the ``k`` nearest neighbours in expression (principal components), found within
    each cell type, so that types do not bleed into each other. Every cell then keeps its library size: it is scaled so
    that its total, of :math:`e^x - 1` for ``scale="log1p"``, is what it was. Position is not used.

    Imputation smooths a target and its regulators over the same cells, so a fit on imputed expression looks better than
    it is; compare with scores against the values as measured.

    Parameters
    ----------
    adata
        Annotated data, or SpatialData with one table.
    layer
        Layer with normalised expression; ``None`` uses ``X``.
    k
        Neighbours a cell. Cell types of ``k`` cells or fewer use all their other cells.
    t
        Steps of diffusion: more is smoother.
    cluster_key
        Column of ``obs`` with the type of each cell; ``None`` searches neighbours among all cells.
    n_pcs
        Principal components, at most one less than there are cells or genes.
    use_rep
        Key of ``obsm`` to search neighbours in (such as ``"X_pca"``), instead of principal components of the layer.
    scale
        ``"log1p"`` when values are :math:`\log(1 + y)`, ``"linear"`` when they are not logarithms.
    rng
        Seed or generator of the principal components and, above 20,000 cells a type, of the neighbour search.
    n_jobs
        Threads.
    key_added
        Layer to write.
    copy
        Return a changed copy instead of changing ``adata``.

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
    for name, value in (("k", k), ("t", t), ("n_pcs", n_pcs)):
        if value < 1 or int(value) != value:
            msg = f"Expected `{name}` to be a whole number of at least 1, found `{value}`."
            raise ValueError(msg)
    resolve_n_jobs(n_jobs)
    if layer is not None:
        assert_key(table, "layers", layer, name="layer")
    if use_rep is not None:
        assert_key(table, "obsm", use_rep, name="use_rep", hint="Call `sc.pp.pca(adata)` first.")
    codes = None
    if cluster_key is not None:
        hint = "Cluster the cells first, or pass `cluster_key=None` to search neighbours among all cells."
        assert_key(table, "obs", cluster_key, name="cluster_key", hint=hint)
        codes = category_codes(table, cluster_key, name="cluster_key")[0]
    values = _read(table, layer, scale)

    seed = int(as_generator(rng).integers(2**31 - 1))
    embedding = _principal_components(values, n_pcs, seed) if use_rep is None else np.asarray(table.obsm[use_rep])
    markov = markov_matrix(embedding, int(k), groups=codes, seed=seed, n_jobs=n_jobs)
    imputed = keep_totals(diffuse(markov, values, int(t)), _totals(values, scale), log1p=scale == "log1p")

    table = table.copy() if copy else table
    table.layers[key_added] = imputed
    table.uns[key_added] = {
        "layer": layer or "",
        "k": int(k),
        "t": int(t),
        "cluster_key": cluster_key or "",
        "n_pcs": int(n_pcs),
        "use_rep": use_rep or "",
        "scale": scale,
    }
    return table if copy else None


def _read(adata: AnnData, layer: str | None, scale: Scale) -> Any:
    """Expression as CSR or dense float32, checked."""
    values = adata.X if layer is None else adata.layers[layer]
    name = layer_name(layer)
    if values is None:
        msg = "Expected adata.X to hold expression, found None; pass `layer=`."
        raise ValueError(msg)
    if hasattr(values, "compute"):
        values = values.compute()
    values = sparse.csr_matrix(values, dtype=np.float32) if sparse.issparse(values) else np.asarray(values, np.float32)
    stored: Floats = values.data if sparse.issparse(values) else values  # type: ignore[assignment]
    assert_expression(stored, name=name)
    if looks_like_counts(stored):
        warn(
            f"{name} holds whole numbers only and looks like raw counts; normalise first "
            "(`sc.pp.normalize_total`, `sc.pp.log1p`) or pass the normalised `layer`."
        )
    if scale == "log1p" and stored.size and stored.max() > _LARGEST_LOGARITHM:
        msg = (
            f"Expected {name} to hold logarithms, found values up to {stored.max():.4g}; call `sc.pp.log1p` first or "
            'pass `scale="linear"`.'
        )
        raise ValueError(msg)
    return values


def _totals(values: Any, scale: Scale) -> Floats:
    """Total of each cell, in float64."""
    if sparse.issparse(values):
        values = values.expm1() if scale == "log1p" else values
        return np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    rows = (np.expm1(row, dtype=np.float64) if scale == "log1p" else row for row in values)
    return np.array([row.sum(dtype=np.float64) for row in rows])


def _principal_components(values: Any, n_pcs: int, seed: int) -> Floats:
    from sklearn.decomposition import PCA

    n_pcs = min(n_pcs, min(values.shape) - 1)
    if n_pcs < 1:
        return np.zeros((values.shape[0], 1), dtype=np.float32)
    return PCA(n_pcs, svd_solver="arpack", random_state=seed).fit_transform(values)
