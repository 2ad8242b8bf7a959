"""Transposed operators: sent and received change places in the product of what is sent with what is received."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from spacetravlr._core.signals.operators import LigandField, SparseOperator, make_operator

N_CELLS = 300


@pytest.fixture(scope="module")
def coords():
    rng = np.random.default_rng(0)
    spread = rng.uniform(0, 300, (N_CELLS, 2))
    spread[:5] += 2000  # cells without neighbours, and some with few
    spread[:5, 0] += 100 * np.arange(5)
    return spread


def assert_transposed(forwards, backwards):
    rng = np.random.default_rng(1)
    sent, received = rng.normal(size=(2, N_CELLS, 3)).astype(np.float32)
    one = (forwards.apply(sent).astype(float) * received).sum()
    other = (sent.astype(float) * backwards.apply(received)).sum()
    np.testing.assert_allclose(one, other, rtol=1e-4)
    return one


@pytest.mark.parametrize("method", ["sparse", "grid"])
@pytest.mark.parametrize("normalize", ["sum", "mean", "row"])
@pytest.mark.parametrize("autocrine", [True, False])
def test_the_transpose_of_each_operator(coords, method, normalize, autocrine):
    slides = np.arange(N_CELLS) % 2
    made = make_operator(
        coords, 80.0, normalize=normalize, autocrine=autocrine, libraries=slides, method=method, n_jobs=1
    )
    size = assert_transposed(made, made.transposed())
    assert_transposed(made.transposed(), made.transposed().transposed())
    assert abs(size) > 1e-3
    assert made.transposed().n_cells == N_CELLS


def test_weights_that_are_not_symmetric(coords):
    made = SparseOperator(sparse.random(N_CELLS, N_CELLS, 0.05, format="csr", rng=0), normalize="row", n_jobs=1)
    assert_transposed(made, made.transposed())
    values = np.random.default_rng(2).normal(size=(N_CELLS, 2)).astype(np.float32)
    assert np.abs(made.apply(values) - made.transposed().apply(values)).max() > 0.1


def test_the_transpose_of_both_ranges(coords):
    field = LigandField(make_operator(coords, 80.0, method="grid"), make_operator(coords, 20.0, method="sparse"))
    values = np.random.default_rng(3).normal(size=(N_CELLS, 2)).astype(np.float32)
    found = field.transposed().apply(values, np.array([False, True]))
    np.testing.assert_array_equal(found[:, :1], field.secreted.transposed().apply(values[:, :1]))
    np.testing.assert_array_equal(found[:, 1:], field.contact.transposed().apply(values[:, 1:]))
