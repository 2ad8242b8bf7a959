r"""Imputation by diffusion over a graph of similar cells, sparse throughout.

With the Markov matrix :math:`P` of a nearest-neighbour graph, imputed expression is :math:`P^t X`. Weights fall off
with distance as a Gaussian whose width is the distance of each cell to a middle neighbour, so that dense and thin
regions of expression space are smoothed alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

# Above this size exact neighbours, quadratic in cells, give way to approximate ones.
_EXACT_UP_TO = 20_000
# Values held at once by a product of the Markov matrix, in bytes.
_CHUNK_BYTES = 128 * 2**20


def markov_matrix(
    embedding: Floats, k: int, *, groups: Ints | None = None, seed: int = 0, n_jobs: int | None = None
) -> sparse.csr_matrix:
    """Markov matrix over the ``k`` nearest neighbours in ``embedding`` within each group.

    Parameters
    ----------
    embedding
        Cells x components.
    k
        Neighbours a cell; groups of ``k`` cells or fewer use all their other cells.
    groups
        Group of each cell; no step leads from one group to another.
    seed
        Seed of the approximate neighbour search, used for groups of more than 20,000 cells.
    n_jobs
        Threads.

    Returns
    -------
    CSR float32, cells x cells, rows summing to one.
    """
    n = len(embedding)
    groups = np.zeros(n, dtype=np.int64) if groups is None else np.asarray(groups)
    rows, columns, weights = [np.arange(n)], [np.arange(n)], [np.ones(n)]
    for group in np.unique(groups):
        cells = np.flatnonzero(groups == group)
        size = min(k, len(cells) - 1)
        if size < 1:
            continue
        neighbours, distances = _nearest(np.ascontiguousarray(embedding[cells]), size, seed=seed, n_jobs=n_jobs)
        width = distances[:, (size - 1) // 2][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(
                distances > 0, distances / width, 0.0
            )  # twins of a cell are at no distance, whatever the width
        rows.append(np.repeat(cells, size))
        columns.append(cells[neighbours].ravel())
        weights.append(np.exp(-(scaled**2)).ravel())
    graph = sparse.csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
    graph = (graph + graph.T) * 0.5  # neighbourhood made mutual, so that an outlying cell is not only a receiver
    inverse = sparse.diags_array(1.0 / np.asarray(graph.sum(axis=1)).ravel())
    return sparse.csr_matrix(inverse @ graph, dtype=np.float32)


def diffuse(markov: sparse.csr_matrix, values: Floats | sparse.csr_matrix, t: int) -> Floats:
    """Diffused values :math:`P^t X`, dense float32; columns go through in chunks, so that little more is held."""
    n, n_columns = values.shape
    out = np.empty((n, n_columns), dtype=np.float32)
    columns = sparse.csc_matrix(values) if sparse.issparse(values) else values
    chunk = max(1, _CHUNK_BYTES // (4 * max(n, 1)))
    for first in range(0, n_columns, chunk):
        taken = columns[:, first : first + chunk]
        part = np.ascontiguousarray(
            taken.toarray() if isinstance(taken, sparse.csc_matrix) else taken, dtype=np.float32
        )
        for _ in range(t):
            part = markov @ part
        out[:, first : first + chunk] = part
    return out


def keep_totals(imputed: Floats, totals: Floats, *, log1p: bool) -> Floats:
    r"""Scale each cell, in place, so that its total is what it was.

    Parameters
    ----------
    imputed
        Cells x genes.
    totals
        Total of each cell before imputation; shape (n_cells,).
    log1p
        Whether values are :math:`\\log(1 + y)` and totals are those of :math:`y`.
    """
    for j, total in enumerate(totals):  # one cell at a time: no second array of the size of the result
        values = np.expm1(imputed[j], dtype=np.float64) if log1p else imputed[j].astype(np.float64)
        now = values.sum()
        if now > 0:
            values *= total / now
        imputed[j] = np.log1p(values) if log1p else values
    return imputed


def _nearest(points: Floats, k: int, *, seed: int, n_jobs: int | None) -> tuple[Ints, Floats]:
    """Indices and distances of the ``k`` nearest other points, nearest first."""
    if len(points) > _EXACT_UP_TO:
        from pynndescent import NNDescent  # type: ignore[import-untyped]

        search = NNDescent(points, n_neighbors=k + 1, random_state=seed, n_jobs=n_jobs)
        indices, distances = search.neighbor_graph
    else:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=k + 1, n_jobs=n_jobs).fit(points)
        distances, indices = search.kneighbors(points)
    # A cell is its own nearest neighbour, except among twins, where any of them may stand in its place.
    own = indices == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True
    return indices[~own].reshape(-1, k), distances[~own].reshape(-1, k)
