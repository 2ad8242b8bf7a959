r"""Received ligands (how-it-works, section 2): :math:`L_{jk} = \sum_{i \in N(j)} W_{ij}\, x_{ik}`.

Two engines behind one protocol: :class:`SparseOperator` multiplies with stored weights, :class:`GridOperator` goes
through a regular grid and needs none. Both are linear in the values and treat columns independently, so updating a few
ligands means applying the operator to those columns only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

import numba as nb
import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from spacetravlr._core.kernels import parallel_kernel
from spacetravlr._core.signals.gather_scatter import sum_rows_exactly
from spacetravlr._core.signals.grid import MAX_GRID_POINTS, GridKernel, grid_points, grid_supports
from spacetravlr._core.space.cell_list import cell_list
from spacetravlr._core.space.weights import MAX_WEIGHTS, gaussian_weights, kernel_reach, length_scale
from spacetravlr._types import Normalize
from spacetravlr._utils import numba_threads
from spacetravlr._validators import assert_one_of

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints

Method = Literal["auto", "sparse", "grid"]

# Below this many weights the exact engine is instant, whatever the estimate says.
_FEW_WEIGHTS = 5_000_000
# Nanoseconds: of building one weight, of multiplying one weight and of scattering and gathering one spline point with
# one signal, and of the FFTs at one grid point and signal. Measured on one machine; only their ratios matter.
_BUILD_WEIGHT, _MULTIPLY, _SPLINE_POINT, _FFT_POINT = 15.0, 0.4, 1.5, 20.0
_TYPICAL_SIGNALS = 50
# Sum of the weights of its neighbours below which a cell without autocrine signal leaves the grid.
_LONELY = 1.0
# Signals multiplied together by the exact engine.
_TILE = 128


class Operator(Protocol):
    """Turns what cells send into what they receive."""

    @property
    def n_cells(self) -> int:
        """Number of cells."""

    def apply(self, values: Floats) -> Floats:
        """Cells x signals sent to cells x signals received, float32."""

    def transposed(self) -> Operator:
        """The operator from cells that receive to cells that send, for derivatives."""

    def own(self) -> Floats:
        """What a cell receives of each unit that it sends itself, (cells,)."""


class SparseOperator:
    """Received signals from stored weights.

    Parameters
    ----------
    weights
        Cells x cells; row ``j`` holds the weights of the cells that ``j`` receives from.
    normalize
        ``"sum"`` of the weighted values, ``"mean"`` (the sum over the number of cells of the slide) or ``"row"``
        (weights of a cell sum to one; a cell without neighbours receives zero).
    libraries
        Slide code of each cell, for ``"mean"``.
    n_jobs
        Threads.
    """

    def __init__(
        self,
        weights: sparse.csr_matrix,
        *,
        normalize: Normalize = "sum",
        libraries: Ints | None = None,
        n_jobs: int | None = None,
    ) -> None:
        assert_one_of(normalize, get_args(Normalize), name="normalize")
        self.weights = sparse.csr_matrix(weights)
        self.n_jobs = n_jobs
        totals = np.asarray(self.weights.sum(axis=1, dtype=np.float64)).ravel() if normalize == "row" else None
        self._scale = _scale(normalize, self.n_cells, totals, libraries)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.weights.shape[0])

    def apply(self, values: Floats) -> Floats:
        """Cells x signals sent to cells x signals received, float32."""
        values = _as_values(values, self.n_cells)
        out = np.empty_like(values)
        w = self.weights
        with numba_threads(self.n_jobs):
            _multiply(w.indptr, w.indices, w.data, values, out)
            if self._scale is not None:
                _scale_rows(out, self._scale)
        return out

    def transposed(self) -> SparseOperator:
        """The operator with the transposed weights, scaled ones where cells are scaled; as large as this one."""
        weights = self.weights.astype(np.float32)
        if self._scale is not None:
            weights = sparse.csr_matrix(sparse.diags_array(self._scale) @ weights)
        return SparseOperator(sparse.csr_matrix(weights.T), n_jobs=self.n_jobs)

    def own(self) -> Floats:
        """What a cell receives of each unit that it sends itself, (cells,)."""
        diagonal = self.weights.diagonal().astype(np.float64)
        return np.asarray(diagonal if self._scale is None else diagonal * self._scale)


class GridOperator:
    """Received signals through a regular grid, at a cost that does not depend on the number of neighbours.

    Differs from the exact engine by less than 0.1 % (root mean square; 0.2 % where one cell alone sends), see
    :mod:`spacetravlr._core.signals.grid`.
    The error spreads a little: a cell beyond reach of every source receives up to 1e-5 of a source's signal, of either
    sign.

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
        Whether weights beyond ``radius`` are zero.
    autocrine
        Whether a cell is its own neighbour.
    libraries
        Slide code of each cell; nothing passes between slides.
    normalize
        As in :class:`SparseOperator`.
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
        normalize: Normalize = "sum",
        n_jobs: int | None = None,
    ) -> None:
        assert_one_of(normalize, get_args(Normalize), name="normalize")
        self._autocrine = autocrine
        self._kernel = GridKernel(
            coords,
            radius,
            sigma=sigma,
            eps=eps,
            truncate=truncate,
            autocrine=autocrine,
            libraries=libraries,
            n_jobs=n_jobs,
        )
        totals = None
        self._lonely: Ints = np.zeros(0, dtype=np.int64)
        self._lonely_weights = sparse.csr_matrix((0, len(coords)), dtype=np.float32)
        if normalize == "row" or not autocrine:
            totals = self._kernel.sums(np.ones((len(coords), 1)))[:, 0]
        if totals is not None and not autocrine:
            # Where all weights are small, what the grid leaves of a cell's own signal would show. Such cells have few
            # neighbours: they get theirs exactly.
            self._lonely = np.flatnonzero(totals < _LONELY)
            sigma = length_scale(radius, eps) if sigma is None else float(sigma)
            reach = kernel_reach(radius, sigma, truncate=truncate)
            self._lonely_weights = _exact_rows(np.asarray(coords, np.float64), self._lonely, reach, sigma, libraries)
            totals[self._lonely] = np.asarray(self._lonely_weights.sum(axis=1)).ravel()
        self._scale = _scale(normalize, len(coords), totals if normalize == "row" else None, libraries)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self._kernel.n_cells

    @property
    def lonely(self) -> tuple[Ints, sparse.csr_matrix]:
        """Cells that do without the grid, and their weights."""
        return self._lonely, self._lonely_weights

    def apply(self, values: Floats) -> Floats:
        """Cells x signals sent to cells x signals received, float32."""
        values = _as_values(values, self.n_cells)
        out = self._kernel.sums(values)
        if len(self._lonely):
            out[self._lonely] = self._lonely_weights @ values
        if self._scale is not None:
            with numba_threads(self._kernel.n_jobs):
                _scale_rows(out, self._scale)
        return out

    def transposed(self) -> Operator:
        """The operator from cells that receive to cells that send; the kernel itself is symmetric."""
        return _TransposedGrid(self._kernel, self._scale, self)

    def own(self) -> Floats:
        """What a cell receives of each unit that it sends itself, (cells,)."""
        diagonal = np.full(self.n_cells, float(self._autocrine))
        return diagonal if self._scale is None else diagonal * self._scale


class _TransposedGrid:
    """The transpose of a :class:`GridOperator`, through its grid."""

    def __init__(self, kernel: GridKernel, scale: Floats | None, forward: GridOperator) -> None:
        self._kernel, self._scale, self._forward = kernel, scale, forward

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self._kernel.n_cells

    def apply(self, values: Floats) -> Floats:
        """Cells x signals received to cells x signals sent, float32."""
        values = _as_values(values, self.n_cells).copy()
        if self._scale is not None:
            with numba_threads(self._kernel.n_jobs):
                _scale_rows(values, self._scale)
        lonely, weights = self._forward.lonely
        exactly = values[lonely]
        values[lonely] = 0
        out = self._kernel.sums(values)
        if len(lonely):
            out += weights.T @ exactly
        return out

    def transposed(self) -> Operator:
        """The operator that this one was made of."""
        return self._forward

    def own(self) -> Floats:
        """What a cell receives of each unit that it sends itself, (cells,): the diagonal, which stays."""
        return self._forward.own()


class LigandField(NamedTuple):
    """The two operators of a tissue: secreted ligands reach far, contact ligands touch neighbours only."""

    secreted: Operator
    contact: Operator

    def apply(self, values: Floats, contact: Bools) -> Floats:
        """Received signals of all ranges.

        Parameters
        ----------
        values
            Cells x signals: the expression of each signal's ligand.
        contact
            Whether each signal is a contact signal; shape (n_signals,).

        Returns
        -------
        Cells x signals, float32.
        """
        contact = np.asarray(contact, dtype=bool)
        if not contact.any():
            return self.secreted.apply(values)
        if contact.all():
            return self.contact.apply(values)
        out = np.empty(values.shape, dtype=np.float32)
        out[:, ~contact] = self.secreted.apply(values[:, ~contact])
        out[:, contact] = self.contact.apply(values[:, contact])
        return out

    def transposed(self) -> LigandField:
        """From signals that are received to the cells that send them."""
        return LigandField(self.secreted.transposed(), self.contact.transposed())


def choose_method(
    coords: Floats,
    radius: float,
    *,
    sigma: float | None = None,
    eps: float = 1e-3,
    truncate: bool = True,
    libraries: Ints | None = None,
) -> Literal["sparse", "grid"]:
    """Engine with the lower estimated cost; the exact one where cheap, or where the grid cannot draw the kernel."""
    sigma = length_scale(radius, eps) if sigma is None else float(sigma)
    reach = kernel_reach(radius, sigma, truncate=truncate)
    n, n_axes = coords.shape
    n_weights = cell_list(coords, reach, libraries).expected_pairs(n_axes)
    if n_weights <= _FEW_WEIGHTS or not grid_supports(radius, sigma, truncate=truncate):
        return "sparse"
    points = grid_points(coords, reach, sigma, libraries)
    if points > MAX_GRID_POINTS:
        return "sparse"
    by_weights = n_weights * (_BUILD_WEIGHT + _TYPICAL_SIGNALS * _MULTIPLY)
    by_grid = _TYPICAL_SIGNALS * (n * 2 * 4**n_axes * _SPLINE_POINT + points * _FFT_POINT)
    return "grid" if by_grid < by_weights or n_weights > MAX_WEIGHTS else "sparse"


def make_operator(
    coords: Floats,
    radius: float,
    *,
    sigma: float | None = None,
    eps: float = 1e-3,
    truncate: bool = True,
    autocrine: bool = True,
    libraries: Ints | None = None,
    normalize: Normalize = "sum",
    method: Method = "auto",
    n_jobs: int | None = None,
) -> SparseOperator | GridOperator:
    """Build the operator of one range; parameters as in :class:`GridOperator`, ``method`` picks the engine."""
    assert_one_of(method, get_args(Method), name="method")
    if method == "auto":
        method = choose_method(coords, radius, sigma=sigma, eps=eps, truncate=truncate, libraries=libraries)
    if method == "grid":
        return GridOperator(
            coords,
            radius,
            sigma=sigma,
            eps=eps,
            truncate=truncate,
            autocrine=autocrine,
            libraries=libraries,
            normalize=normalize,
            n_jobs=n_jobs,
        )
    weights = gaussian_weights(
        coords,
        radius,
        sigma=sigma,
        eps=eps,
        truncate=truncate,
        autocrine=autocrine,
        libraries=libraries,
        n_jobs=n_jobs,
    )
    return SparseOperator(weights, normalize=normalize, libraries=libraries, n_jobs=n_jobs)


def _scale(normalize: Normalize, n: int, totals: Floats | None, libraries: Ints | None) -> Floats | None:
    """Factor of each cell's received signals; ``None`` for one."""
    if normalize == "mean":
        if libraries is None:
            return np.full(n, 1.0 / max(n, 1), dtype=np.float32)
        # Each slide counts its own cells, so that its result does not change with the slides beside it.
        return (1.0 / np.bincount(libraries)[libraries]).astype(np.float32)
    if totals is None:
        return None
    with np.errstate(divide="ignore"):
        return np.where(totals > 0, 1.0 / totals, 0.0).astype(np.float32)


def _exact_rows(coords: Floats, cells: Ints, reach: float, sigma: float, libraries: Ints | None) -> sparse.csr_matrix:
    """Weights of all other cells for a few cells; shape (len(cells), n_cells)."""
    near = cKDTree(coords[cells]).sparse_distance_matrix(cKDTree(coords), reach, output_type="coo_matrix")
    other = cells[near.row] != near.col
    if libraries is not None:
        other &= libraries[cells[near.row]] == libraries[near.col]
    weights = np.exp(-0.5 * (near.data[other] / sigma) ** 2).astype(np.float32)
    return sparse.csr_matrix((weights, (near.row[other], near.col[other])), shape=near.shape)


def _as_values(values: Floats, n_cells: int) -> Floats:
    if values.ndim != 2 or len(values) != n_cells:
        msg = f"Expected `values` to be an array of {n_cells} cells x signals, found shape {values.shape}."
        raise ValueError(msg)
    return np.ascontiguousarray(values, dtype=np.float32)


@parallel_kernel
def _multiply(indptr, indices, data, values, out):
    n, width = values.shape
    n_blocks = (n + 63) // 64
    # few signals at a time, so that those of all neighbours of a block stay in the cache
    n_parts = max(1, (width + _TILE - 1) // _TILE)
    for task in nb.prange(n_blocks * n_parts):
        part, block = task // n_blocks, task % n_blocks
        low, high = part * _TILE, min(width, (part + 1) * _TILE)
        flat, flat_out = values.reshape(-1), out.reshape(-1)
        for j in range(block * 64, min(n, (block + 1) * 64)):
            first = j * width + low
            sum_rows_exactly(data, indices, indptr[j], indptr[j + 1], flat, width, low, high - low, flat_out, first)


@parallel_kernel
def _scale_rows(values, scale):
    for j in nb.prange(values.shape[0]):
        for k in range(values.shape[1]):
            values[j, k] *= scale[j]
