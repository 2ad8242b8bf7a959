r"""Where cells would move, given how their expression would change.

For cell :math:`j` with change :math:`d_j` and neighbour :math:`i` in an embedding,

.. math::

    c_{ji} = \mathrm{cor}_g(d_{jg},\, x_{ig} - x_{jg}), \qquad p_{ji} = \mathrm{softmax}_i(c_{ji} / T)

and an arrow is the sum of unit vectors towards the neighbours, weighted by :math:`p_{ji}` minus its value for an
uninformative change: the mean of :math:`p` over random shuffles of the change. Differences, sums and squares are
computed in one pass over the genes of a pair, so no array of size cells x neighbours x genes is ever held.
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
_AT_ONCE = 4  # neighbours whose products with a shuffled change are summed in one pass over it


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
    n_shuffles: int = 32,
    rng_seed: int = 0,
    cell_keys: Ints | None = None,
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
        ``"shuffled"`` subtracts the mean of the same with each cell's change shuffled over genes, ``"zero"`` the same
        with no change (equal probabilities), ``None`` nothing.
    n_shuffles
        Shuffles to average.
    rng_seed
        Of the shuffling; a cell is shuffled by ``(rng_seed, its key)`` alone.
    cell_keys
        Numbers that tell cells apart, whatever their order; their positions by default.

    Returns
    -------
    Cells x cells, float32. Rows sum to one with ``subtract=None``, else to zero.
    """
    n, k = neighbours.shape
    values = np.zeros((n, k), dtype=np.float32)
    n_shuffles = n_shuffles if subtract == "shuffled" else 0
    orders = np.tile(np.arange(expression.shape[1], dtype=np.int32), (n_shuffles, 1))
    np.random.default_rng(rng_seed).permuted(orders, axis=1, out=orders)
    _transitions(
        np.ascontiguousarray(expression, dtype=np.float32),
        np.ascontiguousarray(change, dtype=np.float32),
        neighbours,
        np.float32(temperature),
        subtract == "zero",
        orders,
        np.uint64(rng_seed),
        np.arange(n, dtype=np.uint64) if cell_keys is None else cell_keys.astype(np.uint64),
        values,
    )
    mask = neighbours >= 0
    indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    matrix = sparse.csr_matrix((values[mask], neighbours[mask], indptr), shape=(n, n))
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
    One arrow per cell, cells x dimensions in float32; its length is at most the sum of the row's absolute values.
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
def _next(state):
    """One step of splitmix64: the new state and 64 random bits."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@kernel
def _shuffles(values, orders, rng_seed, key, shuffled):
    """Fill the rows of ``shuffled`` with random orders of ``values``, which ends in one of its own.

    Cells share ``orders`` (shuffles x genes). Each applies them to a random order of its own, so that what one cell
    gets says nothing about another, at the cost of one shuffle.
    """
    state = rng_seed * np.uint64(0xD1342543DE82EF95) + key
    for i in range(values.shape[0] - 1, 0, -1):
        state, bits = _next(state)
        other = np.int64(((bits >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        values[i], values[other] = values[other], values[i]
    for m in range(orders.shape[0]):
        for g in range(np.uint64(values.shape[0])):  # numba does not look for negative indices then
            shuffled[m, g] = values[np.uint64(orders[m, g])]


@kernel
def _softmax(scores, count, inverse_temperature):
    top = scores[:count].max()
    total = 0.0
    for i in range(count):
        scores[i] = np.exp((scores[i] - top) * inverse_temperature)
        total += scores[i]
    for i in range(count):
        scores[i] /= total


@kernel(fastmath={"reassoc", "contract", "nsz"})
def _difference(centre, other, change, to):
    """Fill ``to`` with the difference of two cells; returns sums over genes of it, its square, and times the change."""
    total, square, product = np.float32(0), np.float32(0), np.float32(0)
    for g in range(centre.shape[0]):
        difference = other[g] - centre[g]
        to[g] = difference
        total += difference
        square += difference * difference
        product += difference * change[g]
    return total, square, product


@kernel(fastmath={"reassoc", "contract", "nsz"})
def _products(differences, shuffled, products):
    """Sums over genes of each of four differences times every shuffled change: 4 x shuffles."""
    first, second, third, fourth = differences[0], differences[1], differences[2], differences[3]
    for m in range(shuffled.shape[0]):
        change = shuffled[m]
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for g in range(change.shape[0]):
            a += first[g] * change[g]
            b += second[g] * change[g]
            c += third[g] * change[g]
            d += fourth[g] * change[g]
        products[0, m], products[1, m], products[2, m], products[3, m] = a, b, c, d


@parallel_kernel
def _transitions(expression, change, neighbours, temperature, to_uniform, orders, rng_seed, keys, values):
    n, n_genes = expression.shape
    k, n_shuffles = neighbours.shape[1], orders.shape[0]
    n_tasks = (n + _CELLS_PER_TASK - 1) // _CELLS_PER_TASK
    for task in nb.prange(n_tasks):
        own, order = np.empty(n_genes, dtype=np.float32), np.empty(n_genes, dtype=np.float32)
        shuffled = np.empty((n_shuffles, n_genes), dtype=np.float32)
        differences = np.zeros((_AT_ONCE, n_genes), dtype=np.float32)
        products = np.empty((_AT_ONCE, n_shuffles), dtype=np.float32)
        scale = np.empty(_AT_ONCE)
        scores, scores_shuffled = np.empty(k), np.empty((n_shuffles, k))
        for j in range(task * _CELLS_PER_TASK, min(n, (task + 1) * _CELLS_PER_TASK)):
            # the centred change makes the mean of the difference drop out of the product
            mean = 0.0
            for g in range(n_genes):
                mean += change[j, g]
            mean /= max(n_genes, 1)
            norm = 0.0
            for g in range(n_genes):
                own[g] = change[j, g] - mean
                norm += own[g] * own[g]
            order[:] = own
            if n_shuffles > 0:
                _shuffles(order, orders, rng_seed, keys[j], shuffled)
            count = 0
            while count < k and neighbours[j, count] >= 0:
                begin = count
                while count < min(k, begin + _AT_ONCE) and neighbours[j, count] >= 0:
                    total, square, product = _difference(
                        expression[j], expression[neighbours[j, count]], own, differences[count - begin]
                    )
                    variance = square - total * total / max(n_genes, 1)
                    scale[count - begin] = np.sqrt(variance * norm) if variance > 0 and norm > 0 else np.inf
                    scores[count] = product / scale[count - begin]
                    count += 1
                _products(differences, shuffled, products)
                for i in range(begin, count):
                    for m in range(n_shuffles):
                        scores_shuffled[m, i] = products[i - begin, m] / scale[i - begin]
            if count == 0:
                continue
            _softmax(scores, count, 1 / temperature)
            for m in range(n_shuffles):
                _softmax(scores_shuffled[m], count, 1 / temperature)
            for i in range(count):
                expected = 1 / count if to_uniform else 0.0
                for m in range(n_shuffles):
                    expected += scores_shuffled[m, i] / n_shuffles
                values[j, i] = scores[i] - expected


@parallel_kernel
def _project(indptr, indices, data, embedding, arrows):
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
