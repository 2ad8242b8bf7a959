"""Neighbours and steps chosen by molecular cross-validation."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import spacetravlr as st
from spacetravlr._core.imputation import group_means

AUTO = {"layer": "log1p", "n_neighbors": "auto", "n_steps": "auto", "counts_layer": "counts"}


@pytest.fixture(scope="module")
def sequenced():
    return st.datasets.simulated_tissue(n_cells=300, n_targets=4, depth=1.0, rng=0)


@pytest.fixture(scope="module")
def structureless():
    """Poisson counts around the mean of each of two types."""
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], [200, 100])
    sizes = rng.lognormal(0, 0.3, size=(300, 1))
    counts = rng.poisson(sizes * rng.gamma(2.0, 2.0, size=(2, 50))[kind]).astype(np.float32)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 200)
    obs = pd.DataFrame({"cell_type": pd.Categorical(np.array(["A", "B"])[kind])}, index=[f"c{i}" for i in range(300)])
    return ad.AnnData(logged, obs=obs, layers={"counts": sparse.csr_matrix(counts), "log1p": logged})


def error(adata, layer):
    """Mean squared error within types."""
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    difference = adata.layers[layer] - adata.layers["exact"]
    return ((difference - group_means(difference, types)) ** 2).mean()


@pytest.mark.parametrize("depth, n_cells", [(0.17, 1000), (1.0, 600), (7.0, 600)])
def test_close_to_the_best_of_what_was_tried(depth, n_cells):
    adata = st.datasets.simulated_tissue(n_cells=n_cells, depth=depth, programs=0.5, n_bystanders=30, rng=2)
    st.pp.impute(adata, **AUTO)
    tried = adata.uns["imputed"]["losses"]
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    adata.layers["type_mean"] = group_means(adata.layers["log1p"], types)
    errors = {("none", 0, 0): error(adata, "log1p"), ("type_mean", 0, 0): error(adata, "type_mean")}
    for row in tried[tried["method"] == "diffusion"].itertuples():
        st.pp.impute(adata, layer="log1p", n_neighbors=row.n_neighbors, n_steps=row.n_steps, key_added="one")
        errors["diffusion", row.n_neighbors, row.n_steps] = error(adata, "one")
    assert len(errors) == len(tried)
    assert error(adata, "imputed") < 1.1 * min(errors.values())


def test_nothing_within_types_gives_their_means(structureless):
    adata = structureless.copy()
    with pytest.warns(UserWarning, match="mean of each cell's type"):
        st.pp.impute(adata, **AUTO)
    note = adata.uns["imputed"]
    assert (note["method"], note["n_neighbors"], note["n_steps"]) == ("type_mean", 0, 0)
    imputed = adata.layers["imputed"]
    np.testing.assert_allclose(imputed[:200], np.broadcast_to(imputed[0], (200, 50)), rtol=1e-5)
    assert not np.allclose(imputed[0], imputed[200])
    np.testing.assert_allclose(np.expm1(imputed).sum(axis=1), 200, rtol=1e-4)


def test_what_is_written(sequenced, unchanged, caplog):
    adata = sequenced.copy()
    check = unchanged(adata)
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        st.pp.impute(adata, **AUTO)
    check(adata, new=["layers/imputed", "uns/imputed"])
    note = adata.uns["imputed"]
    tried = note["losses"]
    assert list(tried) == ["method", "n_neighbors", "n_steps", "loss", "sd", "chosen"]
    assert set(tried["method"]) == {"none", "type_mean", "diffusion"}
    chosen = tried[tried["chosen"]]
    assert len(chosen) == 1
    assert chosen.index[0] == tried["loss"].idxmin()  # far better than the mean of the type
    assert chosen[["method", "n_neighbors", "n_steps"]].iloc[0].tolist() == [
        note["method"], note["n_neighbors"], note["n_steps"],
    ]  # fmt: skip
    assert note["counts_layer"] == "counts"
    assert f"chose {note['n_neighbors']} neighbours and {note['n_steps']} steps" in caplog.text
    again = st.pp.impute(
        adata, layer="log1p", n_neighbors=note["n_neighbors"], n_steps=note["n_steps"], key_added="again", copy=True
    )
    np.testing.assert_array_equal(again.layers["again"], adata.layers["imputed"])
    assert "losses" not in again.uns["again"]


def test_one_of_both_and_no_types(sequenced):
    adata = sequenced.copy()
    adata.X = adata.layers["counts"].copy()
    st.pp.impute(adata, layer="log1p", n_neighbors="auto", n_steps=2, counts_layer="X", cluster_key=None)
    tried = adata.uns["imputed"]["losses"]
    assert set(tried["n_steps"]) == {0, 2}
    assert "type_mean" not in set(tried["method"])


def test_deep_counts_are_left_alone(structureless):
    """Independent genes that vary and are measured well."""
    adata = structureless.copy()
    counts = np.random.default_rng(0).gamma(2.0, 500.0, size=adata.shape).round()
    adata.layers["counts"] = counts
    adata.layers["log1p"] = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 200)
    st.pp.impute(adata, **AUTO)
    assert adata.uns["imputed"]["method"] == "none"
    np.testing.assert_allclose(adata.layers["imputed"], adata.layers["log1p"], rtol=1e-6)


def test_reproducible_whatever_the_storage(sequenced):
    tables = []
    for kind in (np.asarray, sparse.csc_matrix):
        adata = sequenced.copy()
        adata.layers["counts"] = kind(adata.layers["counts"].toarray())
        st.pp.impute(adata, n_jobs=1 if kind is np.asarray else 2, **AUTO)
        tables.append(adata.uns["imputed"]["losses"])
    pd.testing.assert_frame_equal(*tables)


def test_linear_scale(structureless):
    adata = structureless.copy()
    adata.layers["linear"] = np.expm1(adata.layers["log1p"])
    with pytest.warns(UserWarning, match="mean of each cell's type"):
        st.pp.impute(adata, **(AUTO | {"layer": "linear"}), scale="linear")
    np.testing.assert_allclose(adata.layers["imputed"].sum(axis=1), 200, rtol=1e-4)


def test_round_trip(sequenced, round_trip):
    adata = sequenced.copy()
    st.pp.impute(adata, **AUTO)
    back = round_trip(adata)
    expected, found = adata.uns["imputed"]["losses"], back.uns["imputed"]["losses"]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_categorical=False, check_index_type=False)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"counts_layer": None}, ValueError, 'Expected `counts_layer` with "auto", found None'),
        ({"counts_layer": "umi"}, KeyError, "umi"),
        ({"counts_layer": "log1p"}, ValueError, r"adata.layers\['log1p'\] to hold raw counts \(whole numbers"),
        ({"n_neighbors": 15, "counts_layer": None}, ValueError, 'Expected `counts_layer` with "auto"'),
        ({"use_rep": "X_pca"}, ValueError, "Expected `use_rep` to be None"),
        ({"n_pcs": "auto"}, ValueError, "`n_pcs` to be a whole number of at least 1, found"),
    ],
)
def test_bad_arguments(sequenced, unchanged, arguments, error, message):
    adata = sequenced.copy()
    adata.obsm["X_pca"] = np.zeros((300, 2))
    check = unchanged(adata)
    with pytest.raises(error, match=message):
        st.pp.impute(adata, **(AUTO | arguments))
    check(adata)
