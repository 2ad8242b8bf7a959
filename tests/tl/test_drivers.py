"""What moves a read-out, against real perturbations of the same tissue."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import spacetravlr as st

TARGETS = {"CD79A": 1.0, "MS4A1": -0.5}


@pytest.fixture
def names(adata):
    return list(dict.fromkeys(adata.uns["betas"]["terms"]["target"].astype(str)))


def everything(adata):
    return {f"{attr}/{key}" for attr in ("layers", "uns", "obsm", "obsp", "varm") for key in getattr(adata, attr)}


def table(adata, group="all", key="drivers"):
    found = adata.uns[key]["table"]
    return found[found["cell_type"] == group].set_index("gene")


def mean_change(adata, result, weights, cells=slice(None)):
    """Change of a weighted sum of genes, averaged over cells."""
    frame = result.change_frame().astype(float)
    return sum(w * frame[g].to_numpy()[cells].mean() for g, w in weights.items())


def test_what_is_written(adata):
    before, keys = adata.copy(), everything(adata)
    assert st.tl.drivers(adata, "CD79A", n_check=2) is None
    assert everything(adata) - keys == {"uns/drivers", "obsm/drivers", "obsm/drivers_knockout"}
    np.testing.assert_array_equal(adata.X, before.X)
    stored, n_genes = adata.uns["drivers"], len(st.tl.possible_targets(adata))
    assert sorted(stored["genes"]) == sorted(st.tl.possible_targets(adata))
    assert adata.obsm["drivers"].shape == adata.obsm["drivers_knockout"].shape == (adata.n_obs, n_genes)
    assert adata.obsm["drivers"].dtype == adata.obsm["drivers_knockout"].dtype == np.float32
    assert list(dict.fromkeys(stored["table"]["cell_type"])) == ["all", *adata.obs["cell_type"].cat.categories]
    assert stored["params"]["label"] == "CD79A"
    assert stored["table"]["checked"].notna().sum() == 2
    copy = st.tl.drivers(before, "CD79A", n_check=0, key_added="more", copy=True)
    assert everything(copy) - everything(before) == {"uns/more", "obsm/more", "obsm/more_knockout"}
    pd.testing.assert_frame_equal(table(copy, key="more").drop(columns="checked"), table(adata).drop(columns="checked"))


def test_types_and_cells_add_up(adata):
    st.tl.drivers(adata, TARGETS, n_check=0)
    whole = table(adata)
    parts = [table(adata, t) for t in adata.obs["cell_type"].cat.categories]
    for column in ("knockout", "increase"):
        np.testing.assert_allclose(sum(p[column] for p in parts), whole[column], atol=1e-6)
    genes = list(adata.uns["drivers"]["genes"])
    np.testing.assert_allclose(adata.obsm["drivers_knockout"].sum(axis=0), whole["knockout"][genes], atol=1e-5)
    spread = adata[:, genes].layers["log1p"].std(axis=0)
    np.testing.assert_allclose(adata.obsm["drivers"].sum(axis=0) * spread, whole["increase"][genes], atol=1e-5)
    size = whole["knockout"].abs()
    assert list(size.sort_values(ascending=False).index[:3]) == list(whole.sort_values("rank_knockout").index[:3])


@pytest.mark.parametrize("cells", [None, "cell_type != 'B'"])
def test_first_order_is_what_a_small_perturbation_does(adata, cells):
    """The same region read, some or all cells perturbed; genes that come back to themselves are pinned."""
    region = (adata.obs["cell_type"] == "T/NK").to_numpy()
    st.tl.drivers(adata, TARGETS, of=region, cells=cells, n_check=0, n_pinned=100)
    found, genes, step = table(adata), list(adata.uns["drivers"]["genes"]), 0.01
    factory = st.GeneFactory(adata)
    values = adata[:, genes].layers["log1p"]
    spread = values[st.GeneFactory(adata).perturb(genes[0], cells=cells).cells].std(axis=0)
    small = []
    for gene in genes:
        down = factory.perturb(fold={gene: 1 - step}, cells=cells)
        small.append(mean_change(adata, down, TARGETS, region) / step)
    scale = np.abs(small).max()
    np.testing.assert_allclose(found["knockout"][genes], small, atol=5e-3 * scale)
    assert np.corrcoef(found["knockout"][genes], small)[0, 1] > 0.9999
    assert (spread > 0).all()
    outside = ~found_cells(adata)
    assert not adata.obsm["drivers"][outside].any()
    assert cells is None or outside.any()


def found_cells(adata):
    return adata.uns["drivers"]["cells"]["perturbed"].to_numpy()


def test_where_a_dose_acts(adata):
    """One cell perturbed at a time, for the gene at the top."""
    st.tl.drivers(adata, TARGETS, n_check=0, n_pinned=100)
    gene = table(adata)["knockout"].abs().idxmax()
    column = list(adata.uns["drivers"]["genes"]).index(gene)
    base = adata[:, gene].layers["log1p"].ravel()
    chosen = np.flatnonzero(base > 0)[:12]
    real = [
        mean_change(adata, st.GeneFactory(adata).perturb(fold={gene: 0.9}, cells=[j]), TARGETS) / 0.1 for j in chosen
    ]
    np.testing.assert_allclose(adata.obsm["drivers_knockout"][chosen, column], real, atol=0.02 * np.abs(real).max())


def test_checked_and_pairs_are_real_knockouts(adata):
    region = "cell_type == 'B'"
    st.tl.drivers(adata, TARGETS, of=region, n_check=4, n_pairs=3)
    found, inside = table(adata), (adata.obs["cell_type"] == "B").to_numpy()
    checked = found["checked"].dropna()
    assert set(checked.index) == set(found.sort_values("rank_knockout").index[:4])
    for gene, value in checked.items():
        (real,) = st.tl.perturb_batch(adata, [gene])
        np.testing.assert_allclose(value, mean_change(adata, real, TARGETS, inside), atol=1e-5)
    pairs = adata.uns["drivers"]["pairs"]
    assert len(pairs) == 3
    for row in pairs.itertuples():
        (real,) = st.tl.perturb_batch(adata, [[row.gene, row.partner]])
        np.testing.assert_allclose(row.checked, mean_change(adata, real, TARGETS, inside), atol=1e-5)
        np.testing.assert_allclose(row.additive, checked[row.gene] + checked[row.partner])
        np.testing.assert_allclose(row.interaction, row.checked - row.additive)
    expected = np.corrcoef(found["knockout"][checked.index], checked)[0, 1]
    np.testing.assert_allclose(adata.uns["drivers"]["agreement"], expected)


def test_the_distance_to_other_cells(adata, names):
    here, there = (adata.obs["cell_type"] == t for t in ("T/NK", "B"))
    st.tl.drivers(adata, of="cell_type == 'T/NK'", towards=there, n_check=3, n_pinned=100)
    values = adata[:, names].layers["log1p"].astype(float)
    mean, sd = values[there].mean(axis=0), values[here | there].std(axis=0)

    def distance(state):
        return (((state[here] - mean) / sd) ** 2).mean()

    found, factory = table(adata), st.GeneFactory(adata)
    for gene in found.index:
        after = factory.perturb(fold={gene: 0.999}).to_frame()[names].to_numpy(float)
        small = (distance(after) - distance(values)) / 0.001
        np.testing.assert_allclose(found["knockout"][gene], small, atol=0.02 * found["knockout"].abs().max())
    for gene, value in found["checked"].dropna().items():
        after = factory.perturb(gene).to_frame()[names].to_numpy(float)
        np.testing.assert_allclose(value, distance(after) - distance(values), atol=1e-4)
    assert adata.uns["drivers"]["params"]["kind"] == "distance"
    assert not found["in_readout"].any()


def test_weights_of_cells(adata):
    adata.obs["score"] = (adata.obs["cell_type"] == "B") * 2.0
    weighted = st.tl.drivers(adata, "CD79A", weights="score", n_check=0, copy=True)
    region = st.tl.drivers(adata, "CD79A", of="cell_type == 'B'", n_check=0, copy=True)
    np.testing.assert_allclose(weighted.obsm["drivers"], region.obsm["drivers"], atol=1e-7)


def test_genes_of_the_readout_come_last(adata, names):
    relay = next(n for n in names if n in st.tl.possible_targets(adata))
    st.tl.drivers(adata, {relay: 1.0, "CD79A": 1.0}, n_check=0)
    found = table(adata)
    assert found["in_readout"][relay]
    assert found["rank_knockout"][relay] == len(found)
    assert relay not in set(st.get.drivers(adata)["gene"])
    assert relay in set(st.get.drivers(adata, in_readout=True)["gene"])
    mean = adata[:, relay].layers["log1p"].mean()
    assert found["knockout"][relay] < -0.5 * mean  # it is what is lost of itself, and what that does to the other


def test_the_table(adata):
    st.tl.drivers(adata, TARGETS, n_check=3)
    ranked = st.get.drivers(adata, cell_type="B", n_top=4, mode="increase")
    assert list(ranked["rank_increase"]) == sorted(ranked["rank_increase"])
    assert set(ranked["cell_type"]) == {"B"}
    groups = ["all", *adata.obs["cell_type"].cat.categories]
    assert list(st.get.drivers(adata, n_top=2)["cell_type"]) == [group for group in groups for _ in range(2)]
    assert set(st.get.drivers(adata, gene="FOXO1")["gene"]) == {"FOXO1"}
    for options, match in (({"gene": "FOXO"}, "FOXO1"), ({"drivers_key": "none"}, "st.tl.drivers")):
        with pytest.raises(KeyError, match=match):
            st.get.drivers(adata, **options)
    for options in ({"mode": "both"}, {"cell_type": "C"}):
        with pytest.raises(ValueError, match="Expected"):
            st.get.drivers(adata, **options)


@pytest.mark.filterwarnings("ignore:.*[Zz]arr:UserWarning")
@pytest.mark.parametrize(("suffix", "n_pairs"), [("h5ad", 2), ("zarr", 0)])
def test_files_keep_what_was_written(adata, tmp_path, suffix, n_pairs):
    st.tl.drivers(adata, TARGETS, n_check=3, n_pairs=n_pairs)
    path = tmp_path / f"tissue.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    back = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    np.testing.assert_array_equal(back.obsm["drivers"], adata.obsm["drivers"])
    pd.testing.assert_frame_equal(st.get.drivers(back), st.get.drivers(adata))
    assert list(back.uns["drivers"]["genes"]) == list(adata.uns["drivers"]["genes"])
    assert len(back.uns["drivers"]["pairs"]) == n_pairs


def test_stored_coefficients_and_adjustment(adata, with_receptors, tmp_path):
    dask = pytest.importorskip("dask.array")
    st.tl.drivers(adata, TARGETS, n_check=0)
    lazy = adata.copy()
    lazy.obsm["betas"] = dask.from_array(adata.obsm["betas"], chunks=(40, 7))
    st.tl.drivers(lazy, TARGETS, n_check=0)
    np.testing.assert_allclose(lazy.obsm["drivers"], adata.obsm["drivers"], atol=1e-7)
    plain, adjusted = (st.tl.drivers(with_receptors, TARGETS, n_check=0, adjusted=a, copy=True) for a in (False, True))
    np.testing.assert_allclose(plain.obsm["drivers"], adata.obsm["drivers"], atol=1e-6)
    (real,) = st.tl.perturb_batch(with_receptors, [{"CXCR4": 0}], adjusted=True)
    expected = mean_change(with_receptors, real, TARGETS)
    assert abs(table(plain)["knockout"]["CXCR4"] - table(adjusted)["knockout"]["CXCR4"]) > 0.01
    np.testing.assert_allclose(table(adjusted)["knockout"]["CXCR4"], expected, atol=0.1 * abs(expected))


def test_a_fit_without_signals(adata):
    terms = adata.uns["betas"]["terms"]
    keep = terms["kind"].isin(["intercept", "tf"]).to_numpy()
    adata.uns["betas"] = {**adata.uns["betas"], "terms": terms[keep].reset_index(drop=True)}
    adata.obsm["betas"] = adata.obsm["betas"][:, keep]
    adata.layers["log1p"] = sparse.csr_matrix(adata.layers["log1p"])
    st.tl.drivers(adata, TARGETS, n_check=2)
    assert adata.uns["drivers"]["agreement"] != adata.uns["drivers"]["agreement"]  # two are too few
    assert table(adata)["knockout"].abs().max() > 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ValueError, "Expected `readout` to be a gene or genes with weights, or `towards`"),
        ({"readout": "CD79"}, KeyError, "closest: CD79A"),
        ({"readout": "TUBB"}, ValueError, "Expected `readout` to hold a modelled gene"),
        ({"readout": []}, ValueError, "Expected `readout` to name a gene"),
        ({"readout": {"CD79A": "much"}}, ValueError, "weight of `CD79A` in `readout`"),
        ({"readout": {"CD79A": 0}}, ValueError, "a weight that is not zero"),
        ({"readout": "CD79A", "of": "cell_type == 'X'"}, ValueError, "Expected `of` to choose at least one cell"),
        ({"readout": "CD79A", "cells": ["nobody"]}, KeyError, "Expected `cells` to be in"),
        ({"readout": "CD79A", "towards": "cell == 1"}, ValueError, "Expected `towards` to be a comparison"),
        ({"readout": "CD79A", "weights": "none"}, KeyError, "adata.obs"),
        ({"readout": "CD79A", "weights": "cell_type"}, ValueError, "finite numbers of at least zero"),
        ({"readout": "CD79A", "n_check": -1}, ValueError, "Expected `n_check`"),
        ({"readout": "CD79A", "n_propagation": 0}, ValueError, "Expected `n_propagation`"),
        ({"readout": {"CD79A": -1}, "towards": "cell_type == 'B'"}, ValueError, "to be at least zero with `towards`"),
    ],
)
def test_bad_input_leaves_no_trace(adata, options, error, match):
    keys = everything(adata)
    with pytest.raises(error, match=match):
        st.tl.drivers(adata, **options)
    assert everything(adata) == keys


def test_genes_without_a_model_are_named(adata):
    with pytest.warns(UserWarning, match="'TUBB' of `readout` have no model"):
        st.tl.drivers(adata, ["CD79A", "TUBB"], n_check=0)


def test_coefficients_that_are_not_finite_are_named(adata):
    adata.obsm["betas"][3] = np.nan
    with pytest.raises(ValueError, match="coefficients to be finite"):
        st.tl.drivers(adata, "CD79A")
