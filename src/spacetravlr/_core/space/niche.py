r"""What surrounds a cell: how many cells of each type, and where: inputs of the networks (how-it-works, section 3).

Composition counts the cells of each type within a radius, the cell itself included. A niche image is the same in space:
the window of half-width ``radius`` centred on the cell is cut into ``m x m`` bins and each bin holds the number of
cells of a type in it, so that an image sums to the cells of the window and does not depend on the unit of length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel
from spacetravlr._core.space.cell_list import CellList, cell_list
from spacetravlr._utils import numba_threads

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints


def niche_composition(
    coords: Floats,
    codes: Ints,
    n_types: int,
    radius: float,
    *,
    libraries: Ints | None = None,
    n_jobs: int | None = None,
) -> Floats:
    """Count the cells of each type within ``radius`` of each cell, itself included.

    Parameters
    ----------
    coords
        Cells x 2 or 3.
    codes
        Type of each cell, ``0 .. n_types - 1``.
    n_types
        Number of types.
    radius
        Radius, in the units of ``coords``.
    libraries
        Slide code of each cell; cells of other slides are not counted.
    n_jobs
        Threads.

    Returns
    -------
    Cells x types, float32.
    """
    cells = cell_list(np.asarray(coords, dtype=np.float64), radius, libraries)
    out = np.zeros((len(coords), n_types), dtype=np.float32)
    with numba_threads(n_jobs):
        _count_types(*cells, np.asarray(codes)[cells.order].astype(np.int64), float(radius), out)
    return out


def niche_images(
    coords: Floats,
    codes: Ints,
    n_types: int,
    radius: float,
    m: int,
    *,
    cells: Ints | None = None,
    libraries: Ints | None = None,
    n_jobs: int | None = None,
) -> Floats:
    """Draw the niche image of each cell.

    Image ``[t, a, b]`` is the number of cells of type ``t`` whose second coordinate lies in row ``a`` and whose first
    coordinate lies in column ``b`` of the window, both ascending (as ``imshow(origin="lower")`` draws it). The upper
    edges belong to the last bins. Three-dimensional tissue is projected onto its first two axes.

    Parameters
    ----------
    coords
        Cells x 2 or 3.
    codes
        Type of each cell, ``0 .. n_types - 1``.
    n_types
        Number of types: the channels of an image.
    radius
        Half-width of the window, in the units of ``coords``.
    m
        Bins a side.
    cells
        Cells to draw, in this order; all by default.
    libraries
        Slide code of each cell; cells of other slides are not drawn.
    n_jobs
        Threads.

    Returns
    -------
    Images, float32, shape (len(cells), n_types, m, m).
    """
    wanted = np.arange(len(coords)) if cells is None else np.asarray(cells)
    out = np.zeros((len(wanted), n_types, m, m), dtype=np.float32)
    index = _window_list(coords, radius, libraries)
    with numba_threads(n_jobs):
        _draw(*index, np.asarray(codes)[index.order].astype(np.int64), float(radius), _places(index, wanted), out)
    return out


def _window_list(coords: Floats, radius: float, libraries: Ints | None) -> CellList:
    # A bin of side `radius` and its neighbours cover the square window too.
    return cell_list(np.asarray(coords, dtype=np.float64)[:, :2], radius, libraries)


def _places(index: CellList, cells: Ints) -> Ints:
    """Where each cell lies in the sorted order, and in which bin; shape (len(cells), 2)."""
    place = np.empty(len(index.order), dtype=np.int64)
    place[index.order] = np.arange(len(index.order))
    place = place[cells]
    return np.stack([place, np.searchsorted(index.start, place, side="right") - 1], axis=1)


@parallel_kernel
def _count_types(order, start, run_start, run_stop, points, types, radius, out):
    squared_radius = radius * radius
    for b in nb.prange(start.shape[0] - 1):
        for p in range(start[b], start[b + 1]):
            counts = out[order[p]]
            for run in range(run_start.shape[1]):
                for q in range(run_start[b, run], run_stop[b, run]):
                    dx, dy, dz = points[0, q] - points[0, p], points[1, q] - points[1, p], points[2, q] - points[2, p]
                    if dx * dx + dy * dy + dz * dz <= squared_radius:
                        counts[types[q]] += 1


@parallel_kernel
def _draw(order, start, run_start, run_stop, points, types, radius, places, images):
    m = images.shape[2]
    bins_per_unit = m / (2 * radius)
    for i in nb.prange(places.shape[0]):
        p, b = places[i]
        image = images[i]
        for run in range(run_start.shape[1]):
            for q in range(run_start[b, run], run_stop[b, run]):
                dx, dy = points[0, q] - points[0, p], points[1, q] - points[1, p]
                if abs(dx) <= radius and abs(dy) <= radius:
                    column = min(int((dx + radius) * bins_per_unit), m - 1)
                    row = min(int((dy + radius) * bins_per_unit), m - 1)
                    image[types[q], row, column] += 1
