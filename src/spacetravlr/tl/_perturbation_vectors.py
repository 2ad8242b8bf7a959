"""Where cells would move under a perturbation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._spatial import library_codes, unwrap
from spacetravlr._core.space.neighbours import nearest_neighbours
from spacetravlr._core.transitions import Subtract, project, transition_probabilities
from spacetravlr._docs import document
from spacetravlr._utils import as_generator, numba_threads, warn
from spacetravlr._validators import assert_key, assert_one_of, assert_positive

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints, Rng

logger = logging.getLogger(__name__)

Scale = Literal["effect", "unit"]

# Changes below this part of a gene's largest expression are rounding.
_ROUNDING = 1e-6


@document
def perturbation_vectors(
    adata: AnnData | SpatialData,
    *,
    basis: str = "spatial",
    n_neighbors: int = 50,
    temperature: float = 0.05,
    subtract: Subtract | None = "shuffled",
    n_shuffles: int = 32,
    scale: Scale = "effect",
    include_perturbed: bool = False,
    perturbed_key: str = _keys.PERTURBED,
    library_key: str | None = None,
    rng: Rng = 0,
    n_jobs: int | None = None,
    key_added: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Estimate where each cell would move, in the tissue or in an embedding, if its expression changed as simulated.

    A cell moves towards neighbours that look like what it would become:

    .. math::

        p_{ji} = \mathrm{softmax}_i \left( \mathrm{cor}(\Delta x_j, x_i - x_j) / T \right), \qquad
        v_j = \lVert \Delta x_j \rVert \sum_i (p_{ji} - q_{ji}) \frac{e_i - e_j}{\lVert e_i - e_j \rVert}

    Here :math:`q` is the mean of the same probabilities over random shuffles of the change across genes. Subtracting it
    removes the part of the arrow that reflects only the shape of the neighbourhood. A cell in which nothing changes
    gets no arrow.

    Parameters
    ----------
    %(adata_perturbed)s
    basis
        Embedding: ``"spatial"`` is the tissue, ``"umap"`` is ``adata.obsm["X_umap"]``.
    n_neighbors
        Number of neighbours per cell in the embedding.
    temperature
        Temperature of the softmax; at lower values the most similar neighbour dominates.
    subtract
        ``"shuffled"`` subtracts the probabilities of the shuffled change, ``"zero"`` those without a change (uniform),
        ``None`` subtracts nothing.
    n_shuffles
        Number of shuffles to average; with more of them, results depend less on ``rng``.
    scale
        ``"effect"``: the length of an arrow scales with the size of the cell's change. ``"unit"``: arrows show
        directions only.
    include_perturbed
        Include the genes that were perturbed. Their change is often far larger than any response, and arrows then
        point to cells that express these genes at the chosen values.
    %(perturbed_key)s
    library_key
        Column of ``adata.obs`` with the slide of each cell; on the tissue, neighbours are on the same slide. Defaults
        to the column that :func:`spacetravlr.pp.spatial_weights` used.
    %(rng)s
    %(n_jobs)s
    key_added
        Stem of the keys written; ``perturbed_key`` by default.
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.obsp['perturbed_transitions']`` : CSR matrix (float32)
        :math:`p - q`, cells x cells; rows sum to zero, or to one with ``subtract=None``.
    ``adata.obsm['perturbed_<basis>']`` : array (float32)
        One arrow per cell. With ``scale="effect"`` its length is at most twice the size of the cell's change
        (Euclidean, over genes); with ``"unit"`` it is at most two and has no unit.

    Raises
    ------
    KeyError
        If the perturbation, the embedding or ``library_key`` is missing.
    ValueError
        If an option is out of range, or coordinates or simulated expression are not finite.

    Warns
    -----
    UserWarning
        If nothing changes in any cell.
    """
    if subtract is not None:
        assert_one_of(subtract, get_args(Subtract), name="subtract")
    assert_one_of(scale, get_args(Scale), name="scale")
    assert_positive(temperature, name="temperature")
    for name, value in (("n_neighbors", n_neighbors), ("n_shuffles", n_shuffles)):
        if value < 1:
            msg = f"Expected `{name}` to be at least 1, found `{value}`."
            raise ValueError(msg)
    hint = 'Call `st.tl.perturb(adata, "FOXO1")` first.'
    table = unwrap(adata, table_key)
    assert_key(table, "uns", perturbed_key, name="perturbed_key", hint=hint)
    assert_key(table, "layers", perturbed_key, name="perturbed_key", hint=hint)
    embedding = _embedding(table, basis)
    libraries = _libraries(table, basis, library_key)

    before, change = _change(table, perturbed_key, include_perturbed=include_perturbed)
    size = np.linalg.norm(change, axis=1)
    if not size.any():
        others = "" if include_perturbed else " except the perturbed ones"
        warn(f"The perturbation changes no gene{others} in any cell: the vector field is empty.")
    elif not size.all():
        logger.info("nothing changes in %d of %d cells, which get no arrow", (size == 0).sum(), len(size))
    with numba_threads(n_jobs):
        neighbours = nearest_neighbours(embedding, n_neighbors, groups=libraries, n_jobs=n_jobs).indices
        transitions = transition_probabilities(
            before,
            change,
            neighbours,
            temperature=temperature,
            subtract=subtract,
            n_shuffles=n_shuffles,
            rng_seed=int(as_generator(rng).integers(2**63)),
            cell_keys=pd.util.hash_array(table.obs_names.to_numpy(dtype=object)),
        )
        arrows = project(transitions, embedding)
    arrows *= (size if scale == "effect" else size > 0)[:, None]

    stem = perturbed_key if key_added is None else key_added
    out = table.copy() if copy else table
    out.obsp[_keys.transitions(stem)] = transitions
    out.obsm[_keys.vectors(stem, basis)] = arrows
    return out if copy else None


def _change(adata: AnnData, perturbed_key: str, *, include_perturbed: bool) -> tuple[Floats, Floats]:
    """Expression before and its change, of the genes that count, in the order of their names."""
    stored = adata.uns[perturbed_key]
    before = get_expression(adata, layer=str(stored["layer"]) or None, check=False)
    after = get_expression(adata, layer=perturbed_key, check=False)
    # genes without a model may hold anything, as in the fit; what a perturbation wrote may not
    usable = np.isfinite(before.sum(axis=0))
    broken = usable & ~np.isfinite(after.sum(axis=0))
    if broken.any():
        gene = int(np.argmax(broken))
        cell = adata.obs_names[int(np.argmax(~np.isfinite(after[:, gene])))]
        msg = (
            f"Expected adata.layers[{perturbed_key!r}] to be finite, found NaN or infinite values of "
            f"{str(adata.var_names[gene])!r} (first in cell {cell!r}); call `st.tl.perturb` again."
        )
        raise ValueError(msg)
    if not include_perturbed:
        usable &= ~adata.var_names.isin([str(g) for g in np.atleast_1d(stored["genes"])])
    genes = np.flatnonzero(usable)
    genes = genes[np.argsort(adata.var_names[genes].to_numpy(dtype=str), kind="stable")]
    before = before[:, genes]
    change = after[:, genes] - before
    change[np.abs(change) <= _ROUNDING * np.abs(before).max(axis=0, initial=0)] = 0
    return before, change


def _embedding(adata: AnnData | SpatialData, basis: str) -> Floats:
    key = basis if basis in adata.obsm else f"X_{basis}"
    assert_key(
        adata, "obsm", key, name="basis", hint='Use "spatial" for the tissue, or call `sc.tl.umap(adata)` for "umap".'
    )
    embedding = np.asarray(adata.obsm[key], dtype=np.float64)
    if not np.isfinite(embedding).all():
        msg = f"Expected adata.obsm[{key!r}] (`basis`) to be finite, found NaN or infinite values."
        raise ValueError(msg)
    return embedding


def _libraries(adata: AnnData | SpatialData, basis: str, library_key: str | None) -> Ints | None:
    stored = adata.uns.get(_keys.SPATIAL_WEIGHTS, {})
    if library_key is None and basis == str(stored.get("spatial_key", _keys.SPATIAL)):
        library_key = str(stored.get("library_key", "")) or None
    return library_codes(adata, library_key)
