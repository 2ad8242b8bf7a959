from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import spacetravlr as st

SIGMA = 25 / np.sqrt(-2 * np.log(1e-3))
OURS = ["obsp/spatial_weights", "obsp/contact_weights", "uns/spatial_weights"]


def test_five_cells_by_hand(line):
    st.pp.spatial_weights(line, radius=25, contact_radius=10)
    w = np.exp(-(np.array([0, 10, 20]) ** 2) / (2 * SIGMA**2))
    expected = np.array([[w[abs(i - j)] if abs(i - j) < 3 else 0 for i in range(5)] for j in range(5)])
    np.testing.assert_allclose(line.obsp["spatial_weights"].toarray(), expected, atol=1e-6)
    contact = line.obsp["contact_weights"].toarray()
    np.testing.assert_allclose(contact[0], [1, 1e-3, 0, 0, 0], rtol=1e-5)
    assert line.obsp["spatial_weights"].dtype == np.float32
    params = line.uns["spatial_weights"]
    assert np.isclose(params["sigma"], SIGMA)
    assert (params["method"], params["contact_method"], params["library_key"]) == ("sparse", "sparse", "")


def test_units_are_said_not_applied_to_coordinates(slide):
    plain = st.pp.spatial_weights(slide, radius=60, contact_radius=20, copy=True)
    slide.obsm["spatial"] = slide.obsm["spatial"] * 10
    before = slide.obsm["spatial"].copy()
    st.pp.spatial_weights(slide, radius=60, contact_radius=20, microns_per_unit=0.1)
    np.testing.assert_array_equal(slide.obsm["spatial"], before)
    for key in ("spatial_weights", "contact_weights"):
        np.testing.assert_allclose(slide.obsp[key].toarray(), plain.obsp[key].toarray(), atol=1e-6)
    assert slide.uns["spatial_weights"]["sigma"] == plain.uns["spatial_weights"]["sigma"]


@pytest.mark.parametrize("method", ["sparse", "grid"])
def test_only_our_keys_are_written(slide, unchanged, method):
    check = unchanged(slide)
    assert st.pp.spatial_weights(slide, radius=60, contact_radius=20, method=method) is None
    check(slide, new=OURS)
    assert ("spatial_weights" in slide.obsp) == (method == "sparse")
    assert slide.uns["spatial_weights"]["method"] == method


def test_copy_leaves_the_original_alone(slide, unchanged):
    check = unchanged(slide)
    copied = st.pp.spatial_weights(slide, radius=60, contact_radius=20, copy=True, key_added="w")
    check(slide)
    check(copied, new=["obsp/w", "obsp/w_contact", "uns/w"])


def test_grid_takes_away_the_weights_of_an_earlier_call(slide):
    st.pp.spatial_weights(slide, radius=60, contact_radius=20, method="sparse")
    st.pp.spatial_weights(slide, radius=60, contact_radius=20, method="grid")
    assert not set(slide.obsp)


def test_slides_are_not_joined(slide):
    st.pp.spatial_weights(slide, radius=60, contact_radius=20, library_key="half")
    library = slide.obs["half"].to_numpy()
    weights = slide.obsp["spatial_weights"].tocoo()
    assert (library[weights.row] == library[weights.col]).all()
    assert weights.nnz > len(library)


def test_squidpy_distances_are_the_neighbourhood(slide):
    import squidpy as sq

    sq.gr.spatial_neighbors_knn(slide, n_neighs=6)
    st.pp.spatial_weights(slide, radius=60, contact_radius=20, connectivity_key="spatial_distances")
    distance = cdist(slide.obsm["spatial"], slide.obsm["spatial"])
    edges = slide.obsp["spatial_connectivities"].toarray() > 0
    sigma = 60 / np.sqrt(-2 * np.log(1e-3))
    expected = np.where(edges & (distance <= 60), np.exp(-(distance**2) / (2 * sigma**2)), 0) + np.eye(200)
    np.testing.assert_allclose(slide.obsp["spatial_weights"].toarray(), expected, atol=1e-6)
    contact = slide.obsp["contact_weights"]
    assert contact.nnz < slide.obsp["spatial_weights"].nnz
    by_connectivity = st.pp.spatial_weights(
        slide, radius=60, contact_radius=20, connectivity_key="spatial_connectivities", copy=True
    )
    np.testing.assert_allclose(by_connectivity.obsp["spatial_weights"].toarray(), expected, atol=1e-6)
    assert slide.uns["spatial_weights"]["connectivity_key"] == "spatial_distances"
    own = st.pp.spatial_weights(
        slide, radius=60, contact_radius=20, connectivity_key="spatial_distances", autocrine=False, copy=True
    )
    assert not own.obsp["spatial_weights"].diagonal().any()
    apart = (
        st.pp.spatial_weights(
            slide, radius=60, contact_radius=20, connectivity_key="spatial_distances", library_key="half", copy=True
        )
        .obsp["spatial_weights"]
        .tocoo()
    )
    library = slide.obs["half"].to_numpy()
    assert (library[apart.row] == library[apart.col]).all()


def test_sigma_by_hand_and_no_cut(slide):
    st.pp.spatial_weights(slide, radius=60, contact_radius=20, sigma=60, contact_sigma=20, truncate=False)
    distance = cdist(slide.obsm["spatial"], slide.obsm["spatial"])
    for key, sigma in (("spatial_weights", 60), ("contact_weights", 20)):
        expected = np.exp(-(distance**2) / (2 * sigma**2))
        np.testing.assert_allclose(slide.obsp[key].toarray(), expected, atol=1e-7)


@pytest.mark.parametrize("autocrine", [True, False])
def test_number_of_neighbours_is_logged(slide, caplog, autocrine):
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        st.pp.spatial_weights(slide, radius=60, contact_radius=20, autocrine=autocrine)
    others = (cdist(slide.obsm["spatial"], slide.obsm["spatial"]) <= 60).sum(axis=1).mean() - 1
    assert f"spatial_weights: {others:.1f} neighbours per cell" in caplog.text


def test_spatialdata(slide):
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    sdata = SpatialData(tables={"table": TableModel.parse(slide.copy())})
    st.pp.spatial_weights(sdata, radius=60, contact_radius=20)
    st.pp.spatial_weights(slide, radius=60, contact_radius=20)
    found = sdata.tables["table"].obsp["spatial_weights"]
    np.testing.assert_array_equal(found.toarray(), slide.obsp["spatial_weights"].toarray())
    two = SpatialData(tables={"a": TableModel.parse(slide.copy()), "b": TableModel.parse(slide.copy())})
    with pytest.raises(ValueError, match=r"exactly one table, found 'a', 'b'"):
        st.pp.spatial_weights(two)


@pytest.mark.parametrize("method", ["sparse", "grid"])
def test_without_contact_signals(slide, method, tmp_path, caplog):
    caplog.set_level("INFO")
    st.pp.spatial_weights(slide, radius=60, contact_radius=20)
    whole = slide.obsp["spatial_weights"].copy()
    caplog.clear()
    st.pp.spatial_weights(slide, radius=60, contact_radius=None, method=method)
    assert "contact_weights" not in slide.obsp  # those of the first call are gone
    assert "contact" not in caplog.text
    if method == "sparse":
        np.testing.assert_array_equal(slide.obsp["spatial_weights"].toarray(), whole.toarray())
    params = slide.uns["spatial_weights"]
    assert (params["contact_radius"], params["contact_sigma"], params["contact_method"]) == (0.0, 0.0, "")
    st.io.write(slide, tmp_path / "slide.h5ad")
    assert st.io.read(tmp_path / "slide.h5ad").uns["spatial_weights"] == params
    assert len(st.pl.spatial_weights(slide).lines) == 2  # one kernel and its radius
    with pytest.raises(ValueError, match="has no contact weights"):
        st.pl.spatial_weights(slide, cell="cell0", signal_range="contact")


@pytest.mark.parametrize(
    "factor, unit, message",
    [
        (1000, 1.0, "beyond radius=200"),
        (0.001, 1.0, "implausible"),
        (1, 1e-3, "set `microns_per_unit`"),
    ],
)
def test_implausible_spacing_gets_a_warning(slide, factor, unit, message):
    slide.obsm["spatial"] = slide.obsm["spatial"] * factor
    with pytest.warns(UserWarning, match=message):
        st.pp.spatial_weights(slide, microns_per_unit=unit)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"spatial_key": "xy"}, KeyError, "Key 'xy' \\(`spatial_key`\\) not found in adata.obsm"),
        ({"library_key": "nope"}, KeyError, "`library_key`"),
        ({"connectivity_key": "spatial_distances"}, KeyError, "sq.gr.spatial_neighbors_knn"),
        ({"connectivity_key": "graph", "method": "grid"}, ValueError, "a grid has no edges"),
        ({"radius": 0}, ValueError, "Expected `radius` to be positive"),
        ({"contact_radius": np.nan}, ValueError, "`contact_radius`"),
        ({"contact_radius": 0}, ValueError, "`contact_radius`"),
        ({"contact_radius": None, "contact_sigma": 5}, ValueError, "no `contact_sigma` with `contact_radius=None`"),
        ({"sigma": -1.0}, ValueError, "`sigma`"),
        ({"microns_per_unit": 0}, ValueError, "`microns_per_unit`"),
        ({"eps": 1.0}, ValueError, "`eps`"),
        ({"method": "fast"}, ValueError, "`method` to be one of 'auto', 'sparse', 'grid'"),
        ({"n_jobs": 0}, ValueError, "`n_jobs`"),
        ({"method": "grid", "sigma": 200.0}, ValueError, "weight at the radius"),
    ],
)
def test_bad_arguments(slide, unchanged, arguments, error, message):
    check = unchanged(slide)
    with pytest.raises(error, match=message):
        st.pp.spatial_weights(slide, **{"radius": 200.0, **arguments})
    check(slide)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_not_finite(slide, value):
    slide.obsm["spatial"][17, 1] = value
    with pytest.raises(ValueError, match="found NaN or infinite values in 1 cells \\(first: 'cell17'\\)"):
        st.pp.spatial_weights(slide)


def test_coordinates_of_one_column(line):
    line.obsm["spatial"] = line.obsm["spatial"][:, :1]
    with pytest.raises(ValueError, match="2 or 3 columns"):
        st.pp.spatial_weights(line)


def test_missing_slide_labels(slide):
    slide.obs["half"] = slide.obs["half"].where(np.arange(200) > 3)
    with pytest.raises(ValueError, match="found 4 without a label"):
        st.pp.spatial_weights(slide, library_key="half")


def test_a_graph_with_bad_distances(slide):
    slide.obsp["graph"] = -np.eye(200)
    with pytest.raises(ValueError, match="finite distances of at least zero"):
        st.pp.spatial_weights(slide, connectivity_key="graph")


def test_duplicate_names_and_wrong_types(slide):
    slide.obs_names = ["same"] * 2 + list(slide.obs_names[2:])
    with pytest.raises(ValueError, match="obs_names_make_unique"):
        st.pp.spatial_weights(slide)
    with pytest.raises(TypeError, match="AnnData or SpatialData"):
        st.pp.spatial_weights(np.zeros((3, 2)))
