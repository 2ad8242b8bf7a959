from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import spacetravlr as st

NEW = ["layers/imputed", "uns/imputed"]


@pytest.fixture(scope="module")
def dropped():
    """Two types with a gradient inside each; counts with dropout, log-normalised; the truth in a layer."""
    rng = np.random.default_rng(0)
    n, genes = 300, 60
    kind = np.arange(n) % 2
    state = rng.uniform(0, 1, n)
    loadings = rng.normal(size=(2, genes))
    rate = np.exp(1.0 + np.eye(2)[kind] @ loadings + np.outer(state, rng.normal(size=genes)))
    rate *= 200 / rate.sum(axis=1, keepdims=True)
    counts = rng.poisson(rate)
    normalised = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e3).astype(np.float32)
    return ad.AnnData(
        normalised,
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(np.array(["A", "B/C"])[kind])}, index=[f"c{i}" for i in range(n)]
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]),
        layers={"truth": np.log1p(rate / 200 * 1e3)},
    )


def test_comes_closer_to_the_truth(dropped, unchanged):
    adata = dropped.copy()
    check = unchanged(adata)
    assert st.pp.impute(adata) is None
    check(adata, new=NEW)
    truth = adata.layers["truth"]
    error = ((adata.layers["imputed"] - truth) ** 2).mean() / ((adata.X - truth) ** 2).mean()
    assert error < 0.25
    assert adata.layers["imputed"].dtype == np.float32


def test_library_sizes_are_kept(dropped):
    logged = st.pp.impute(dropped, copy=True).layers["imputed"]
    np.testing.assert_allclose(np.expm1(logged).sum(axis=1), 1e3, rtol=1e-4)
    linear = st.pp.impute(dropped, scale="linear", copy=True).layers["imputed"]
    np.testing.assert_allclose(linear.sum(axis=1), dropped.X.sum(axis=1), rtol=1e-4)


def test_types_do_not_bleed(dropped):
    adata = dropped.copy()
    only_a = (adata.obs["cell_type"] == "A").to_numpy()
    adata.X[~only_a, 5] = 0
    st.pp.impute(adata, n_steps=5)
    assert not adata.layers["imputed"][~only_a, 5].any()
    st.pp.impute(adata, n_steps=5, n_neighbors=200, cluster_key=None)
    assert adata.layers["imputed"][~only_a, 5].any()


def test_sparse_is_dense(dropped):
    expected = st.pp.impute(dropped, copy=True).layers["imputed"]
    for kind in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array):
        adata = dropped.copy()
        adata.X = kind(adata.X)
        st.pp.impute(adata)
        np.testing.assert_allclose(adata.layers["imputed"], expected, atol=2e-3)


def test_repeated_entries_are_summed_in_a_copy(dropped):
    expected = st.pp.impute(dropped, copy=True).layers["imputed"]
    adata = dropped.copy()
    plain = sparse.csr_matrix(adata.X)
    twice = (np.repeat(plain.data / 2, 2), np.repeat(plain.indices, 2), plain.indptr * 2)
    adata.X = sparse.csr_matrix(twice, shape=plain.shape)
    st.pp.impute(adata)
    np.testing.assert_allclose(adata.layers["imputed"], expected, atol=2e-3)
    for found, stored in zip((adata.X.data, adata.X.indices, adata.X.indptr), twice, strict=True):
        np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_expression_in_a_file(dropped, tmp_path, kind):
    adata = dropped.copy()
    adata.X = kind(adata.X)
    adata.write_h5ad(tmp_path / "slide.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    st.pp.impute(on_disk)
    np.testing.assert_allclose(on_disk.layers["imputed"], st.pp.impute(dropped, copy=True).layers["imputed"], atol=2e-3)
    on_disk.file.close()


def test_totals_follow_the_base_of_the_logarithms(dropped):
    expected = st.pp.impute(dropped, copy=True).layers["imputed"]
    adata = dropped.copy()
    adata.X = adata.X / np.float32(np.log(2))
    adata.uns["log1p"] = {"base": 2}
    st.pp.impute(adata)
    np.testing.assert_allclose(adata.layers["imputed"] * np.log(2), expected, atol=2e-3)
    np.testing.assert_allclose((2 ** adata.layers["imputed"].astype(float) - 1).sum(axis=1), 1e3, rtol=1e-4)
    sparse_too = adata.copy()
    sparse_too.X = sparse.csr_matrix(adata.X)
    st.pp.impute(sparse_too)
    np.testing.assert_allclose(sparse_too.layers["imputed"], adata.layers["imputed"], atol=2e-3)


def test_layer_key_copy_and_given_components(dropped, unchanged):
    adata = dropped.copy()
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(300, 3))
    check = unchanged(adata)
    done = st.pp.impute(adata, layer="truth", use_rep="X_pca", key_added="smooth", copy=True)
    check(adata)
    check(done, new=["layers/smooth", "uns/smooth"])
    assert done.uns["smooth"]["use_rep"] == "X_pca"
    assert not np.allclose(done.layers["smooth"], st.pp.impute(adata, layer="truth", copy=True).layers["imputed"])


def test_more_steps_are_smoother(dropped):
    spread = [
        st.pp.impute(dropped, n_steps=n_steps, copy=True).layers["imputed"].var(axis=0).sum() for n_steps in (1, 3, 8)
    ]
    assert spread[0] > spread[1] > spread[2]


def test_reproducible_whatever_the_order_and_threads(dropped):
    one, two = (st.pp.impute(dropped, n_jobs=n, copy=True).layers["imputed"] for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    order = np.random.default_rng(0).permutation(300)
    shuffled = st.pp.impute(dropped[order], copy=True).layers["imputed"]
    np.testing.assert_allclose(shuffled, one[order], atol=2e-3)


def test_small_types(dropped):
    adata = dropped.copy()
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    kinds[:4], kinds[4] = "few", "single"
    adata.obs["cell_type"] = pd.Categorical(kinds)
    st.pp.impute(adata)
    assert np.isfinite(adata.layers["imputed"]).all()
    np.testing.assert_allclose(adata.layers["imputed"][4], adata.X[4], rtol=1e-4, atol=1e-5)


def test_round_trip(dropped, round_trip):
    adata = dropped.copy()
    st.pp.impute(adata)
    back = round_trip(adata)
    np.testing.assert_array_equal(back.layers["imputed"], adata.layers["imputed"])
    assert dict(back.uns["imputed"]) == adata.uns["imputed"]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"layer": "nope"}, KeyError, "`layer`"),
        ({"cluster_key": "leiden"}, KeyError, "pass `cluster_key=None`"),
        ({"use_rep": "X_nope"}, KeyError, "sc.pp.pca"),
        ({"n_neighbors": 0}, ValueError, "Expected `n_neighbors` to be a whole number of at least 1 or"),
        ({"n_neighbors": 0}, ValueError, '1 or "auto", found'),
        ({"n_steps": "all"}, ValueError, "`n_steps`"),
        ({"n_steps": 1.5}, ValueError, "`n_steps`"),
        ({"n_pcs": -2}, ValueError, "`n_pcs`"),
        ({"scale": "sqrt"}, ValueError, "`scale` to be one of 'log1p', 'linear'"),
        ({"n_jobs": 0}, ValueError, "`n_jobs`"),
    ],
)
def test_bad_arguments(dropped, unchanged, arguments, error, message):
    check = unchanged(dropped)
    with pytest.raises(error, match=message):
        st.pp.impute(dropped, **arguments)
    check(dropped)


@pytest.mark.parametrize(
    "value, message",
    [(-1.0, "at least zero.*1 values of 'g3'"), (np.nan, "finite.*1 values of 'g3'"), (1e3, "hold logarithms")],
)
def test_bad_expression(dropped, value, message):
    adata = dropped.copy()
    adata.X[0, 3] = value
    with pytest.raises(ValueError, match=message):
        st.pp.impute(adata)
    adata.X = sparse.csr_matrix(adata.X)
    with pytest.raises(ValueError, match=message):
        st.pp.impute(adata)


def test_counts_get_a_warning(dropped):
    adata = dropped.copy()
    adata.X = np.round(adata.X)
    with pytest.warns(UserWarning, match="looks like raw counts"):
        st.pp.impute(adata)
