from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import spacetravlr as st
from spacetravlr._anndata._niche import read_niche


def test_five_cells_by_hand(line):
    st.pp.niche(line, radius=10)
    np.testing.assert_array_equal(line.obsm["niche_composition"], [[2, 0], [2, 1], [1, 2], [1, 2], [1, 1]])
    assert list(line.uns["niche_composition"]["cell_types"]) == ["A", "T/NK"]
    assert line.obsm["niche_composition"].dtype == np.float32


def test_slides_and_units_of_the_weights_are_taken_over(slide, unchanged):
    slide.obsm["spatial"] = slide.obsm["spatial"] * 2
    st.pp.spatial_weights(slide, radius=80, contact_radius=30, library_key="half", microns_per_unit=0.5)
    check = unchanged(slide)
    st.pp.niche(slide, radius=80)
    check(slide, new=["obsm/niche_composition", "uns/niche_composition"])
    library = slide.obs["half"].to_numpy()
    near = (cdist(slide.obsm["spatial"], slide.obsm["spatial"]) <= 160) & (library[:, None] == library[None, :])
    state = read_niche(slide)
    expected = near @ np.stack([slide.obs["cell_type"] == name for name in state.cell_types], axis=1).astype(float)
    np.testing.assert_array_equal(state.composition, expected)
    assert state.params["microns_per_unit"] == 0.5
    by_hand = st.pp.niche(slide, radius=80, microns_per_unit=1.0, library_key="", copy=True, key_added="n")
    assert by_hand.obsm["n"].sum() != expected.sum()
    check(slide, new=["obsm/niche_composition", "uns/niche_composition"])


def test_round_trip(slide, round_trip):
    st.pp.niche(slide, radius=80)
    back, before = read_niche(round_trip(slide)), read_niche(slide)
    np.testing.assert_array_equal(back.composition, before.composition)
    assert back.cell_types == before.cell_types == ["B", "T/NK", "stroma"]
    assert back.params == before.params


def test_threads_do_not_matter(slide):
    one, two = (st.pp.niche(slide, radius=80, n_jobs=n, copy=True).obsm["niche_composition"] for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_unused_types_are_no_columns(slide):
    some = slide[slide.obs["cell_type"] != "B"].copy()
    some.obs["cell_type"] = some.obs["cell_type"].cat.set_categories(["B", "T/NK", "stroma"])
    st.pp.niche(some)
    assert read_niche(some).cell_types == ["T/NK", "stroma"]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"cluster_key": "leiden"}, KeyError, "Key 'leiden' \\(`cluster_key`\\) not found in adata.obs"),
        ({"radius": -1}, ValueError, "`radius`"),
        ({"microns_per_unit": 0}, ValueError, "`microns_per_unit`"),
        ({"spatial_key": "xy"}, KeyError, "`spatial_key`"),
        ({"library_key": "xy"}, KeyError, "`library_key`"),
    ],
)
def test_bad_arguments(slide, unchanged, arguments, error, message):
    check = unchanged(slide)
    with pytest.raises(error, match=message):
        st.pp.niche(slide, **arguments)
    check(slide)
    with pytest.raises(KeyError, match="st.pp.niche"):
        read_niche(slide)


def test_cells_without_a_type(slide):
    slide.obs["cell_type"] = slide.obs["cell_type"].where(np.arange(200) > 0)
    with pytest.raises(ValueError, match="label every cell, found 1 without a label"):
        st.pp.niche(slide)
