"""Dot products in vector registers: against numpy, and the same bits whatever stands beside them."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

from spacetravlr._core.linalg import sparse_dot
from spacetravlr._core.linalg.sparse_dot import CELLS, LANES, aligned_zeros

N_TERMS = 12


# both ways to do the same: the second where this version of llvmlite cannot do the first
WAYS = ["in_registers", "plainly"]


def _all(way, rows, together, column, slot, indptr, values, base, top, out):
    buffer = np.empty((CELLS, 1, LANES), values.dtype)
    bounded_dots = getattr(sparse_dot, f"_bounded_dots_{way}")
    for t in range(len(indptr) - 1):
        bounded_dots(rows, 0, together, column, slot, indptr[t], indptr[t + 1], values, base, top, t, out, t, buffer)


class _Problem:
    """Targets with 0 to 17 terms at four cells; ``wide`` is the range that sums are clipped to."""

    def __init__(self, dtype, n_sums, *, wide=1e3):
        rng = np.random.default_rng(0)
        self.indptr = np.concatenate([[0], np.cumsum([0, 1, 3, 8, 17])])
        self.rows = rng.normal(size=(CELLS, 50)).astype(np.float32)
        self.column = rng.integers(50, size=self.indptr[-1]).astype(np.uint32)
        self.slot = rng.integers(N_TERMS, size=self.indptr[-1]).astype(np.uint32)
        lanes = n_sums if n_sums == 1 else -(-n_sums // LANES) * LANES
        self.values = np.zeros((CELLS, N_TERMS, lanes), dtype)
        self.values[:, :, :n_sums] = rng.normal(size=(CELLS, N_TERMS, n_sums))
        self.base = (wide * rng.uniform(size=(CELLS, len(self.indptr) - 1))).astype(dtype)
        self.top = self.base.max(axis=0) + np.array(wide, dtype)

    def run(self, together, n_sums, way="in_registers"):
        out = np.full((CELLS, len(self.indptr) - 1, n_sums), np.nan, self.values.dtype)
        _all(way, self.rows, together, self.column, self.slot, self.indptr, self.values, self.base, self.top, out)
        return out

    def expected(self, n_sums):
        out = np.empty((CELLS, len(self.indptr) - 1, n_sums))
        for t in range(len(self.indptr) - 1):
            k = slice(self.indptr[t], self.indptr[t + 1])
            rows, values = self.rows[:, self.column[k]].astype(float), self.values[:, self.slot[k]].astype(float)
            out[:, t] = np.einsum("ck,ckp->cp", rows, values)[:, :n_sums]
        low = -self.base[:, :, None].astype(float)
        return np.clip(out, low, self.top[:, None] + low)


@pytest.mark.parametrize("of_rows", [np.float32, np.float64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)])
@pytest.mark.parametrize("together", [1, CELLS])
@pytest.mark.parametrize("n_sums", [1, 5, LANES, 32, 37, 32 + 2 * LANES])
@pytest.mark.parametrize("wide", [1e3, 0.5])
@pytest.mark.parametrize("way", WAYS)
def test_against_numpy(n_sums, together, dtype, tolerance, of_rows, wide, way):
    problem = _Problem(dtype, n_sums, wide=wide)
    problem.rows = problem.rows.astype(of_rows)
    out, expected = problem.run(together, n_sums, way), problem.expected(n_sums)
    np.testing.assert_allclose(out[:together], expected[:together], atol=tolerance)
    assert np.isnan(out[together:]).all()


def test_some_sums_of_the_narrow_range_are_clipped():
    """So that the test above has seen both limits."""
    problem, wide = _Problem(np.float64, LANES, wide=0.5), _Problem(np.float64, LANES)
    low = -problem.base[:, :, None]
    free = wide.expected(LANES)
    assert (free < low).any()
    assert (free > problem.top[:, None] + low).any()


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bits_whatever_stands_beside(way):
    problem = _Problem(np.float32, 40)
    out, values = problem.run(1, 40, way), problem.values
    for p in range(40):
        problem.values = np.ascontiguousarray(values[:, :, [p]])
        np.testing.assert_array_equal(problem.run(CELLS, 1, way)[0, :, 0], out[0, :, p])
    for n_sums in (LANES, 3):
        problem.values = np.ascontiguousarray(values[:, :, :LANES])
        np.testing.assert_array_equal(problem.run(CELLS, n_sums, way)[0], out[0, :, :n_sums])


@nb.njit
def _room(shape, dtype):
    return aligned_zeros(shape, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 7, 32), (4, 0, 8)])
def test_zeros_start_at_a_line_of_the_cache(shape, dtype):
    rooms = [_room(shape, np.dtype(dtype)) for _ in range(5)]
    for room in rooms:
        assert room.shape == shape
        assert room.dtype == dtype
        assert not room.any()
        assert room.ctypes.data % 64 == 0 or not room.size
