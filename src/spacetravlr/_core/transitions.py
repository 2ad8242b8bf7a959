r"""Where cells would move, given how their expression would change (SPEC section 7).

For cell :math:`j` with change :math:`d_j` and neighbour :math:`i` in an embedding,

.. math::

    c_{ji} = \mathrm{cor}_g(d_{jg},\, x_{ig} - x_{jg}), \qquad p_{ji} = \mathrm{softmax}_i(c_{ji} / T)

and an arrow is the sum of unit vectors towards the neighbours, weighted by :math:`p_{ji}`, less what an uninformative
change would give. Differences, sums and squares are formed in one pass over the genes of a pair, so that nothing of
the size cells x neighbours x genes is ever held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numba as nb
import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from spacetravlr._core.kernels import kernel, parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

Subtract = Literal["shuffled", "zero"]

_CELLS_PER_TASK = 32


class GridArrows(NamedTuple):
    """Arrows averaged on a regular grid."""

    points: Floats
    """Grid points that have enough cells near, shape (n_points, n_dims)."""
    arrows: Floats
    """Mean arrow at each point, shape (n_points, n_dims)."""
    mass: Floats
    """Weight of the cells near each point, in cells; shape (n_points,)."""


def transition_probabilities(
    expression: Floats,
    change: Floats,
    neighbours: Ints,
    *,
    temperature: float = 0.05,
    subtract: Subtract | None = "shuffled",
    seed: int = 0,
) -> sparse.csr_matrix:
    """Compute transition probabilities to neighbours, less those of an uninformative change.

    Parameters
    ----------
    expression
        Cells x genes, before the change.
    change
        Cells x genes.
    neighbours
        Cells x neighbours, -1 for none.
    temperature
        Of the softmax.
    subtract
        ``"shuffled"`` subtracts the same with each cell's change shuffled over genes, ``"zero"`` the same with no
        change (equal probabilities), ``None`` nothing.
    seed
        Of the shuffling; cell ``j`` is shuffled by ``(seed, j)`` alone.

    Returns
    -------
    Cells x cells, float32. Rows sum to one with ``subtract=None``, else to zero.
    """
    n, k = neighbours.shape
    values = np.zeros((n, k), dtype=np.float32)
    mode = {None: 0, "zero": 1, "shuffled": 2}[subtract]
    _transitions(
        np.ascontiguousarray(expression, dtype=np.float32),
        np.ascontiguousarray(change, dtype=np.float32),
        neighbours,
        np.float32(temperature),
        mode,
        np.uint64(seed),
        values,
    )
    there = neighbours >= 0
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    matrix = sparse.csr_matrix((values[there], neighbours[there], indptr), shape=(n, n))
    matrix.sort_indices()
    return matrix


def project(transitions: sparse.csr_matrix, embedding: Floats) -> Floats:
    r"""Project transition probabilities on an embedding.

    .. math::

        v_j = \sum_i p_{ji} \frac{e_i - e_j}{\lVert e_i - e_j \rVert}

    Parameters
    ----------
    transitions
        Cells x cells.
    embedding
        Cells x dimensions.

    Returns
    -------
    One arrow a cell, cells x dimensions in float32; its length is at most the sum of the row's absolute values.
    """
    arrows = np.zeros(embedding.shape, dtype=np.float32)
    _project(
        transitions.indptr.astype(np.int64),
        transitions.indices.astype(np.int64),
        transitions.data,
        np.ascontiguousarray(embedding, dtype=np.float64),
        arrows,
    )
    return arrows


def grid_arrows(
    embedding: Floats,
    arrows: Floats,
    *,
    n_grid: int = 40,
    smoothing: float = 0.5,
    min_mass: float = 0.01,
    n_neighbors: int = 100,
) -> GridArrows:
    """Average arrows on a regular grid, with Gaussian weights.

    Parameters
    ----------
    embedding
        Cells x dimensions.
    arrows
        Cells x dimensions.
    n_grid
        Grid points along the longest side.
    smoothing
        Standard deviation of the weights, in grid steps.
    min_mass
        Points with less than this part of the largest mass are left out.
    n_neighbors
        Cells that a point may average.

    Returns
    -------
    Points, arrows and mass.
    """
    low, high = embedding.min(axis=0), embedding.max(axis=0)
    step = max(float((high - low).max()) / max(n_grid - 1, 1), np.finfo(float).tiny)
    axes = [np.arange(a, b + step / 2, step) for a, b in zip(low, high, strict=True)]
    points = np.stack([m.ravel() for m in np.meshgrid(*axes, indexing="ij")], axis=1)
    k = min(n_neighbors, len(embedding))
    distance, near = cKDTree(embedding).query(points, k=np.arange(1, k + 1))
    weight = np.exp(-0.5 * (distance / (smoothing * step)) ** 2)
    mass = weight.sum(axis=1)
    mean = np.einsum("pk,pkd->pd", weight, arrows[near]) / np.maximum(mass, np.finfo(float).tiny)[:, None]
    dense = mass > min_mass * mass.max()
    return GridArrows(points[dense], mean[dense], mass[dense])


@kernel(inline="always")
def _next(state):  # type: ignore[no-untyped-def]
    """One step of splitmix64: the new state and 64 random bits."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@kernel
def _shuffle(values, seed, j):  # type: ignore[no-untyped-def]
    state = seed * np.uint64(0xD1342543DE82EF95) + np.uint64(j)
    for i in range(values.shape[0] - 1, 0, -1):
        state, bits = _next(state)
        other = np.int64(bits % np.uint64(i + 1))
        values[i], values[other] = values[other], values[i]


@kernel
def _softmax(scores, count, inverse_temperature):  # type: ignore[no-untyped-def]
    top = scores[:count].max()
    total = 0.0
    for i in range(count):
        scores[i] = np.exp((scores[i] - top) * inverse_temperature)
        total += scores[i]
    for i in range(count):
        scores[i] /= total


@kernel(fastmath={"reassoc", "contract", "nsz"})
def _pair_sums(centre, other, change, shuffled):  # type: ignore[no-untyped-def]
    """Sums over genes of the difference, its square, and its products with the change and the shuffled change."""
    total, square = np.float32(0), np.float32(0)
    product, product_shuffled = np.float32(0), np.float32(0)
    for g in range(centre.shape[0]):
        difference = other[g] - centre[g]
        total += difference
        square += difference * difference
        product += difference * change[g]
        product_shuffled += difference * shuffled[g]
    return total, square, product, product_shuffled


@parallel_kernel
def _transitions(expression, change, neighbours, temperature, mode, seed, values):  # type: ignore[no-untyped-def]
    n, n_genes = expression.shape
    k = neighbours.shape[1]
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    for task in nb.prange(n_tasks):
        own = np.empty(n_genes, dtype=np.float32)
        shuffled = np.empty(n_genes, dtype=np.float32)
        scores, scores_shuffled = np.empty(k), np.empty(k)
        for j in range(task * _CELLS_PER_TASK, min(n, (task + 1) * _CELLS_PER_TASK)):
            # the centred change makes the mean of the difference drop out of the product
            mean = 0.0
            for g in range(n_genes):
                mean += change[j, g]
            mean /= n_genes
            norm = 0.0
            for g in range(n_genes):
                own[g] = change[j, g] - mean
                norm += own[g] * own[g]
            shuffled[:] = own
            if mode == 2:
                _shuffle(shuffled, seed, j)
            count = 0
            while count < k and neighbours[j, count] >= 0:
                total, square, product, product_shuffled = _pair_sums(
                    expression[j], expression[neighbours[j, count]], own, shuffled
                )
                variance = square - total * total / n_genes
                scale = np.sqrt(variance * norm) if variance > 0 and norm > 0 else np.inf
                scores[count] = product / scale
                scores_shuffled[count] = product_shuffled / scale
                count += 1
            if count == 0:
                continue
            _softmax(scores, count, 1 / temperature)
            if mode == 2:
                _softmax(scores_shuffled, count, 1 / temperature)
            for i in range(count):
                expected = 0.0
                if mode == 1:
                    expected = 1 / count
                elif mode == 2:
                    expected = scores_shuffled[i]
                values[j, i] = scores[i] - expected


@parallel_kernel
def _project(indptr, indices, data, embedding, arrows):  # type: ignore[no-untyped-def]
    n_dims = embedding.shape[1]
    for j in nb.prange(embedding.shape[0]):
        sums = np.zeros(n_dims)
        for entry in range(indptr[j], indptr[j + 1]):
            i = indices[entry]
            length = 0.0
            for d in range(n_dims):
                length += (embedding[i, d] - embedding[j, d]) ** 2
            if length > 0:
                length = np.sqrt(length)
                for d in range(n_dims):
                    sums[d] += data[entry] * (embedding[i, d] - embedding[j, d]) / length
        for d in range(n_dims):
            arrows[j, d] = sums[d]
