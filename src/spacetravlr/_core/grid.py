r"""Received ligands through a regular grid: cost independent of the number of neighbours.

Values are spread from the cells onto a grid with cubic B-splines, convolved there with the Gaussian kernel, and
interpolated back with the same B-splines. With spacing :math:`h`, B-spline :math:`B` and grid kernel :math:`K` the
weight between two cells is

.. math::

    \sum_{g, g'} B\left(\tfrac{s_j}{h} - g\right) K_{g - g'} B\left(\tfrac{s_i}{h} - g'\right) \approx \Omega(s_j; s_i).

The smoothing by the two B-splines is undone in the spectrum of the kernel by least squares over cell positions
(the optimal influence function of particle-mesh methods). Convolutions run through FFTs, so the grid kernel is the
radially truncated one, with no need to be a product over axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np
from scipy import fft

from spacetravlr._core.kernels import kernel_reach, length_scale
from spacetravlr._utils import numba_threads, resolve_n_jobs

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Grid points a length scale.
RESOLUTION = 3.0
#: Largest weight at which the kernel may be cut off: the grid blurs the cliff, at an error of a fifth of its height.
MAX_CLIFF = 2e-3
MAX_GRID_POINTS = 2**28
# Signals spread together: what a cell costs besides its signals, and fetching them, is paid once for all of these.
_CHUNK = 128
_CHUNK_POINTS = 2**26
# Grid rows spread by one thread. At least the support of the B-spline, so that every second strip can run at once.
_STRIP = 8


class _Tile(NamedTuple):
    """The grid of one slide."""

    cells: Ints
    """Cells of the slide, in the order of the grid rows."""
    base: Ints
    """Lowest grid point of each cell's support; shape (n_cells, 3)."""
    offset: Floats
    """Position of each cell within its grid interval, in [0, 1); shape (n_cells, 3)."""
    strip_start: Ints
    """Strip ``s`` holds cells ``strip_start[s]:strip_start[s + 1]``."""
    shape: tuple[int, ...]
    """Grid points an axis, padded so that the periodic convolution does not wrap onto cells."""
    spectrum: Floats
    """Real spectrum of the grid kernel, half of the last axis."""


def grid_supports(radius: float, sigma: float, *, truncate: bool = True) -> bool:
    """Whether the kernel has faded enough where it is cut off to be drawn on a grid."""
    return not truncate or bool(np.exp(-0.5 * (radius / sigma) ** 2) <= MAX_CLIFF)


def grid_points(coords: Floats, reach: float, sigma: float, libraries: Ints | None = None) -> float:
    """Grid points that all slides need together."""
    spacing = sigma / RESOLUTION
    codes = np.zeros(len(coords), dtype=np.int64) if libraries is None else libraries
    extents = [np.ptp(coords[codes == code], axis=0) for code in np.unique(codes)]
    return float(sum(np.prod((extent + reach) / spacing + 6) for extent in extents))


def assert_grid(
    coords: Floats, radius: float, sigma: float, *, truncate: bool = True, libraries: Ints | None = None
) -> None:
    """Raise ``ValueError`` where the grid cannot draw the kernel, or would be too large."""
    if not grid_supports(radius, sigma, truncate=truncate):
        msg = (
            f'Expected the weight at the radius to be at most {MAX_CLIFF} for `method="grid"`, found '
            f"{np.exp(-0.5 * (radius / sigma) ** 2):.3g} (sigma {sigma:.4g}, radius {radius:.4g}); "
            'pass `method="sparse"`, a smaller `sigma`, or `truncate=False`.'
        )
        raise ValueError(msg)
    reach = kernel_reach(radius, sigma, truncate=truncate)
    needed = grid_points(coords, reach, sigma, libraries) if len(coords) else 0
    if needed > MAX_GRID_POINTS:
        msg = (
            f"Expected the grid to have at most {MAX_GRID_POINTS:,} points, found {needed:,.0f}; the tissue is "
            'very large for this radius: pass `method="auto"` or "sparse", or remove outlying cells.'
        )
        raise ValueError(msg)


class GridKernel:
    """Sums of values over all cells, weighted with a Gaussian of the distance, through a grid.

    Parameters
    ----------
    coords
        Cells x 2 or 3.
    radius
        Radius of the neighbourhood.
    sigma
        Length scale; by default such that the weight at ``radius`` is ``eps``.
    eps
        Weight at ``radius``.
    truncate
        Whether weights beyond ``radius`` are zero.
    autocrine
        Whether a cell is its own neighbour. If not, its own value is subtracted.
    libraries
        Slide code of each cell; every slide has a grid of its own.
    n_jobs
        Threads.
    """

    def __init__(
        self,
        coords: Floats,
        radius: float,
        *,
        sigma: float | None = None,
        eps: float = 1e-3,
        truncate: bool = True,
        autocrine: bool = True,
        libraries: Ints | None = None,
        n_jobs: int | None = None,
    ) -> None:
        sigma = length_scale(radius, eps) if sigma is None else float(sigma)
        coords = np.asarray(coords, dtype=np.float64)
        assert_grid(coords, radius, sigma, truncate=truncate, libraries=libraries)
        reach = kernel_reach(radius, sigma, truncate=truncate)
        codes = np.zeros(len(coords), dtype=np.int64) if libraries is None else np.asarray(libraries)
        self.n_cells = len(coords)
        self.autocrine = autocrine
        self.n_jobs = n_jobs
        self._tiles = [
            _build_tile(np.flatnonzero(codes == code), coords, sigma / RESOLUTION, sigma, reach)
            for code in np.unique(codes)
        ]

    def sums(self, values: Floats) -> Floats:
        """Weighted sums over the neighbourhood; cells x signals in, the same out, float32."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        out = np.zeros_like(values)
        with numba_threads(self.n_jobs):
            for tile in self._tiles:
                chunk = int(np.clip(_CHUNK_POINTS // np.prod(tile.shape), 1, _CHUNK))
                for first in range(0, values.shape[1], chunk):
                    self._convolve(tile, values, out, first, min(first + chunk, values.shape[1]))
        if not self.autocrine:
            out -= values
        return out

    def _convolve(self, tile: _Tile, values: Floats, out: Floats, first: int, stop: int) -> None:
        workers = resolve_n_jobs(self.n_jobs)
        axes = tuple(range(len(tile.shape)))
        width = stop - first
        grid = np.zeros((*tile.shape, width), dtype=np.float32)
        lines = (tile.shape[0], 1 if len(tile.shape) == 2 else tile.shape[1], -1)
        _spread(values, first, width, tile.cells, tile.base, tile.offset, tile.strip_start, grid.reshape(lines))
        spectrum = fft.rfftn(grid, axes=axes, workers=workers)
        spectrum *= tile.spectrum[..., None]
        grid = fft.irfftn(spectrum, s=tile.shape, axes=axes, workers=workers, overwrite_x=True)
        _gather(grid.reshape(lines), width, tile.cells, tile.base, tile.offset, out, first)


def _build_tile(cells: Ints, coords: Floats, spacing: float, sigma: float, reach: float) -> _Tile:
    points = coords[cells]
    n_axes = points.shape[1]
    position = (points - points.min(axis=0)) / spacing
    base = np.floor(position).astype(np.int64)
    order = np.lexsort(base.T[::-1])
    base, position = base[order], position[order]
    extent = base.max(axis=0) + 4  # the support of a cubic B-spline is four grid points
    margin = int(np.ceil(reach / spacing)) + 1
    shape = tuple(int(fft.next_fast_len(int(size) + margin, real=True)) for size in extent)

    # Flat tissue gets a second axis with one grid point, which takes all: offset -1 marks it.
    axes = [0, 2] if n_axes == 2 else [0, 1, 2]
    padded_base = np.zeros((len(cells), 3), dtype=np.int32)
    padded_base[:, axes] = base
    offset = np.full((len(cells), 3), -1.0, dtype=np.float32)
    offset[:, axes] = position - base
    n_strips = int(base[-1, 0]) // _STRIP + 1
    strip_start = np.searchsorted(base[:, 0], np.arange(n_strips + 1) * _STRIP)
    return _Tile(cells[order], padded_base, offset, strip_start, shape, _kernel_spectrum(shape, spacing, sigma, reach))


def _kernel_spectrum(shape: tuple[int, ...], spacing: float, sigma: float, reach: float) -> Floats:
    squared = np.zeros(())
    influence = np.ones(())
    for axis, size in enumerate(shape):
        along = tuple(-1 if a == axis else 1 for a in range(len(shape)))
        squared = squared + (fft.fftfreq(size, d=1.0 / size).reshape(along) * spacing) ** 2
        last = axis == len(shape) - 1
        angle = 2 * np.pi * (fft.rfftfreq(size) if last else fft.fftfreq(size))
        influence = influence * _undo_splines(angle).reshape(along)
    distance = np.sqrt(squared)
    # The cliff at the radius is spread over one grid spacing; a sharp one would depend on how the grid happens to lie.
    inside = np.clip((reach - distance) / spacing + 0.5, 0.0, 1.0)
    kernel = np.exp(-0.5 * squared / sigma**2) * inside
    return (fft.rfftn(kernel).real * influence).astype(np.float32)


def _undo_splines(angle: Floats) -> Floats:
    r"""Undo spreading and interpolating by least squares: :math:`\hat B^2 / (\sum_m \hat B_m^2)^2` at each frequency.

    The sum over aliases is the spectrum of a B-spline of order 8 sampled at whole numbers.
    """
    squared_spectrum = np.sinc(angle / (2 * np.pi)) ** 8
    aliased = (2416 + 2382 * np.cos(angle) + 240 * np.cos(2 * angle) + 2 * np.cos(3 * angle)) / 5040
    return squared_spectrum / aliased**2


@nb.njit(cache=True, nogil=True, inline="always")
def _spline(t, weights):  # type: ignore[no-untyped-def]
    """Cubic B-spline at the four grid points around offset ``t``; returns how many there are."""
    if t < 0:
        weights[0] = 1.0
        return 1
    u = 1.0 - t
    weights[0] = u * u * u / 6.0
    weights[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[2] = (3.0 * u * u * u - 6.0 * u * u + 4.0) / 6.0
    weights[3] = t * t * t / 6.0
    return 4


@nb.njit(cache=True, nogil=True, parallel=True)
def _spread(values, first, width, cells, base, offset, strip_start, grid):  # type: ignore[no-untyped-def]
    """Spread signals; the last axis of ``grid`` holds the signals of a line of grid points side by side."""
    n_strips = strip_start.shape[0] - 1
    u = np.uint64  # numba does not look for negative indices then, and the innermost loops become vector ones
    flat, length, n_lines = grid.reshape(-1), u(grid.shape[2]), u(grid.shape[1])
    for parity in range(2):
        # A strip writes a few rows into the next one but never into the one after: strips of one parity are
        # independent, and sums are made in the same order whatever the number of threads.
        for half in nb.prange((n_strips - parity + 1) // 2):
            strip = 2 * half + parity
            low, stop = strip_start[strip], strip_start[strip + 1]
            wx, wy, wz = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
            spread = np.empty(4 * width, np.float32)
            packed = np.empty((stop - low, width), np.float32)  # fetched ahead: cells lie anywhere in memory
            for c in range(low, stop):
                for k in range(width):
                    packed[c - low, k] = values[cells[c], first + k]
            for c in range(low, stop):
                _spline(offset[c, 0], wx)
                breadth = _spline(offset[c, 1], wy)
                _spline(offset[c, 2], wz)
                for d in range(4):
                    for k in range(width):
                        spread[d * width + k] = wz[d] * packed[c - low, k]
                for a in range(4):
                    for b in range(breadth):
                        weight = wx[a] * wy[b]
                        line = (u(base[c, 0]) + u(a)) * n_lines + u(base[c, 1]) + u(b)
                        start = line * length + u(base[c, 2]) * u(width)
                        for k in range(u(4 * width)):
                            flat[start + k] += weight * spread[k]


@nb.njit(cache=True, nogil=True, parallel=True)
def _gather(grid, width, cells, base, offset, out, first):  # type: ignore[no-untyped-def]
    n_blocks = (cells.shape[0] + 1023) // 1024
    u = np.uint64
    flat, length, n_lines = grid.reshape(-1), u(grid.shape[2]), u(grid.shape[1])
    for block in nb.prange(n_blocks):
        wx, wy, wz = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
        gathered = np.empty(4 * width, np.float32)
        for c in range(block * 1024, min(cells.shape[0], (block + 1) * 1024)):
            _spline(offset[c, 0], wx)
            breadth = _spline(offset[c, 1], wy)
            _spline(offset[c, 2], wz)
            gathered[:] = 0
            for a in range(4):
                for b in range(breadth):
                    weight = wx[a] * wy[b]
                    line = (u(base[c, 0]) + u(a)) * n_lines + u(base[c, 1]) + u(b)
                    start = line * length + u(base[c, 2]) * u(width)
                    for k in range(u(4 * width)):
                        gathered[k] += weight * flat[start + k]
            for k in range(width):
                received = np.float32(0)
                for d in range(4):
                    received += wz[d] * gathered[d * width + k]
                out[cells[c], first + k] = received
