"""Dot products in vector registers: against numpy, and the same bits whatever stands beside them."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

from spacetravlr._core.dots import CELLS, LANES, aligned_zeros, sparse_dots


@nb.njit
def _all(rows, together, column, slot, indptr, values, n_wanted, out):
    n_targets = len(indptr) - 1
    sums = np.empty((n_targets, CELLS, values.shape[2]), values.dtype)
    for t in range(n_targets):
        sparse_dots(rows, 0, together, column, slot, indptr[t], indptr[t + 1], values, n_wanted, sums, t)
    for t in range(n_targets):
        out[:together, t] = sums[t, :together, :n_wanted]


@nb.njit
def _one(rows, column, slot, indptr, values, sums):
    sparse_dots(rows, 0, 1, column, slot, indptr[-2], indptr[-1], values, LANES, sums, 1)


def _problem(dtype, lanes):
    rng = np.random.default_rng(0)
    lengths = [0, 1, 3, 8, 17]  # of the targets
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    rows = rng.normal(size=(CELLS, 50)).astype(np.float32)
    column = rng.integers(50, size=indptr[-1]).astype(np.uint32)
    slot = rng.integers(12, size=indptr[-1]).astype(np.uint32)
    return rows, column, slot, indptr, rng.normal(size=(CELLS, 12, lanes)).astype(dtype)


@pytest.mark.parametrize("of_rows", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("together", [1, CELLS])
@pytest.mark.parametrize("lanes", [1, LANES, 32, 32 + 2 * LANES])
def test_against_numpy(lanes, together, dtype, of_rows):
    rows, column, slot, indptr, values = _problem(dtype, lanes)
    rows = rows.astype(of_rows)
    out = np.full((CELLS, len(indptr) - 1, lanes), np.nan, dtype)
    _all(rows, together, column, slot, indptr, values, lanes, out)
    for t in range(len(indptr) - 1):
        k = slice(indptr[t], indptr[t + 1])
        expected = np.einsum("ck,ckp->cp", rows[:, column[k]].astype(float), values[:, slot[k]].astype(float))
        np.testing.assert_allclose(out[:together, t], expected[:together], atol=1e-12 if dtype == np.float64 else 1e-5)
    assert np.isnan(out[together:]).all()


def test_the_same_bits_whatever_stands_beside():
    rows, column, slot, indptr, values = _problem(np.float32, 40)
    out = np.empty((CELLS, len(indptr) - 1, 40), np.float32)
    _all(rows, 1, column, slot, indptr, values, 40, out)
    alone = np.empty((CELLS, len(indptr) - 1, 1), np.float32)
    narrow = np.empty((CELLS, len(indptr) - 1, LANES), np.float32)
    for p in range(40):
        _all(rows, CELLS, column, slot, indptr, np.ascontiguousarray(values[:, :, [p]]), 1, alone)
        np.testing.assert_array_equal(alone[0, :, 0], out[0, :, p])
    _all(rows, CELLS, column, slot, indptr, np.ascontiguousarray(values[:, :, :LANES]), LANES, narrow)
    np.testing.assert_array_equal(narrow[0], out[0, :, :LANES])


def test_columns_beyond_the_wanted_ones_are_left():
    rows, column, slot, indptr, values = _problem(np.float32, 2 * LANES)
    sums = np.full((3, CELLS, 2 * LANES), np.nan, np.float32)
    _one(rows, column, slot, indptr, values, sums)
    assert np.isfinite(sums[1, 0, :LANES]).all()
    assert np.isnan(sums[1, 0, LANES:]).all()
    assert np.isnan(sums[1, 1:]).all()
    assert np.isnan(sums[[0, 2]]).all()


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
