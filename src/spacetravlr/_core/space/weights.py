r"""Gaussian weights between neighbouring cells (how-it-works, section 1).

.. math::

    W_{ij} = \exp\left(-\frac{\lVert s_i - s_j \rVert^2}{2 \sigma^2}\right) \text{ for } \lVert s_i - s_j \rVert \le r,
    \qquad \sigma = \frac{r}{\sqrt{-2 \ln \varepsilon}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba as nb
import numpy as np
from scipy import sparse

from spacetravlr._core.kernels import kernel, parallel_kernel
from spacetravlr._core.space.cell_list import cell_list
from spacetravlr._utils import numba_threads

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Weight beyond which an un-truncated kernel is zero: in 2-D the share of the signal left out is this number.
NEGLIGIBLE = 1e-10
#: Largest number of stored weights: 8 bytes each, 16 GB.
MAX_WEIGHTS = 2_000_000_000


def length_scale(radius: float, eps: float = 1e-3) -> float:
    r"""Length scale at which the weight at distance ``radius`` is ``eps``, :math:`r / \sqrt{-2 \ln \varepsilon}`."""
    return float(radius / np.sqrt(-2.0 * np.log(eps)))


def kernel_reach(radius: float, sigma: float, *, truncate: bool = True) -> float:
    """Distance beyond which weights are zero: ``radius``, or where an un-truncated kernel has become negligible."""
    return float(radius) if truncate else float(sigma * np.sqrt(-2.0 * np.log(NEGLIGIBLE)))


def gaussian_weight(distance: Floats, *, sigma: float, radius: float, truncate: bool = True) -> Floats:
    """Weight at each distance, zero beyond ``radius`` where the kernel is truncated."""
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    return np.where(distance > radius, 0.0, weight) if truncate else weight


@kernel
def gaussian_kernel_2d(origin, xy, radius, eps=1e-3):
    r"""Compute the Gaussian weight of every cell from its distance to one origin.

    .. math::

        \Omega(s; s_i) = \exp\left(-\lVert s_i - s \rVert^2 / 2 \sigma^2\right)
        \text{ within the radius, 0 beyond}

    Parameters
    ----------
    origin
        One position; shape (2,) or (3,).
    xy
        Positions of all cells; shape (n_cells, 2) or (n_cells, 3).
    radius
        Radius of the neighbourhood, in the units of ``xy``.
    eps
        Weight at distance ``radius``.

    Returns
    -------
    Weights, float64, shape (n_cells,).
    """
    two_variance = radius * radius / -np.log(eps)
    weights = np.zeros(xy.shape[0])
    for i in range(xy.shape[0]):
        squared = 0.0
        for axis in range(xy.shape[1]):
            step = xy[i, axis] - origin[axis]
            squared += step * step
        if squared <= radius * radius:
            weights[i] = np.exp(-squared / two_variance)
    return weights


def gaussian_weights(
    coords: Floats,
    radius: float,
    *,
    sigma: float | None = None,
    eps: float = 1e-3,
    truncate: bool = True,
    autocrine: bool = True,
    libraries: Ints | None = None,
    n_jobs: int | None = None,
) -> sparse.csr_matrix:
    """Gaussian weights of all pairs of cells within a radius.

    Parameters
    ----------
    coords
        Cells x 2 or 3.
    radius
        Radius of the neighbourhood, in the units of ``coords``.
    sigma
        Length scale; by default such that the weight at ``radius`` is ``eps``.
    eps
        Weight at ``radius``.
    truncate
        Whether weights beyond ``radius`` are zero. Otherwise the kernel runs on until it is negligible (weight 1e-10,
        below what float32 sums resolve).
    autocrine
        Whether a cell is its own neighbour, with weight 1.
    libraries
        Slide code of each cell; cells on different slides get no weight.
    n_jobs
        Threads.

    Returns
    -------
    Symmetric CSR float32 matrix, cells x cells, with sorted indices.

    Raises
    ------
    ValueError
        If the weights would not fit in memory.
    """
    sigma = length_scale(radius, eps) if sigma is None else float(sigma)
    reach = kernel_reach(radius, sigma, truncate=truncate)
    coords = np.asarray(coords, dtype=np.float64)
    cells = cell_list(coords, reach, libraries)
    n = len(coords)
    with numba_threads(n_jobs):
        counts = np.empty(n, dtype=np.int64)
        _count_neighbours(*cells, reach, counts)
        if not autocrine:
            counts -= 1
        indptr = np.concatenate([[0], np.cumsum(counts)])
        if indptr[-1] > MAX_WEIGHTS:
            msg = (
                f"Expected at most {MAX_WEIGHTS:,} weights, found {indptr[-1]:,} "
                f"({indptr[-1] // max(n, 1):,} neighbours per cell); "
                'pass `method="grid"`, a smaller radius, or check `microns_per_unit`.'
            )
            raise ValueError(msg)
        index_type = np.int32 if max(indptr[-1], n) < 2**31 else np.int64
        indices = np.empty(indptr[-1], dtype=index_type)
        data = np.empty(indptr[-1], dtype=np.float32)
        _fill_weights(*cells, reach, sigma, autocrine, indptr, indices, data)
    weights = sparse.csr_matrix((data, indices, indptr.astype(index_type)), shape=(n, n))
    weights.has_sorted_indices = True
    weights.has_canonical_format = True
    return weights


@parallel_kernel
def _count_neighbours(order, start, run_start, run_stop, points, radius, counts):
    squared_radius = radius * radius
    for b in nb.prange(start.shape[0] - 1):
        for p in range(start[b], start[b + 1]):
            x, y, z = points[0, p], points[1, p], points[2, p]
            found = 0
            for run in range(run_start.shape[1]):
                # Slices and a sum without a branch let the compiler use vector instructions.
                xs = points[0, run_start[b, run] : run_stop[b, run]]
                ys = points[1, run_start[b, run] : run_stop[b, run]]
                zs = points[2, run_start[b, run] : run_stop[b, run]]
                for q in range(xs.shape[0]):
                    dx, dy, dz = xs[q] - x, ys[q] - y, zs[q] - z
                    found += int(dx * dx + dy * dy + dz * dz <= squared_radius)
            counts[order[p]] = found


@parallel_kernel
def _fill_weights(order, start, run_start, run_stop, points, radius, sigma, autocrine, indptr, indices, data):
    scale = -0.5 / (sigma * sigma)
    squared_radius = radius * radius
    for b in nb.prange(start.shape[0] - 1):
        # All cells of a bin share their candidates: brought into the order of cells once, every row comes out sorted.
        total = 0
        for run in range(run_start.shape[1]):
            total += run_stop[b, run] - run_start[b, run]
        position = np.empty(total, dtype=np.int64)
        total = 0
        for run in range(run_start.shape[1]):
            for q in range(run_start[b, run], run_stop[b, run]):
                position[total] = q
                total += 1
        position = _merge_by(order, position)
        cell = order[position].astype(indices.dtype)
        xs, ys, zs = points[0][position], points[1][position], points[2][position]
        squared = np.empty(total)
        kept_cell = np.empty(total + 1, dtype=indices.dtype)
        kept_squared = np.empty(total + 1)
        power = np.empty(total, dtype=np.float32)
        for p in range(start[b], start[b + 1]):
            x, y, z = points[0, p], points[1, p], points[2, p]
            j = order[p]
            for q in range(total):
                dx, dy, dz = xs[q] - x, ys[q] - y, zs[q] - z
                squared[q] = dx * dx + dy * dy + dz * dz
            k = 0
            # written always, kept or overwritten: a branch here would be mispredicted half the time
            for q in range(total):
                kept_cell[k] = cell[q]
                kept_squared[k] = squared[q]
                k += int((squared[q] <= squared_radius) & (autocrine | (cell[q] != j)))
            indices[indptr[j] : indptr[j] + k] = kept_cell[:k]
            _decay(kept_squared[:k], scale, power[:k], data[indptr[j] : indptr[j] + k])


@kernel
def _decay(squared, scale, power, out):
    r"""Write :math:`e^{s d^2}` for :math:`s < 0`, right to float32 precision, in loops that use vector instructions.

    With :math:`s d^2 = k \ln 2 + y`, :math:`|y| \le \ln 2 / 2`, the power of two comes from its bits (``power`` is room
    for them) and :math:`e^y` from its Taylor series to the seventh power, whose error is below 6e-9. The library's
    exponential, one number at a time, makes all of the weights 1.3 times slower.
    """
    bits = power.view(np.int32)
    for q in range(squared.shape[0]):
        exponent = squared[q] * scale
        k = np.floor(exponent * 1.4426950408889634 + 0.5)
        y = exponent - k * 0.6931471805599453
        tail = 1 / 120 + y * (1 / 720 + y * (1 / 5040))
        out[q] = 1 + y * (1 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24 + y * tail))))
        bits[q] = np.int32(max(k, -127.0) + 127.0) << 23
    for q in range(squared.shape[0]):
        out[q] *= power[q]


@kernel
def _merge_by(key, position):
    """Sort ``position`` by ``key[position]``; quick where it consists of few ascending stretches, as bins do."""
    n = position.shape[0]
    border = np.empty(n + 1, dtype=np.int64)
    border[0] = 0
    n_runs = 1
    for q in range(1, n):
        if key[position[q]] < key[position[q - 1]]:
            border[n_runs] = q
            n_runs += 1
    border[n_runs] = n
    other = np.empty_like(position)
    while n_runs > 1:
        merged = 0
        for run in range(0, n_runs, 2):
            low, middle = border[run], border[run + 1]
            high = border[min(run + 2, n_runs)]
            i, k = low, middle
            for q in range(low, high):
                take = k == high or (i < middle and key[position[i]] < key[position[k]])
                other[q] = position[i if take else k]
                i += int(take)
                k += int(not take)
            border[merged] = low
            merged += 1
        border[merged] = n
        n_runs = merged
        position, other = other, position
    return position
