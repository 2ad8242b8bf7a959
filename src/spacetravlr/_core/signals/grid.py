r"""Received ligands through a regular grid: cost independent of the number of neighbours.

Values are scattered from the cells onto a grid with cubic B-splines, convolved there with the Gaussian kernel, and
interpolated back with the same B-splines. With spacing :math:`h`, B-spline :math:`B` and grid kernel :math:`K` the
weight between two cells is

.. math::

    \sum_{g, g'} B\left(\tfrac{s_j}{h} - g\right) K_{g - g'} B\left(\tfrac{s_i}{h} - g'\right) \approx \Omega(s_j; s_i).

The smoothing by the two B-splines is undone in the spectrum of the kernel by least squares over cell positions
(the optimal influence function of particle-mesh methods). Convolutions run through FFTs, so the grid kernel is the
radially truncated one, with no need to be a product over axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import fft

from spacetravlr._core.signals.bsplines import STRIP, gather, scatter
from spacetravlr._core.signals.convolution import Waves, convolve, make_waves, worthwhile
from spacetravlr._core.signals.gather_scatter import LANES
from spacetravlr._core.space.weights import kernel_reach, length_scale
from spacetravlr._utils import numba_threads, resolve_n_jobs

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Grid points a length scale.
RESOLUTION = 3.0
#: Largest weight at which the kernel may be cut off: the grid blurs the cliff, at an error of a fifth of its height.
MAX_CLIFF = 2e-3
MAX_GRID_POINTS = 2**28
# Signals scattered together: what a cell costs besides its signals, and fetching them, is paid once for all of these.
_CHUNK = 128
_CHUNK_POINTS = 2**26


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
    """Grid points an axis, where FFTs need them padded so that the periodic convolution does not wrap onto cells."""
    kernel: Waves | Floats
    """What convolves a small grid; of a larger one, the real spectrum of the grid kernel, half of the last axis."""


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
        out = np.empty_like(values)
        with numba_threads(self.n_jobs):
            for tile in self._tiles:
                chunk = int(np.clip(_CHUNK_POINTS // np.prod(tile.shape), 1, _CHUNK))
                for first in range(0, values.shape[1], chunk):
                    self._convolve(tile, values, out, first, min(first + chunk, values.shape[1]))
        if not self.autocrine:
            out -= values
        return out

    def _convolve(self, tile: _Tile, values: Floats, out: Floats, first: int, stop: int) -> None:
        width = stop - first
        padded = np.prod(tile.shape) * LANES <= _CHUNK_POINTS
        grid = np.zeros((*tile.shape, -(-width // LANES) * LANES if padded else width), dtype=np.float32)
        scatter(values, first, width, tile.cells, tile.base, tile.offset, tile.strip_start, grid)
        if isinstance(tile.kernel, Waves):
            convolve(grid, tile.kernel)
        elif width < LANES:  # most of an FFT of the padding would be for nothing
            grid[..., :width] = self._through_spectrum(grid[..., :width], tile.kernel)
        else:
            grid = self._through_spectrum(grid, tile.kernel)
        gather(grid, width, tile.cells, tile.base, tile.offset, out, first)

    def _through_spectrum(self, grid: Floats, kernel: Floats) -> Floats:
        shape, workers = grid.shape[:3], resolve_n_jobs(self.n_jobs)
        axes = tuple(a for a in range(3) if shape[a] > 1)
        spectrum = fft.rfftn(grid, axes=axes, workers=workers)
        spectrum *= kernel[..., None]
        s = [shape[a] for a in axes]
        return np.asarray(fft.irfftn(spectrum, s=s, axes=axes, workers=workers, overwrite_x=True))


def _build_tile(cells: Ints, coords: Floats, spacing: float, sigma: float, reach: float) -> _Tile:
    points = coords[cells]
    n_axes = points.shape[1]
    position = (points - points.min(axis=0)) / spacing
    base = np.floor(position).astype(np.int64)
    order = np.lexsort(base.T[::-1])
    base, position = base[order], position[order]
    # Flat tissue gets a second axis with one grid point, which takes all: offset -1 marks it.
    axes = [0, 2] if n_axes == 2 else [0, 1, 2]
    padded_base = np.zeros((len(cells), 3), dtype=np.int32)
    padded_base[:, axes] = base
    offset = np.full((len(cells), 3), -1.0, dtype=np.float32)
    offset[:, axes] = position - base
    n_strips = int(base[-1, 0]) // STRIP + 1
    strip_start = np.searchsorted(base[:, 0], np.arange(n_strips + 1) * STRIP)
    shape, kernel = _grid_kernel(base, spacing, sigma, reach)
    return _Tile(cells[order], padded_base, offset, strip_start, shape, kernel)


def _grid_kernel(base: Ints, spacing: float, sigma: float, reach: float) -> tuple[tuple[int, ...], Waves | Floats]:
    """Shape of a grid for cells with these lowest points, over three axes, and its kernel."""

    def three(sizes: Sequence[int]) -> tuple[int, ...]:
        return tuple(sizes) if len(sizes) == 3 else (sizes[0], 1, sizes[1])

    extent = [int(size) + 4 for size in base.max(axis=0)]  # the support of a cubic B-spline is four grid points
    period = [size + int(np.ceil(reach / spacing)) + 1 for size in extent]
    if worthwhile(three(extent), three(period)):
        spectrum = _kernel_spectrum(period, spacing, sigma, reach)
        halved = three([*period[:-1], spectrum.shape[-1]])
        return three(extent), make_waves(three(extent), three(period), spectrum.reshape(halved))
    fast = [int(fft.next_fast_len(size, real=True)) for size in period]
    spectrum = _kernel_spectrum(fast, spacing, sigma, reach)
    return three(fast), spectrum.reshape(three(spectrum.shape))


def _kernel_spectrum(shape: Sequence[int], spacing: float, sigma: float, reach: float) -> Floats:
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
