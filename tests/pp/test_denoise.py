"""Expected expression given the counts: closer to the truth, whatever the order, and checked."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import spacetravlr as st


@pytest.fixture(scope="module")
def tissue():
    return st.datasets.simulated_tissue(n_cells=800, n_targets=4, n_tfs=10, depth=1.0, programs=0.5, rng=2)


def values(adata, layer):
    found = adata.layers[layer]
    return np.asarray(found.toarray() if sparse.issparse(found) else found, dtype=float)


def within(adata, array):
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    return array - np.stack([array[types == c].mean(axis=0) for c in range(types.max() + 1)])[types]


def test_expected_values_are_closer_to_the_truth_within_types(tissue):
    adata = st.pp.denoise(tissue, layer="log1p", copy=True)
    assert "denoised" not in tissue.layers
    exact, measured, found = (within(adata, values(adata, name)) for name in ("exact", "log1p", "denoised"))
    genes = (adata.var["role"].astype(str) == "tf").to_numpy()

    def agreement(array):
        return np.mean([np.corrcoef(array[:, g], exact[:, g])[0, 1] for g in np.flatnonzero(genes)])

    assert agreement(found) > agreement(measured) + 0.05
    # shrunken as much as it should: another count of the same cells, whose noise is independent, rises as it does
    depth = adata.uns["simulation"]["params"]["depth"] * adata.obs["size_factor"].to_numpy()[:, None]
    counts = np.random.default_rng(9).poisson(np.expm1(values(adata, "exact")) * depth)
    again = within(adata, np.log1p(counts / depth))
    slopes = [(again[:, g] @ found[:, g]) / (found[:, g] @ found[:, g]) for g in np.flatnonzero(genes)]
    assert 0.9 < np.mean(slopes) < 1.1
    assert found[:, genes].std() < measured[:, genes].std()
    assert values(adata, "denoised").min() >= 0
    np.testing.assert_allclose(values(adata, "denoised").mean(axis=0), values(adata, "log1p").mean(axis=0), atol=0.05)


def test_noise_alone_leaves_the_mean_of_the_type():
    rng = np.random.default_rng(0)
    n, genes = 1500, 12
    types = rng.integers(0, 2, n)
    rate = np.where(types[:, None] == 0, 1.0, 3.0) * rng.uniform(0.5, 1.5, genes)
    counts = rng.poisson(rate).astype(np.float32)
    adata = ad.AnnData(np.log1p(counts), layers={"counts": counts})
    adata.obs["cell_type"] = [f"t{c}" for c in types]
    adata.obsm["spatial"] = rng.uniform(0, 1000, (n, 2))
    st.pp.denoise(adata)
    left = adata.layers["denoised"] - np.stack([adata.X[types == c].mean(axis=0) for c in range(2)])[types]
    assert left.std() < 0.15 * (adata.X - adata.X.mean(axis=0)).std()
    assert np.abs(left.mean(axis=0)).max() < 0.02


def test_order_and_slides(tissue):
    adata = tissue.copy()
    adata.obs["slide"] = np.where(np.arange(adata.n_obs) % 2, "b", "a")
    found = st.pp.denoise(adata, layer="log1p", library_key="slide", copy=True)
    assert found.uns["denoised"]["library_key"] == "slide"
    rng = np.random.default_rng(1)
    cells, genes = rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)
    other = st.pp.denoise(adata[cells][:, genes].copy(), layer="log1p", library_key="slide", copy=True)
    back = other[found.obs_names, found.var_names].layers["denoised"]
    np.testing.assert_allclose(back, found.layers["denoised"], atol=1e-3)


def test_some_genes_sparse_counts_and_other_bases(tissue):
    adata = tissue.copy()
    some = list(adata.var_names[[3, 1]])
    st.pp.denoise(adata, some, layer="log1p", key_added="some")
    others = ~adata.var_names.isin(some)
    np.testing.assert_array_equal(values(adata, "some")[:, others], values(adata, "log1p")[:, others])
    assert (values(adata, "some")[:, ~others] != values(adata, "log1p")[:, ~others]).any()
    assert set(adata.uns["some"]["genes"]) == set(some)
    whole = st.pp.denoise(tissue, layer="log1p", copy=True)
    two = tissue.copy()
    two.layers["counts"] = values(two, "counts")
    two.layers["log1p"] = values(two, "log1p") / np.log(2)
    two.uns["log1p"] = {"base": 2}
    st.pp.denoise(two, layer="log1p")
    np.testing.assert_allclose(two.layers["denoised"] * np.log(2), whole.layers["denoised"], atol=1e-4)


def test_many_genes_are_read_in_groups(tissue, monkeypatch):
    whole = st.pp.denoise(tissue, layer="log1p", copy=True).layers["denoised"]
    monkeypatch.setattr("spacetravlr.pp._denoise._MOST", 20)
    monkeypatch.setattr("spacetravlr.pp._denoise._FEWEST", 20)
    parts = st.pp.denoise(tissue, layer="log1p", copy=True).layers["denoised"]
    assert parts.shape == whole.shape
    assert np.abs(parts - whole).max() > 0
    assert np.corrcoef(parts.ravel(), whole.ravel())[0, 1] > 0.98


def test_knockouts_from_expected_values_keep_their_falls(caplog):
    adata = st.datasets.simulated_tissue(n_cells=600, n_targets=4, n_tfs=6, n_active_tfs=4, depth=0.17, rng=1)
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.denoise(adata, layer="log1p")
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, layer="log1p")
    st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False)
    columns = adata.uns["betas"]["terms"]
    betas = np.zeros(adata.obsm["betas"].shape, dtype=np.float32)
    betas[:, (columns["kind"].astype(str) == "tf").to_numpy()] = 0.2  # every TF raises every target
    adata.obsm["betas"] = betas
    del adata.uns["betas"]["fitted_on"]
    gene = str(grn["tf"].iloc[0])
    targets = [str(t) for t in grn["target"].unique()]
    falls = {}
    for layer in ("log1p", "denoised"):
        with caplog.at_level(logging.INFO, logger="spacetravlr"):
            caplog.clear()
            out = st.tl.perturb(adata, gene, baseline_layer=layer, copy=True)
        assert ("zero and cannot fall" in caplog.text) == (layer == "log1p")
        change = out[:, targets].layers["perturbed"] - out[:, targets].layers[layer]
        falls[layer] = float(np.asarray(change).mean())
    wanted = -0.2 * float(np.asarray(adata[:, gene].layers["log1p"]).mean())
    assert falls["log1p"] / wanted < 0.75
    assert falls["denoised"] / wanted > 0.85


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layer": "exact"}, ValueError, "log1p of adata.layers.'counts'. over a size factor"),
        ({"layer": "log1p", "counts_layer": "log1p"}, ValueError, "raw counts"),
        ({"layer": "nothing"}, KeyError, "nothing"),
        ({"layer": "log1p", "cluster_key": "nothing"}, KeyError, "nothing"),
        ({"layer": "log1p", "genes": ["nothing"]}, KeyError, "nothing"),
        ({"layer": "log1p", "spatial_key": "nothing"}, KeyError, "nothing"),
    ],
)
def test_bad_input(tissue, options, error, match):
    with pytest.raises(error, match=match):
        st.pp.denoise(tissue.copy(), **options)
