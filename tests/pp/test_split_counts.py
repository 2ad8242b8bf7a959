from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import spacetravlr as st


@pytest.fixture
def counted() -> AnnData:
    rng = np.random.default_rng(0)
    return AnnData(rng.poisson(rng.gamma(2.0, 2.0, 40), (3000, 40)).astype(np.float32))


@pytest.mark.parametrize("fraction", [0.5, 0.2])
def test_halves_are_independent_and_sum_to_the_counts(counted, fraction):
    st.pp.split_counts(counted, fraction=fraction)
    a, b = counted.layers["counts_a"], counted.layers["counts_b"]
    np.testing.assert_array_equal(a + b, counted.X)
    assert a.dtype == counted.X.dtype
    np.testing.assert_allclose(a.mean(), fraction * counted.X.mean(), rtol=0.01)
    correlation = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]
    assert abs(np.mean(correlation)) < 4 / np.sqrt(a.size)
    # a Poisson count's variance is its mean, in each half again
    np.testing.assert_allclose(a.var(axis=0).mean(), a.mean(), rtol=0.03)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_sparse_counts(counted, form):
    counted.layers["raw"] = form(counted.X)
    before = counted.layers["raw"].copy()
    st.pp.split_counts(counted, counts_layer="raw", key_added="half")
    a, b = counted.layers["half_a"], counted.layers["half_b"]
    np.testing.assert_array_equal((a + b).toarray(), counted.X)
    assert a.nnz == np.count_nonzero(a.toarray())
    assert (before != counted.layers["raw"]).nnz == 0
    again = st.pp.split_counts(counted, counts_layer="raw", copy=True)
    np.testing.assert_array_equal(again.layers["counts_a"].toarray(), a.toarray())


def test_repeated_entries_are_one_count():
    repeated = sparse.csr_matrix((np.full(200, 2.0), np.zeros(200, dtype=int), [0, 200]), shape=(1, 1))
    adata = AnnData(repeated)
    st.pp.split_counts(adata)
    assert (adata.layers["counts_a"] + adata.layers["counts_b"]).toarray().item() == 400


@pytest.mark.parametrize(
    "values, arguments, error, message",
    [
        ([[0.5, 1.0]], {}, ValueError, "adata.X to hold raw counts"),
        ([[-1.0, 1.0]], {}, ValueError, "raw counts"),
        ([[np.nan, 1.0]], {}, ValueError, "raw counts"),
        ([[2.0, 1.0]], {"fraction": 1.0}, ValueError, "`fraction`"),
        ([[2.0, 1.0]], {"counts_layer": "counts"}, KeyError, "`counts_layer`"),
    ],
)
def test_errors(values, arguments, error, message):
    with pytest.raises(error, match=message):
        st.pp.split_counts(AnnData(np.array(values, dtype=np.float32)), **arguments)
