"""Perturbations written into the AnnData."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import spacetravlr as st
from spacetravlr._anndata._perturbed import perturbed_cells


def everything(adata):
    return {f"{attr}/{key}" for attr in ("layers", "uns", "obsm", "obsp", "varm") for key in getattr(adata, attr)}


def test_perturb_writes_two_keys_and_touches_nothing_else(adata):
    before, keys = adata.copy(), everything(adata)
    assert st.tl.perturb(adata, {"FOXO1": 0}) is None
    assert everything(adata) - keys == {"layers/perturbed", "uns/perturbed"}
    for layer in before.layers:
        np.testing.assert_array_equal(adata.layers[layer], before.layers[layer])
    np.testing.assert_array_equal(adata.X, before.X)
    np.testing.assert_array_equal(adata.obsm["betas"], before.obsm["betas"])
    after = adata.layers["perturbed"]
    assert after.dtype == np.float32
    assert after.min() >= 0
    np.testing.assert_array_equal(after[:, adata.var_names.get_loc("FOXO1")], 0)
    np.testing.assert_array_equal(after, st.GeneFactory(adata).perturb("FOXO1").simulated)
    # genes without a model stay
    np.testing.assert_array_equal(adata[:, "TUBB"].layers["perturbed"], adata[:, "TUBB"].layers["log1p"])


def test_what_was_done_is_written_down(adata):
    st.tl.perturb(adata, {"IRF4": "max"}, fold={"STAT3": 0.5}, cells="cell_type == 'T/NK'", n_propagation=2)
    stored = adata.uns["perturbed"]
    assert list(stored["genes"]) == ["IRF4", "STAT3"]
    np.testing.assert_allclose(stored["values"], [adata[:, "IRF4"].layers["log1p"].max(), np.nan])
    np.testing.assert_allclose(stored["folds"], [np.nan, 0.5])
    np.testing.assert_array_equal(stored["cells"]["perturbed"], adata.obs["cell_type"] == "T/NK")
    assert stored["cells"].index.equals(adata.obs_names)
    assert (stored["layer"], stored["n_propagation"], stored["label"]) == ("log1p", 2, "IRF4=max, STAT3 x 0.5")


def test_adjustment_is_taken_in_when_asked_for(with_receptors):
    adata = with_receptors
    st.tl.perturb(adata, "CXCR4")
    st.tl.perturb(adata, "CXCR4", adjusted=True, key_added="adjusted")
    assert [adata.uns[key]["adjusted"] for key in ("perturbed", "adjusted")] == [False, True]
    assert np.abs(adata.layers["adjusted"] - adata.layers["perturbed"]).max() > 0.1
    for adjusted, key in ((False, "perturbed"), (True, "adjusted")):
        (found,) = st.tl.perturb_batch(adata, ["CXCR4"], adjusted=adjusted)
        np.testing.assert_allclose(found.simulated, adata.layers[key], atol=1e-6)


def test_the_perturbed_cells_are_known_by_name(adata, tmp_path):
    st.tl.perturb(adata, "FOXO1", cells="cell_type == 'T/NK'")
    adata.write_h5ad(tmp_path / "perturbed.h5ad")
    for moved in (adata[::-3].copy(), ad.read_h5ad(tmp_path / "perturbed.h5ad")[40:90]):
        np.testing.assert_array_equal(perturbed_cells(moved), moved.obs["cell_type"] == "T/NK")
    strangers = adata.copy()
    strangers.obs_names = [f"other {i}" for i in range(strangers.n_obs)]
    with pytest.raises(ValueError, match=r"adata.uns\['perturbed'\]\['cells'\] to hold every cell"):
        perturbed_cells(strangers)


def test_copy_and_key_added(adata):
    keys = everything(adata)
    out = st.tl.perturb(adata, "FOXO1", key_added="ko", copy=True)
    assert everything(adata) == keys
    assert everything(out) - keys == {"layers/ko", "uns/ko"}


def test_a_sparse_layer_gives_a_sparse_result(adata):
    dense = st.tl.perturb(adata, "FOXO1", copy=True).layers["perturbed"]
    adata.layers["log1p"] = sparse.csr_matrix(adata.layers["log1p"])
    found = st.tl.perturb(adata, "FOXO1", copy=True).layers["perturbed"]
    assert sparse.issparse(found)
    np.testing.assert_array_equal(found.toarray(), dense)


def test_on_error_nothing_is_written(adata):
    keys = everything(adata)
    with pytest.raises(KeyError):
        st.tl.perturb(adata, "NOGENE")
    with pytest.raises(ValueError, match="at least one cell"):
        st.tl.perturb(adata, "FOXO1", cells="cell_type == 'none'")
    assert everything(adata) == keys


@pytest.mark.filterwarnings("ignore:.*[Zz]arr:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_files_keep_what_was_written(adata, tmp_path, suffix):
    st.tl.perturb(adata, {"FOXO1": 0}, cells="cell_type == 'B'")
    st.tl.perturbation_vectors(adata)
    path = tmp_path / f"tissue.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    back = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    np.testing.assert_array_equal(back.layers["perturbed"], adata.layers["perturbed"])
    np.testing.assert_array_equal(back.obsm["perturbed_spatial"], adata.obsm["perturbed_spatial"])
    np.testing.assert_array_equal(
        back.obsp["perturbed_transitions"].toarray(), adata.obsp["perturbed_transitions"].toarray()
    )
    assert list(back.uns["perturbed"]["genes"]) == ["FOXO1"]
    assert back.uns["perturbed"]["label"] == "FOXO1=0"
    assert len(st.get.perturbation_effect(back)) == len(st.get.perturbation_effect(adata))


def test_a_subset_of_the_cells_is_a_tissue_of_its_own(adata):
    part = adata[adata.obs["cell_type"] != "B"].copy()
    st.tl.perturb(part, "CXCL12")
    assert part.layers["perturbed"].shape == part.shape


def test_batch_and_possible_targets(adata):
    keys = everything(adata)
    results = st.tl.perturb_batch(adata, ["FOXO1", {"CXCL12": "max"}])
    assert everything(adata) == keys
    for result, wanted in zip(results, ["FOXO1", {"CXCL12": "max"}], strict=True):
        alone = st.tl.perturb(adata, wanted, copy=True).layers["perturbed"]
        np.testing.assert_allclose(result.simulated, alone, atol=1e-6)
    assert st.tl.possible_targets(adata) == st.GeneFactory(adata).possible_targets()


def test_spatialdata(adata):
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    table = TableModel.parse(adata.copy())
    sdata = SpatialData(tables={"cells": table})
    st.tl.perturb(adata, "FOXO1")
    st.tl.perturb(sdata, "FOXO1")
    st.tl.perturbation_vectors(sdata)
    np.testing.assert_array_equal(table.layers["perturbed"], adata.layers["perturbed"])
    assert "perturbed_spatial" in table.obsm
    assert len(st.get.ranked_effects(sdata)) == len(st.get.ranked_effects(adata))
    assert st.get.betas(sdata, "CD79A").equals(st.get.betas(adata, "CD79A"))
    with pytest.raises(TypeError, match="Expected `adata` to be AnnData or SpatialData, found `dict`"):
        st.tl.perturb({}, "FOXO1")
