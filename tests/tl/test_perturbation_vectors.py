"""Arrows of a perturbation."""

from __future__ import annotations

import numpy as np
import pytest

import spacetravlr as st


@pytest.fixture
def perturbed(adata):
    st.tl.perturb(adata, "FOXO1")
    return adata


def test_two_keys_are_written(perturbed):
    keys = (set(perturbed.obsm), set(perturbed.obsp), set(perturbed.uns), set(perturbed.layers))
    assert st.tl.perturbation_vectors(perturbed, n_neighbors=12) is None
    transitions, arrows = perturbed.obsp["perturbed_transitions"], perturbed.obsm["perturbed_spatial"]
    assert (set(perturbed.obsm) - keys[0], set(perturbed.obsp) - keys[1]) == (
        {"perturbed_spatial"},
        {"perturbed_transitions"},
    )
    assert (set(perturbed.uns), set(perturbed.layers)) == keys[2:]
    assert transitions.nnz <= 150 * 12
    assert transitions.dtype == arrows.dtype == np.float32
    np.testing.assert_allclose(np.asarray(transitions.sum(axis=1)).ravel(), 0, atol=1e-5)
    assert np.abs(arrows).max() > 0.05


def test_other_embeddings_and_keys(perturbed):
    perturbed.obsm["X_umap"] = np.random.default_rng(0).normal(size=(150, 2))
    out = st.tl.perturbation_vectors(perturbed, basis="umap", key_added="ko", copy=True)
    assert out.obsm["ko_umap"].shape == (150, 2)
    assert "ko_transitions" in out.obsp
    assert "ko_umap" not in perturbed.obsm
    perturbed.obsm["spatial"] = np.column_stack([perturbed.obsm["spatial"], np.arange(150.0)])
    st.tl.perturbation_vectors(perturbed)
    assert perturbed.obsm["perturbed_spatial"].shape == (150, 3)


def test_seeds_and_threads(perturbed):
    def run(**kwargs):
        return st.tl.perturbation_vectors(perturbed, copy=True, **kwargs).obsm["perturbed_spatial"]

    np.testing.assert_array_equal(run(rng=1, n_jobs=1), run(rng=1, n_jobs=2))
    assert np.abs(run(rng=1) - run(rng=2)).max() > 1e-3
    np.testing.assert_array_equal(run(rng=np.random.default_rng(1)), run(rng=1))
    np.testing.assert_array_equal(run(rng=1, subtract="zero"), run(rng=2, subtract="zero"))


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_two_seeds_give_nearly_the_same_arrows(perturbed):
    first, second = (
        st.tl.perturbation_vectors(perturbed, rng=rng, copy=True).obsm["perturbed_spatial"] for rng in (1, 2)
    )
    assert correlation(first, second) > 0.95


def test_the_order_of_cells_and_genes_does_not_matter(perturbed):
    rng = np.random.default_rng(0)
    cells, genes = rng.permutation(perturbed.n_obs), rng.permutation(perturbed.n_vars)
    moved = perturbed[cells, genes].copy()
    for adata in (perturbed, moved):
        st.tl.perturbation_vectors(adata)
    np.testing.assert_allclose(moved.obsm["perturbed_spatial"], perturbed.obsm["perturbed_spatial"][cells], atol=1e-5)


def test_arrows_are_as_long_as_the_effect_is_large(adata):
    lengths = {}
    for dose in (0.9, 0.3):
        st.tl.perturb(adata, fold={"FOXO1": dose}, cells="cell_type == 'B'", n_propagation=1)
        for scale in ("effect", "unit"):
            arrows = st.tl.perturbation_vectors(adata, scale=scale, copy=True).obsm["perturbed_spatial"]
            lengths[dose, scale] = np.linalg.norm(arrows, axis=1)
    other = (adata.obs["cell_type"] != "B").to_numpy()
    for length in lengths.values():
        assert not length[other].any()  # FOXO1 is no ligand: one round later nothing has changed there
        assert length[~other].max() > 0
    change = adata.layers["perturbed"] - adata.layers["log1p"]
    change[:, adata.var_names == "FOXO1"] = 0
    np.testing.assert_allclose(
        lengths[0.3, "effect"], lengths[0.3, "unit"] * np.linalg.norm(change, axis=1), rtol=1e-4, atol=1e-6
    )
    assert lengths[0.3, "effect"].sum() > 4 * lengths[0.9, "effect"].sum()


def test_genes_set_by_hand_are_left_out(adata):
    with pytest.warns(UserWarning, match="affects no other gene"):
        st.tl.perturb(adata, "TUBB")
    with pytest.warns(UserWarning, match="changes no gene except the perturbed ones"):
        st.tl.perturbation_vectors(adata)
    assert not adata.obsm["perturbed_spatial"].any()
    st.tl.perturbation_vectors(adata, include_perturbed=True)
    assert adata.obsm["perturbed_spatial"].any(axis=1).mean() > 0.9


def test_genes_without_a_model_may_hold_anything(perturbed):
    expected = st.tl.perturbation_vectors(perturbed[:, perturbed.var_names != "TUBB"].copy(), copy=True)
    for layer in ("log1p", "perturbed"):
        perturbed.layers[layer][5, perturbed.var_names.get_loc("TUBB")] = np.nan
    st.tl.perturbation_vectors(perturbed)
    np.testing.assert_allclose(perturbed.obsm["perturbed_spatial"], expected.obsm["perturbed_spatial"], atol=1e-5)


def test_moving_and_turning_the_tissue_turns_the_arrows(perturbed):
    arrows = st.tl.perturbation_vectors(perturbed, subtract="zero", copy=True).obsm["perturbed_spatial"]
    turn = np.array([[0, -1], [1, 0]])
    perturbed.obsm["spatial"] = perturbed.obsm["spatial"] @ turn.T * 3 + 100
    turned = st.tl.perturbation_vectors(perturbed, subtract="zero", copy=True).obsm["perturbed_spatial"]
    np.testing.assert_allclose(turned, arrows @ turn.T, atol=1e-4)


def test_no_arrow_crosses_from_one_slide_to_another(perturbed):
    perturbed.obs["slide"] = np.where(np.arange(150) < 70, "a", "b")
    st.tl.perturbation_vectors(perturbed, library_key="slide", n_neighbors=10)
    transitions = perturbed.obsp["perturbed_transitions"]
    assert transitions[:70, 70:].nnz == transitions[70:, :70].nnz == 0
    perturbed.uns["spatial_weights"]["library_key"] = "slide"
    again = st.tl.perturbation_vectors(perturbed, n_neighbors=10, copy=True).obsp["perturbed_transitions"]
    np.testing.assert_array_equal(again.toarray(), transitions.toarray())


def test_messages(adata, perturbed):
    with pytest.raises(KeyError, match=r"Key .*ko.* not found.*st.tl.perturb"):
        st.tl.perturbation_vectors(perturbed, perturbed_key="ko")
    with pytest.raises(KeyError, match=r"Key .*X_umap.* not found.*sc.tl.umap"):
        st.tl.perturbation_vectors(perturbed, basis="umap")
    with pytest.raises(ValueError, match="Expected `subtract` to be one of"):
        st.tl.perturbation_vectors(perturbed, subtract="random")
    with pytest.raises(ValueError, match="Expected `temperature` to be positive"):
        st.tl.perturbation_vectors(perturbed, temperature=0)
    with pytest.raises(ValueError, match="Expected `n_neighbors` to be at least 1"):
        st.tl.perturbation_vectors(perturbed, n_neighbors=0)
    with pytest.raises(ValueError, match="Expected `n_shuffles` to be at least 1"):
        st.tl.perturbation_vectors(perturbed, n_shuffles=0)
    with pytest.raises(ValueError, match="Expected `scale` to be one of"):
        st.tl.perturbation_vectors(perturbed, scale="effects")
    broken = perturbed.copy()
    broken.layers["perturbed"][3, broken.var_names.get_loc("CD79A")] = np.nan
    with pytest.raises(ValueError, match="infinite values of 'CD79A' .first in cell 'cell003'"):
        st.tl.perturbation_vectors(broken)
    perturbed.layers["perturbed"] = perturbed.layers["log1p"].copy()
    with pytest.warns(UserWarning, match="changes no gene"):
        st.tl.perturbation_vectors(perturbed)
    assert not perturbed.obsm["perturbed_spatial"].any()
    perturbed.obsm["spatial"][3, 0] = np.nan
    with pytest.raises(ValueError, match="to be finite"):
        st.tl.perturbation_vectors(perturbed)
