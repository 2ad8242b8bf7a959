"""Coefficients as annotated data."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

import spacetravlr as st


@pytest.mark.parametrize("lazy", [False, True])
def test_all(adata, lazy):
    values = adata.obsm["betas"]
    if lazy:
        adata.obsm["betas"] = da.from_array(values, chunks=(-1, 7))
    found = st.get.betas_adata(adata)
    terms = adata.uns["betas"]["terms"]
    real = np.flatnonzero(terms["kind"] != "intercept")
    assert isinstance(found.X, da.Array if lazy else np.ndarray)
    np.testing.assert_array_equal(np.asarray(found.X), values[:, real])
    assert found.var_names.is_unique
    named = st.get.modulators(adata)
    named = named[named["cell_type"] == "all"]
    assert found.var_names.tolist() == (named["modulator"] + ">" + named["target"]).tolist()
    np.testing.assert_array_equal(found.var["importance"], named["importance"])
    assert found.obs["cell_type"].equals(adata.obs["cell_type"])
    np.testing.assert_array_equal(found.obsm["spatial"], adata.obsm["spatial"])
    assert list(found.obsm) == ["spatial"]
    found.obs["cell_type"] = "x"
    assert adata.obs["cell_type"].iloc[0] != "x"


def test_some(adata):
    terms = adata.uns["betas"]["terms"]
    active = ((terms["kind"] != "intercept") & terms["active"]).sum()
    assert st.get.betas_adata(adata, active=True).n_vars == active
    assert (
        st.get.betas_adata(adata, active=True).n_vars + st.get.betas_adata(adata, active=False).n_vars
        == (terms["kind"] != "intercept").sum()
    )
    assert set(st.get.betas_adata(adata, targets="CD79A").var["target"]) == {"CD79A"}
    with pytest.raises(KeyError, match=r"unknown 'CD79' \(closest: CD79A"):
        st.get.betas_adata(adata, targets=["CD79"])
    terms["active"] = True
    with pytest.raises(ValueError, match="found none with active=False"):
        st.get.betas_adata(adata, active=False)
    del terms["active"]
    with pytest.raises(ValueError, match="to have the column 'active'"):
        st.get.betas_adata(adata, active=True)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # squidpy's own call of pandas
def test_squidpy_takes_it(adata):
    import squidpy as sq

    found = st.get.betas_adata(adata, targets="CD79A")
    sq.gr.spatial_neighbors_knn(found, n_neighs=6)
    sq.gr.spatial_autocorr(found, mode="moran", genes=list(found.var_names[:2]), n_jobs=1, show_progress_bar=False)
    assert found.uns["moranI"]["I"].max() > 0.3  # true coefficients are smooth


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(adata, tmp_path, suffix):
    found = st.get.betas_adata(adata)
    st.io.write(found, tmp_path / f"betas.{suffix}")
    back = st.io.read(tmp_path / f"betas.{suffix}")
    np.testing.assert_array_equal(back.X, found.X)
    assert back.var_names.tolist() == found.var_names.tolist()
