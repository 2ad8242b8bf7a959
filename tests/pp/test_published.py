from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

import spacetravlr as st


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    names = [f"cell{i}" for i in range(60)]
    ligands = pd.DataFrame(rng.gamma(1.0, 1.0, (60, 3)), index=names, columns=["A", "B", "C"])
    return rng.uniform(0, 400, (60, 2)), ligands


def test_compute_radius_weights_cell_by_cell(tables):
    """As the published code has it: one origin after the other, averaged over all cells."""
    xy, ligands = tables
    expected = np.array([(st.gaussian_kernel_2d(o, xy, 150.0)[:, None] * ligands.to_numpy()).mean(axis=0) for o in xy])
    found = st.compute_radius_weights(xy, ligands, 150.0, normalize="mean", scale_factor=100)
    np.testing.assert_allclose(found, 100 * expected, rtol=1e-5)
    assert list(found.columns) == ["A", "B", "C"]
    assert found.index.equals(ligands.index)


def test_untruncated_kernel_with_sigma_equal_to_the_radius(tables):
    xy, ligands = tables
    expected = np.exp(-(cdist(xy, xy) ** 2) / (2 * 150.0**2)) @ ligands.to_numpy() / 60
    found = st.compute_radius_weights(xy, ligands, 150.0, sigma=150.0, truncate=False, normalize="mean")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_received_ligands_uses_the_radius_of_each_ligand(tables):
    xy, ligands = tables
    info = pd.DataFrame({"ligand": ["A", "B", "A", "Z"], "receptor": list("wxyz"), "radius": [200, 30, 30, 30]})
    found = st.received_ligands(xy, ligands, info)
    np.testing.assert_allclose(found["A"], st.compute_radius_weights(xy, ligands[["A"]], 200)["A"])
    np.testing.assert_allclose(found["B"], st.compute_radius_weights(xy, ligands[["B"]], 30)["B"])
    assert (found["C"] == 0).all()
    by_hand = st.received_ligands(xy, ligands, info, sigma=90.0, truncate=False)
    np.testing.assert_allclose(by_hand["A"], np.exp(-(cdist(xy, xy) ** 2) / (2 * 90.0**2)) @ ligands["A"], rtol=1e-5)
    with pytest.raises(ValueError, match="'ligand' and 'radius'"):
        st.received_ligands(xy, ligands, info[["ligand"]])


def test_init_received_ligands_is_the_two_steps_in_one(slide, slide_pairs, unchanged):
    check = unchanged(slide)
    with pytest.raises(ValueError, match="none in"):
        st.init_received_ligands(
            slide, pd.DataFrame({"ligand": ["X"], "receptor": ["Y"], "range": ["secreted"]}), radius=80
        )
    check(slide)
    st.init_received_ligands(slide, slide_pairs, radius=80, contact_distance=30, layer="scaled")
    twin = slide.copy()
    st.pp.spatial_weights(twin, radius=80, contact_radius=30)
    st.pp.received_ligands(twin, slide_pairs, layer="scaled")
    for key in ("received_ligands", "received_ligands_tfl"):
        pd.testing.assert_frame_equal(slide.uns[key], twin.uns[key])
    assert slide.uns["received_ligands_params"]["layer"] == "scaled"
    assert slide.uns["spatial_weights"] == twin.uns["spatial_weights"]
    assert (slide.obsp["contact_weights"] != twin.obsp["contact_weights"]).nnz == 0
    with pytest.raises(KeyError, match="nope"):
        st.init_received_ligands(slide, slide_pairs, layer="nope")


def test_interactions_are_products(tables):
    _, ligands = tables
    receptors = pd.DataFrame(np.arange(180.0).reshape(60, 3), index=ligands.index, columns=["R1", "R2", "R1"])
    pairs = st.ligands_receptors_interactions(ligands, receptors.iloc[::-1])  # rows are matched by name
    assert list(pairs.columns) == ["A$R1", "B$R2", "C$R1"]
    np.testing.assert_allclose(pairs, ligands.to_numpy() * receptors.to_numpy())
    terms = st.ligand_regulators_interactions(ligands, receptors)
    assert list(terms.columns) == ["A#R1", "B#R2", "C#R1"]
    np.testing.assert_allclose(terms, pairs)


def test_interactions_need_the_same_cells_and_number(tables):
    _, ligands = tables
    with pytest.raises(ValueError, match="one column for each of the 3"):
        st.ligands_receptors_interactions(ligands, ligands[["A"]])
    with pytest.raises(ValueError, match="other cells"):
        st.ligand_regulators_interactions(ligands, ligands.rename(index=lambda name: f"x{name}"))


def test_radius_weights_need_the_same_cells(tables):
    xy, ligands = tables
    with pytest.raises(ValueError, match="found 59 and 60 rows"):
        st.compute_radius_weights(xy[1:], ligands, 10.0)
    with pytest.raises(ValueError, match="`radius`"):
        st.compute_radius_weights(xy, ligands, -1.0)
    xy[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        st.compute_radius_weights(xy, ligands, 10.0)
