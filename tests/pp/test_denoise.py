"""Expected expression given the counts: closer to the truth, whatever the order, and checked."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import spacetravlr as st
from spacetravlr._anndata._denoised import is_denoised


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
    monkeypatch.setattr("spacetravlr._anndata._denoised._MOST", 20)
    monkeypatch.setattr("spacetravlr._anndata._denoised._FEWEST", 20)
    parts = st.pp.denoise(tissue, layer="log1p", copy=True).layers["denoised"]
    assert parts.shape == whole.shape
    assert np.abs(parts - whole).max() > 0
    assert np.corrcoef(parts.ravel(), whole.ravel())[0, 1] > 0.98


@pytest.fixture(scope="module")
def counted():
    """A fit to sparse counts, in which every TF raises every target by 0.2."""
    adata = st.datasets.simulated_tissue(n_cells=600, n_targets=4, n_tfs=6, n_active_tfs=4, depth=0.17, rng=1)
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, layer="log1p")
    st.tl.fit_betas(adata, counts_layer="counts", show_progress_bar=False)
    columns = adata.uns["betas"]["terms"]
    betas = np.zeros(adata.obsm["betas"].shape, dtype=np.float32)
    betas[:, (columns["kind"].astype(str) == "tf").to_numpy()] = 0.2
    adata.obsm["betas"] = betas
    adata.uns["test"] = {"gene": str(grn["tf"].iloc[0]), "targets": [str(t) for t in grn["target"].unique()]}
    return adata


def test_knockouts_of_fits_to_counts_start_from_expected_values_and_keep_their_falls(counted):
    gene, targets = (counted.uns["test"][name] for name in ("gene", "targets"))
    falls = {}
    for layer in ("log1p", None):
        out = st.tl.perturb(counted, gene, baseline_layer=layer, copy=True)
        start = str(out.uns["perturbed"]["layer"])
        assert start == (layer or "denoised")
        change = values(out[:, targets], "perturbed") - values(out[:, targets], start)
        falls[start] = float(change.mean())
    wanted = -0.2 * float(values(counted[:, gene], "log1p").mean())
    assert falls["log1p"] / wanted < 0.75
    assert falls["denoised"] / wanted > 0.85


def test_where_perturbations_start_is_computed_once_and_the_same_everywhere(counted):
    gene = counted.uns["test"]["gene"]
    assert "denoised" not in counted.layers
    expected = st.pp.denoise(counted, layer="log1p", copy=True)
    adata = counted.copy()
    screens = [st.tl.genome_screen(adata, genes=[gene], show_progress_bar=False) for adata in (adata, expected)]
    np.testing.assert_array_equal(screens[0].X, screens[1].X)
    batch = st.tl.perturb_batch(adata, [gene])[0]
    drivers = st.tl.drivers(adata, "PAX5", n_propagation=1, copy=True).uns["drivers"]["table"]
    slopes = st.get.derivatives(adata, "PAX5")
    assert "denoised" not in adata.layers  # only what is compared with it later needs it there
    st.tl.perturb(adata, gene)
    np.testing.assert_array_equal(adata.layers["denoised"], expected.layers["denoised"])
    np.testing.assert_array_equal(batch.simulated, adata.layers["perturbed"])
    pd.testing.assert_frame_equal(
        drivers, st.tl.drivers(adata, "PAX5", n_propagation=1, copy=True).uns["drivers"]["table"]
    )
    pd.testing.assert_frame_equal(slopes, st.get.derivatives(adata, "PAX5", baseline_layer="denoised"))
    effect = st.get.perturbation_effect(adata, groupby=None).set_index("gene")["change"]
    np.testing.assert_allclose(effect, screens[0].to_df().iloc[0][effect.index], atol=1e-6)
    # of cells that were taken out and put in order, and after a round trip, it is still that of the fit
    st.tl.perturb(adata[::-1].copy(), gene)
    with pytest.warns(UserWarning, match="cells of the fit are missing"):
        st.tl.perturb(adata[:500].copy(), gene)


def test_least_squares_is_fitted_to_measured_values(counted):
    options = {"kinds": "least_squares", "genes": [counted.uns["test"]["gene"]], "n_propagation": 1}
    from_measured, by_default = (
        st.get.baselines(counted, baseline_layer=layer, **options)["least_squares"] for layer in ("log1p", None)
    )
    slope = by_default.X.ravel() @ from_measured.X.ravel() / (from_measured.X.ravel() ** 2).sum()
    assert 0.8 < slope < 2  # falls are larger from there, coefficients are the same


def test_another_denoised_layer_is_neither_used_nor_replaced(counted, tmp_path):
    gene = counted.uns["test"]["gene"]
    theirs = counted.copy()
    theirs.layers["denoised"] = values(theirs, "log1p") * 0.9
    with pytest.raises(ValueError, match="found no note of it in adata.uns.'denoised'.; delete or rename it, or pass"):
        st.tl.perturb(theirs, gene)
    with pytest.raises(ValueError, match="`key_added` to differ from the layer that the perturbation starts from"):
        st.tl.perturb(theirs, gene, baseline_layer="denoised", key_added="denoised")
    st.tl.perturb(theirs, gene, baseline_layer="denoised")
    np.testing.assert_array_equal(theirs.layers["denoised"], values(theirs, "log1p") * 0.9)
    some = st.pp.denoise(counted, [gene], layer="log1p", copy=True)
    with pytest.raises(ValueError, match="genes of the model that were not denoised"):
        st.tl.genome_screen(some, genes=[gene], show_progress_bar=False)
    stale = st.pp.denoise(counted, layer="log1p", copy=True)
    stale.uns["denoised"]["layer"] = "a copy of it"  # what it was called does not matter as long as values are the same
    stale.write_h5ad(tmp_path / "stale.h5ad")
    stale = ad.read_h5ad(tmp_path / "stale.h5ad")
    st.tl.perturb(stale, gene)
    stale.layers["log1p"] = values(stale, "log1p").astype(np.float32)
    stale.layers["log1p"][3] *= 1.5
    with pytest.raises(ValueError, match="found that it comes from other values in 1 cells; delete"):
        st.tl.perturb(stale, gene)
    fewer = stale[:, ::-1][:, :-1].copy()  # sums are those of other genes, so the name has to do
    with pytest.raises(ValueError, match="found that it comes from adata.layers.'a copy of it'."):
        is_denoised(fewer, [gene], layer="log1p")
    fewer.uns["denoised"]["layer"] = "log1p"
    assert is_denoised(fewer, [gene], layer="log1p")


def test_without_the_counts_of_the_fit_perturbations_start_from_measured_values_and_say_so(counted):
    adata = counted.copy()
    del adata.layers["counts"]
    with pytest.warns(UserWarning, match="adata.layers.'counts'., which the fit used, was not found"):
        st.tl.perturb(adata, adata.uns["test"]["gene"])
    assert adata.uns["perturbed"]["layer"] == "log1p"
    assert "denoised" not in adata.layers


def test_fits_of_exact_values_start_where_they_were_fitted(counted):
    adata = counted.copy()
    st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    st.tl.perturb(adata, adata.uns["test"]["gene"])
    assert adata.uns["perturbed"]["layer"] == "log1p"
    adata.X = adata.layers["log1p"]
    st.tl.perturb(adata, adata.uns["test"]["gene"], baseline_layer="X", key_added="again")
    assert adata.uns["again"]["layer"] == ""
    np.testing.assert_array_equal(values(adata, "again"), values(adata, "perturbed"))


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
