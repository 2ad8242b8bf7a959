"""Where cells would move under a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._spatial import library_codes, unwrap
from spacetravlr._core.space.neighbours import nearest_neighbours
from spacetravlr._core.transitions import Subtract, project, transition_probabilities
from spacetravlr._utils import as_generator, numba_threads, warn
from spacetravlr._validators import assert_key, assert_one_of, assert_positive

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints, Rng


def perturbation_vectors(
    adata: AnnData | SpatialData,
    *,
    basis: str = "spatial",
    n_neighbors: int = 50,
    temperature: float = 0.05,
    subtract: Subtract | None = "shuffled",
    perturbed_key: str = _keys.PERTURBED,
    library_key: str | None = None,
    rng: Rng = 0,
    n_jobs: int | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Estimate where each cell would move, in the tissue or in an embedding, if its expression changed as simulated.

    A cell moves towards neighbours that look like what it would become (SPEC section 7):

    .. math::

        p_{ji} = \mathrm{softmax}_i \left( \mathrm{cor}(\Delta x_j, x_i - x_j) / T \right), \qquad
        v_j = \sum_i (p_{ji} - q_{ji}) \frac{e_i - e_j}{\lVert e_i - e_j \rVert}

    where :math:`q` is the same with the change shuffled over genes, so that an arrow is what the change itself says and
    not what the shape of the neighbourhood does.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.perturb`.
    basis
        Embedding: ``"spatial"`` is the tissue, ``"umap"`` is ``adata.obsm["X_umap"]``.
    n_neighbors
        Neighbours of a cell in the embedding.
    temperature
        Of the softmax; smaller follows the most alike neighbour more closely.
    subtract
        ``"shuffled"`` subtracts the probabilities of the shuffled change, ``"zero"`` those of no change (equal ones),
        ``None`` nothing.
    perturbed_key
        Key of the perturbation.
    library_key
        Column of ``adata.obs`` with the slide of a cell; on the tissue, neighbours are on the same slide. What
        :func:`spacetravlr.pp.spatial_weights` was told by default.
    rng
        Seed or generator of the shuffling.
    n_jobs
        Threads; ``None`` is ``st.settings.n_jobs``. Results do not depend on it.
    key_added
        Stem of the keys written; ``perturbed_key`` by default.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or a copy of ``adata`` when ``copy``. Writes

    ``adata.obsp['perturbed_transitions']`` : CSR matrix (float32)
        :math:`p - q`, cells x cells; rows sum to zero, or to one with ``subtract=None``.
    ``adata.obsm['perturbed_<basis>']`` : array (float32)
        One arrow a cell, of length at most two and without unit.

    Raises
    ------
    KeyError
        When the perturbation, the embedding or ``library_key`` is missing.
    ValueError
        When an option is out of range, or coordinates are not finite.
    """
    if subtract is not None:
        assert_one_of(subtract, get_args(Subtract), name="subtract")
    assert_positive(temperature, name="temperature")
    if n_neighbors < 1:
        msg = f"Expected `n_neighbors` to be at least 1, found `{n_neighbors}`."
        raise ValueError(msg)
    hint = 'Call `st.tl.perturb(adata, "FOXO1")` first.'
    table = unwrap(adata)
    assert_key(table, "uns", perturbed_key, name="perturbed_key", hint=hint)
    assert_key(table, "layers", perturbed_key, name="perturbed_key", hint=hint)
    embedding = _embedding(table, basis)
    libraries = _libraries(table, basis, library_key)

    before = get_expression(table, layer=str(table.uns[perturbed_key]["layer"]) or None, check=False)
    change = get_expression(table, layer=perturbed_key, check=False) - before
    if not change.any():
        warn("The perturbation changes no gene at any cell, so that its arrows say nothing.")
    seed = int(as_generator(rng).integers(2**63))
    with numba_threads(n_jobs):
        neighbours = nearest_neighbours(embedding, n_neighbors, groups=libraries, n_jobs=n_jobs).indices
        transitions = transition_probabilities(
            before, change, neighbours, temperature=temperature, subtract=subtract, seed=seed
        )
        arrows = project(transitions, embedding)

    stem = perturbed_key if key_added is None else key_added
    out = table.copy() if copy else table
    out.obsp[_keys.transitions(stem)] = transitions
    out.obsm[_keys.vectors(stem, basis)] = arrows
    return out if copy else None


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
