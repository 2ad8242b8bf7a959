r"""Imputation by diffusion over a graph of similar cells, sparse throughout.

With the Markov matrix :math:`P` of a nearest-neighbour graph, imputed expression after :math:`n` steps is
:math:`P^n X`. Weights fall off with distance as a Gaussian whose width is the distance of each cell to a middle
neighbour, so that dense and thin regions of expression space are smoothed alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from spacetravlr._core.space.neighbours import nearest_neighbours

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

# Values held at once by a product of the Markov matrix, in bytes.
_CHUNK_BYTES = 128 * 2**20


def markov_matrix(
    embedding: Floats, n_neighbors: int, *, groups: Ints | None = None, rng_seed: int = 0, n_jobs: int | None = None
) -> sparse.csr_matrix:
    """Markov matrix over the ``n_neighbors`` nearest neighbours in ``embedding`` within each group.

    Parameters
    ----------
    embedding
        Cells x components.
    n_neighbors
        Neighbours per cell; groups of ``n_neighbors`` cells or fewer use all their other cells.
    groups
        Group of each cell; no step leads from one group to another.
    rng_seed
        Seed of the approximate neighbour search, see :func:`nearest_neighbours`.
    n_jobs
        Threads.

    Returns
    -------
    CSR float32, cells x cells, rows summing to one.
    """
    return next(markov_matrices(embedding, [n_neighbors], groups=groups, rng_seed=rng_seed, n_jobs=n_jobs))


def markov_matrices(
    embedding: Floats,
    n_neighbors: Sequence[int],
    *,
    groups: Ints | None = None,
    rng_seed: int = 0,
    n_jobs: int | None = None,
) -> Iterator[sparse.csr_matrix]:
    """:func:`markov_matrix` for several numbers of neighbours, which are searched once."""
    near, distance = nearest_neighbours(embedding, max(n_neighbors), groups=groups, rng_seed=rng_seed, n_jobs=n_jobs)
    for k in n_neighbors:
        yield _markov(near[:, :k], distance[:, :k])


def _markov(near: Ints, distance: Floats) -> sparse.csr_matrix:
    n = len(near)
    found = near >= 0
    size = found.sum(axis=1)
    width = distance[np.arange(n), (np.maximum(size, 1) - 1) // 2][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        # cells at one place are at no distance, whatever the width
        scaled = np.where(found & (distance > 0), distance / width, 0.0)
    rows = np.append(np.arange(n), np.repeat(np.arange(n), size))
    columns = np.append(np.arange(n), near[found])
    weights = np.append(np.ones(n), np.exp(-(scaled**2))[found])
    graph = sparse.csr_matrix((weights, (rows, columns)), shape=(n, n))
    graph = (graph + graph.T) * 0.5  # neighbourhood made mutual, so that an outlying cell is not only a receiver
    inverse = sparse.diags_array(1.0 / np.asarray(graph.sum(axis=1)).ravel())
    return sparse.csr_matrix(inverse @ graph, dtype=np.float32)


def diffuse(markov: sparse.csr_matrix, values: Floats | sparse.csr_matrix, n_steps: int) -> Floats:
    """Diffused values :math:`P^n X`, dense float32; columns go through in chunks, so that little more is held."""
    n, n_columns = values.shape
    out = np.empty((n, n_columns), dtype=np.float32)
    columns: Any = sparse.csc_matrix(values) if sparse.issparse(values) else values
    chunk = max(1, _CHUNK_BYTES // (4 * max(n, 1)))
    for first in range(0, n_columns, chunk):
        taken = columns[:, first : first + chunk]
        part = np.ascontiguousarray(taken.toarray() if sparse.issparse(taken) else taken, dtype=np.float32)
        for _ in range(n_steps):
            part = markov @ part
        out[:, first : first + chunk] = part
    return out


def group_means(values: Floats | sparse.csr_matrix, groups: Ints) -> Floats:
    """Mean of each cell's group in the place of its values, dense float32."""
    names, codes = np.unique(groups, return_inverse=True)
    n = len(codes)
    member = sparse.csr_matrix((np.ones(n), (codes, np.arange(n))), shape=(len(names), n))
    total: Any = member @ values
    means = (total.toarray() if sparse.issparse(total) else total) / np.bincount(codes)[:, None]
    return np.asarray(means, dtype=np.float32)[codes]


def keep_totals(imputed: Floats, totals: Floats, *, log_factor: float | None) -> Floats:
    r"""Scale each cell, in place, so that its total is what it was.

    Parameters
    ----------
    imputed
        Cells x genes.
    totals
        Total of each cell before imputation; shape (n_cells,).
    log_factor
        What values are to be multiplied by to be :math:`\\log(1 + y)`, when totals are those of :math:`y`; ``None``
        when they are those of the values themselves.
    """
    for j, total in enumerate(totals):  # one cell at a time: no second array of the size of the result
        values = imputed[j].astype(np.float64)
        if log_factor is not None:
            values = np.expm1(values * log_factor)
        now = values.sum()
        if now > 0:
            values *= total / now
        imputed[j] = values if log_factor is None else np.log1p(values) / log_factor
    return imputed
