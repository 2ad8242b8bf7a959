"""Tissues in which nothing regulates: swaps of cells that preserve types and, for shifts, spatial autocorrelation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Shifts along each axis are at least this share of the extent, so that nothing stays near where it was.
LEAST_SHIFT = 0.2
_DEPTH_UNIT = 0.05  # extents that a factor of e in depth counts as


def draw_shift(n_dims: int, rng: np.random.Generator) -> Floats:
    """Draw a shift of a torus as shares of its extent, far from none along each axis."""
    return rng.uniform(LEAST_SHIFT, 1 - LEAST_SHIFT, size=n_dims)


def depth_coordinate(coordinates: Floats, depth: Floats) -> Floats:
    """Log depth in units of the coordinates, cells x 1, so that cells are matched to cells of about their depth."""
    return np.asarray(_DEPTH_UNIT * np.ptp(coordinates, axis=0).max() * np.log(depth)[:, None])


def torus_sources(
    coordinates: Floats, shift: Floats, cell_type: Ints, slides: Ints | None = None, extra: Floats | None = None
) -> Ints:
    """For each cell, the cell of its type whose values it gets when a section is moved over itself.

    The section is treated as a torus: what leaves at one end enters at the other. A cell gets the values of the nearest
    cell of its type and slide at the shifted position, so a field keeps its shape and each type keeps its own values.
    In thin tissues a cell may be used more than once.

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
    extra
        Further coordinates in the units of the others that stay where they are, such as a scaled depth, cells x any.

    Returns
    -------
    Index of a cell for each cell.
    """
    slides = np.zeros(len(coordinates), dtype=np.int64) if slides is None else slides
    kept = np.zeros((len(coordinates), 0)) if extra is None else extra
    source = np.arange(len(coordinates))
    for slide in np.unique(slides):
        here = np.flatnonzero(slides == slide)
        xyz = coordinates[here]
        low, extent = xyz.min(axis=0), np.maximum(np.ptp(xyz, axis=0), 1e-12)
        moved = (xyz - low + shift * extent) % extent + low
        for c in np.unique(cell_type[here]):
            mine = cell_type[here] == c
            rows = here[mine]
            tree = cKDTree(np.hstack([xyz[mine], kept[rows]]))
            source[rows] = rows[tree.query(np.hstack([moved[mine], kept[rows]]))[1]]
    return source


def shuffle_sources(cell_type: Ints, rng: np.random.Generator, order_by: Floats | None = None, alike: int = 12) -> Ints:
    """For each cell, a cell of its type whose values it gets when cells of a type are permuted.

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
    for c in np.unique(cell_type):
        rows = np.flatnonzero(cell_type == c)
        parts = [rows]
        if order_by is not None:
            rows = rows[np.argsort(order_by[rows], kind="stable")]
            parts = np.array_split(rows, max(1, len(rows) // alike))
        for part in parts:
            source[part] = rng.permutation(part)
    return source
