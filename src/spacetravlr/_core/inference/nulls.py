"""Tissues in which nothing regulates: swaps of cells that preserve types and, for shifts, spatial autocorrelation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Shifts along each axis are at least this share of the extent, so that nothing stays near where it was.
LEAST_SHIFT = 0.2
_MOST_SOURCES = 50  # cells whose molecules one cell gets


def draw_shift(n_dims: int, rng: np.random.Generator) -> Floats:
    """Draw a shift of a torus as shares of its extent, far from none along each axis."""
    return rng.uniform(LEAST_SHIFT, 1 - LEAST_SHIFT, size=n_dims)


def torus_sources(coordinates: Floats, shift: Floats, cell_type: Ints, slides: Ints | None = None) -> Ints:
    """For each cell, the nearest cell of its type after a section is moved over itself: for what has no noise.

    The section is treated as a torus: what leaves at one end enters at the other. A field keeps its shape. Where a type
    is rare, one cell stands for many, so counts must not be moved in this way: they would bring the same noise to all
    of them. See :func:`moved_sources`.

    Parameters
    ----------
    coordinates
        Cells x dimensions.
    shift
        Along each axis, as a share of the extent of the slide.
    cell_type
        Type of each cell.
    slides
        Slide of each cell; one when not given.

    Returns
    -------
    Index of a cell for each cell.
    """
    slides = np.zeros(len(coordinates), dtype=np.int64) if slides is None else slides
    source = np.arange(len(coordinates))
    for slide in np.unique(slides):
        here = np.flatnonzero(slides == slide)
        xyz = coordinates[here]
        low, extent = xyz.min(axis=0), np.maximum(np.ptp(xyz, axis=0), 1e-12)
        moved = (xyz - low + shift * extent) % extent + low
        for c in np.unique(cell_type[here]):
            mine = cell_type[here] == c
            source[here[mine]] = here[mine][cKDTree(xyz[mine]).query(moved[mine])[1]]
    return source


class Sources(NamedTuple):
    """Where the counts of each cell come from."""

    source: Ints
    """Index of a cell for each cell: a permutation within types and slides."""
    following: Ints
    """The cell beside each cell, which makes up for molecules that it lacks."""


def moved_sources(coordinates: Floats, shift: Floats, cell_type: Ints, slides: Ints | None = None) -> Sources:
    """For each cell, the cell of its type whose counts it gets when a type is moved over itself, each cell used once.

    Cells of a type on one slide have the quantile of their position along the first axis, and along the next axis
    among the cells of a strip. The square of quantiles is moved over itself as a torus. So neighbours mostly stay
    neighbours, a type stays where it is however unevenly it is spread, and every count keeps its own noise.

    Parameters
    ----------
    coordinates
        Cells x dimensions.
    shift
        Along each axis, as a share of the cells.
    cell_type
        Type of each cell.
    slides
        Slide of each cell; one when not given.
    """
    slides = np.zeros(len(coordinates), dtype=np.int64) if slides is None else slides
    source = np.arange(len(coordinates))
    following = source.copy()
    groups = np.unique(np.column_stack([slides, cell_type]), axis=0, return_inverse=True)[1].ravel()
    for g in range(int(groups.max(initial=-1)) + 1):
        rows = np.flatnonzero(groups == g)
        place = _quantiles(coordinates[rows])
        in_order = rows[_strip_order(place)]
        source[rows[_strip_order((place + shift) % 1)]] = in_order
        following[in_order] = np.roll(in_order, -1)
    return Sources(source, following)


def counts_at_depth(counts: Floats, sources: Sources, depth: Floats, rng: np.random.Generator) -> Floats:
    """Counts that each cell gets from its source, as many as its own depth allows.

    Of a deeper cell, each molecule is taken with the ratio of the depths; a shallower one is made up for by the cells
    that follow it. So counts are Poisson at the depth of the cell that gets them. Otherwise they would covary with the
    depth of the source, and so with everything else that was counted there.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    sources
        Where they come from.
    depth
        Molecules of each cell, above zero.
    rng
        Generator.
    """
    taken = np.zeros_like(counts)
    rows, source, missing = np.arange(len(counts)), sources.source, np.asarray(depth, dtype=np.float64)
    for _ in range(_MOST_SOURCES):
        share = np.minimum(missing / depth[source], 1.0)
        taken[rows] += rng.binomial(counts[source].astype(np.int64), share[:, None]).astype(counts.dtype)
        missing = missing - share * depth[source]
        left = missing > 1e-6 * depth[rows]
        if not left.any():
            break
        rows, source, missing = rows[left], sources.following[source[left]], missing[left]
    return np.asarray(taken)


def _strips(values: Floats) -> list[Ints]:
    """Cells by their first value, in strips so wide that quantiles in one are much like those in the next."""
    n, n_dims = values.shape
    order = np.argsort(values[:, 0], kind="stable")
    return np.array_split(order, n if n_dims == 1 else max(1, round(n ** (1 / 3))))


def _strip_order(values: Floats) -> Ints:
    """Cells strip by strip, in each by the next value."""
    parts = [part if values.shape[1] == 1 else part[_strip_order(values[part, 1:])] for part in _strips(values)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _quantiles(values: Floats) -> Floats:
    """Quantile of each cell along the first axis, and along the others among the cells of its strip."""
    out = np.empty(values.shape)
    out[np.argsort(values[:, 0], kind="stable"), 0] = (np.arange(len(values)) + 0.5) / max(len(values), 1)
    if values.shape[1] > 1:
        for part in _strips(values):
            out[part, 1:] = _quantiles(values[part, 1:])
    return out


def shuffle_sources(
    cell_type: Ints, rng: np.random.Generator, order_by: Floats | None = None, alike: int = 12
) -> Sources:
    """For each cell, a cell of its type whose counts it gets when cells of a type are permuted.

    Parameters
    ----------
    cell_type
        Type of each cell.
    rng
        Generator.
    order_by
        Cells are permuted among those next to each other in this value, such as their depth; among all by default.
    alike
        How many cells are permuted among each other then.
    """
    source = np.arange(len(cell_type))
    following = source.copy()
    for c in np.unique(cell_type):
        rows = np.flatnonzero(cell_type == c)
        parts = [rows]
        if order_by is not None:
            rows = rows[np.argsort(order_by[rows], kind="stable")]
            parts = np.array_split(rows, max(1, len(rows) // alike))
        for part in parts:
            source[part] = rng.permutation(part)
            following[part] = np.roll(part, -1)
    return Sources(source, following)
