"""Impute expression from similar cells of the same type."""

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
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Smooth expression over similar cells of the same type.

    .. math:: X' = P^n X

    Here :math:`P` is the Markov matrix of the ``n_neighbors`` nearest neighbours in expression space (principal
    components) and :math:`n` the number of steps. Neighbours are found within each cell type, so types do not bleed
    into each other. Each cell is then rescaled to its original library size (the total of :math:`e^x - 1` for
    ``scale="log1p"``). Position is not used.

    The right amount of smoothing depends on the sequencing depth and on how much varies within cell types. With
    ``"auto"`` it is chosen by molecular cross-validation: counts are thinned into two independent halves, one half is
    smoothed and compared with the other within types, and the extra noise of the halves is accounted for. No smoothing
    and, with ``cluster_key``, the cell-type mean are also tried. The mean is chosen unless another setting is better by
    more than a thousandth. This takes about fifty times as long as one imputation and several times the memory of the
    layer.

    Imputation smooths a target and its regulators over the same cells, so a fit on imputed expression looks better than
    it is. Compare with scores against the measured values.

    Parameters
    ----------
    adata
        Annotated data, or SpatialData.
    %(layer_normalised)s
    n_neighbors
        Number of neighbours per cell, or ``"auto"`` to choose among 5, 15, 30 and 60. Cell types with ``n_neighbors``
        cells or fewer use all other cells of the type.
    n_steps
        Number of diffusion steps (more is smoother), or ``"auto"`` to choose among 1, 2, 3 and 6.
    counts_layer
        Layer with the raw counts behind ``layer`` (``"X"`` for ``adata.X``); required for ``"auto"`` and not used
        otherwise.
    cluster_key
        Column of ``adata.obs`` with cell types; ``None`` searches neighbours among all cells.
    n_pcs
        Number of principal components; limited to one less than the number of cells or genes.
    use_rep
        Key of ``obsm`` in which to search for neighbours (such as ``"X_pca"``), instead of principal components of the
        layer. Not available with ``"auto"``, because components of all counts contain both halves.
    scale
        ``"log1p"`` if values are :math:`\log(1 + y)`, with the base that ``sc.pp.log1p`` recorded in
        ``adata.uns["log1p"]``; ``"linear"`` if they are not logarithms.
    rng
        Seed or generator for the principal components, the halves and, above 20,000 cells per type, the neighbour
        search.
    %(n_jobs)s
    key_added
        Name of the new layer.
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.layers[key_added]`` : dense float32, cells x genes
    - ``adata.uns[key_added]`` : dict with the parameters (the chosen values for ``"auto"``) and ``method``:
      ``"diffusion"``, ``"none"`` (the layer unchanged) or ``"type_mean"``. With ``"auto"`` also ``losses``, a table of
      the settings that were tried: ``method``, ``n_neighbors``, ``n_steps``, ``loss`` (mean squared error per value,
      plus a constant common to all settings), its standard deviation ``sd`` over thinnings, and ``chosen``.

    Warns
    -----
    UserWarning
        If the cell-type mean is chosen: no variation within types could be distinguished from counting noise.

    Raises
    ------
    KeyError
        If a key does not exist.
    ValueError
        If expression is negative or not finite, values are not logarithms, a parameter is out of range, or ``"auto"``
        is used without counts.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, depth=1.0, rng=0)
    >>> st.pp.impute(adata, layer="log1p", n_neighbors="auto", n_steps="auto", counts_layer="counts")
    >>> adata.uns["imputed"]["method"]
    'diffusion'
    """
    table = unwrap(adata, table_key)
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
