"""Nearest neighbours of every cell, in the tissue, in an embedding or in expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from spacetravlr._utils import resolve_n_jobs

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints

# A tree is exact and fast in so many dimensions, whatever the number of cells.
_TREE_DIMS = 3
# With more dimensions exact neighbours, quadratic in cells, give way to approximate ones above this size.
_EXACT_UP_TO = 20_000
# Distances that differ by less, relative to the larger one, are the same distance (lattices of spots).
_TIE = 1e-9


class Neighbours(NamedTuple):
    """Nearest other cells of each cell, nearest first."""

    indices: Ints
    """Cells x neighbours, int64; -1 where a group has fewer cells."""
    distances: Floats
    """Cells x neighbours; infinite where a group has fewer cells."""


def nearest_neighbours(
    points: Floats, n_neighbors: int, *, groups: Ints | None = None, rng_seed: int = 0, n_jobs: int | None = None
) -> Neighbours:
    """Find the nearest cells of every cell, itself left out.

    In up to three dimensions neighbours are exact, and of several cells at the same distance those are taken that come
    first by their coordinates, so that the order of the cells does not matter on a lattice of spots.

    Parameters
    ----------
    points
        Cells x dimensions.
    n_neighbors
        Neighbours of a cell; cells of smaller groups have fewer.
    groups
        Group of each cell, such as its slide; neighbours are of the same group.
    rng_seed
        Seed of the approximate search, used for groups of more than 20,000 cells in more than three dimensions.
    n_jobs
        Threads.

    Returns
    -------
    Indices and distances, nearest first.
    """
    n = len(points)
    index = np.full((n, n_neighbors), -1, dtype=np.int64)
    distance = np.full((n, n_neighbors), np.inf)
    groups = np.zeros(n, dtype=np.int64) if groups is None else np.asarray(groups)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        k = min(n_neighbors, len(members) - 1)
        if k < 1:
            continue
        near, distance[members, :k] = _search(np.ascontiguousarray(points[members]), k, rng_seed, n_jobs)
        index[members, :k] = members[near]
    return Neighbours(index, distance)


def distance_to_nearest(points: Floats, sources: Bools, *, groups: Ints | None = None) -> Floats:
    """Distance of every cell to the nearest source of its group, zero at the sources; infinite without a source."""
    distance = np.full(len(points), np.inf)
    groups = np.zeros(len(points), dtype=np.int64) if groups is None else np.asarray(groups)
    for group in np.unique(groups[sources]):
        members = np.flatnonzero(groups == group)
        distance[members] = cKDTree(points[members[sources[members]]]).query(points[members])[0]
    return distance


def _search(points: Floats, k: int, rng_seed: int, n_jobs: int | None) -> tuple[Ints, Floats]:
    if points.shape[1] <= _TREE_DIMS:
        return _by_tree(points, k, n_jobs)
    if len(points) > _EXACT_UP_TO:
        from pynndescent import NNDescent

        search = NNDescent(points, n_neighbors=k + 1, random_state=rng_seed, n_jobs=n_jobs)
        near, distance = search.neighbor_graph
    else:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=k + 1, n_jobs=n_jobs).fit(points)
        distance, near = search.kneighbors(points)
    return _without_self(near, distance)


def _by_tree(points: Floats, k: int, n_jobs: int | None) -> tuple[Ints, Floats]:
    tree = cKDTree(points)
    n_found = min(k + 2, len(points))  # the cell itself, and one more to see whether the last has its equals
    distance, near = tree.query(points, k=np.arange(1, n_found + 1), workers=resolve_n_jobs(n_jobs))
    last = distance[:, k]
    tied = np.flatnonzero(distance[:, n_found - 1] <= last * (1 + _TIE)) if n_found > k + 1 else np.zeros(0, np.int64)
    near, distance = _without_self(near[:, : k + 1], distance[:, : k + 1])
    for j in tied[last[tied] > 0]:  # among cells at one place none comes before another
        found = np.array(tree.query_ball_point(points[j], last[j] * (1 + _TIE)), dtype=np.int64)
        found = found[found != j]
        offset = points[found] - points[j]
        length = np.linalg.norm(offset, axis=1)
        is_last = length >= last[j] * (1 - _TIE)
        scale = np.abs(offset).max() * 1e6 * _TIE
        order = np.lexsort([*np.round(offset / scale).T[::-1], np.where(is_last, last[j], length)])[:k]
        near[j], distance[j] = found[order], length[order]
    return near, distance


def _without_self(near: Ints, distance: Floats) -> tuple[Ints, Floats]:
    own = near == np.arange(len(near))[:, None]
    # among cells at one place a cell may not come first in its own list, or not at all: then the last one goes
    own[~own.any(axis=1), -1] = True
    return near[~own].reshape(len(near), -1), distance[~own].reshape(len(near), -1)
