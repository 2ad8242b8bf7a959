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
    perturbed.layers["perturbed"] = perturbed.layers["log1p"].copy()
    with pytest.warns(UserWarning, match="changes no gene"):
        st.tl.perturbation_vectors(perturbed)
    assert not perturbed.obsm["perturbed_spatial"].any()
    perturbed.obsm["spatial"][3, 0] = np.nan
    with pytest.raises(ValueError, match="to be finite"):
        st.tl.perturbation_vectors(perturbed)
