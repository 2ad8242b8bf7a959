"""Cell lists: which cells lie near which, found without ever looking at all pairs.

Space is cut into square (cubic) bins with the search radius as their side, so the neighbours of a cell lie in its own
bin and the bins around it. Only bins that hold cells are kept: a stray cell far away costs nothing. Bins are numbered
along the last axis first, so that three bins side by side on that axis are one contiguous *run* of the sorted cells.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

# Bins a hair wider than the radius, so that rounding in the division never hides a neighbour at exactly that distance.
_SLACK = 1.0 + 1e-9
_MAX_BINS = 2**62


class CellList(NamedTuple):
    """Cells sorted into bins."""

    order: Ints
    """Cell indices sorted by bin, then by index; shape (n_cells,)."""
    start: Ints
    """Bin ``b`` holds ``order[start[b]:start[b + 1]]``; shape (n_bins + 1,)."""
    run_start: Ints
    """First position in ``order`` of each run of bins around a bin; shape (n_bins, 3) in 2-D, (n_bins, 9) in 3-D."""
    run_stop: Ints
    """One past the last position of each run, same shape."""
    points: Floats
    """Coordinates in the order of ``order``, one row per axis, zeros where there is no third; shape (3, n_cells)."""

    @property
    def n_candidates(self) -> Ints:
        """Cells in and around each bin; shape (n_bins,)."""
        return (self.run_stop - self.run_start).sum(axis=1)

    def expected_pairs(self, n_axes: int) -> float:
        """Ordered pairs within the radius, each cell with itself included, as expected from the fill of the bins."""
        ball_over_bins = np.pi / 9 if n_axes == 2 else 4 / 3 * np.pi / 27
        return float((np.diff(self.start) * self.n_candidates).sum() * ball_over_bins)


def cell_list(coords: Floats, radius: float, libraries: Ints | None = None) -> CellList:
    """Sort cells into bins of side ``radius``.

    Parameters
    ----------
    coords
        Cells x 2 or 3.
    radius
        Search radius, in the units of ``coords``.
    libraries
        Slide code of each cell; cells of different slides never share a run.

    Raises
    ------
    ValueError
        If the tissue is so many radii wide that bins cannot be numbered.
    """
    n, n_axes = coords.shape
    library = np.zeros(n, dtype=np.int64) if libraries is None else libraries.astype(np.int64)
    points = np.zeros((3, n))
    points[:n_axes] = coords.T
    if n == 0:
        none = np.zeros((0, 3 ** (n_axes - 1)), dtype=np.int64)
        return CellList(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64), none, none, points)

    # One empty bin is left on every side, so that stepping to a neighbouring bin never wraps into another row.
    steps = [np.floor((along - along.min()) / (radius * _SLACK)) + 1 for along in points[:n_axes]]
    shape = [float(s.max()) + 2 for s in steps]
    if np.prod(shape) * (float(library.max()) + 1) >= _MAX_BINS:
        msg = (
            f"Expected coordinates to span fewer radii, found an extent of {np.ptp(coords, axis=0).max():.3g} at a "
            f"radius of {radius:.3g}; remove outlying cells or check the units of the radius (`microns_per_unit`)."
        )
        raise ValueError(msg)
    strides = np.ones(n_axes, dtype=np.int64)
    for axis in range(n_axes - 2, -1, -1):
        strides[axis] = strides[axis + 1] * int(shape[axis + 1])
    key = library * (strides[0] * int(shape[0]))
    for along, stride in zip(steps, strides, strict=True):
        key += along.astype(np.int64) * stride

    order = _stable_order(key)
    sorted_key = key[order]
    first = np.flatnonzero(np.concatenate([[True], sorted_key[1:] != sorted_key[:-1]]))
    bin_key = sorted_key[first]
    rows = np.array([np.dot(step, strides[:-1]) for step in product((-1, 0, 1), repeat=n_axes - 1)], dtype=np.int64)
    around = bin_key[:, None] + rows[None, :]
    return CellList(
        order,
        np.append(first, n).astype(np.int64),
        np.searchsorted(sorted_key, around - 1, side="left"),
        np.searchsorted(sorted_key, around + 1, side="right"),
        points[:, order],
    )


def _stable_order(key: Ints) -> Ints:
    """Order that sorts ``key``, equal ones by position."""
    n = len(key)
    if int(key.max()) >= _MAX_BINS // n:
        return np.argsort(key, kind="stable")
    # distinct numbers are sorted several times faster
    return np.sort(key * n + np.arange(n)) % n
