"""What coefficients were fitted on is compared with what lies there when they are used."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import spacetravlr as st


@pytest.fixture(scope="module")
def _seeds():
    adata = st.datasets.simulated_tissue(
        n_cells=150, n_cell_types=2, n_targets=2, n_tfs=4, n_active_tfs=3, n_pairs=4, n_active_pairs=3,
        n_contact_pairs=1, n_ligand_tf=0, n_active_ligand_tf=0, rng=1,
    )  # fmt: skip
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn)
    st.tl.fit_betas(adata, body="seed", n_jobs=1)
    return adata


@pytest.fixture
def fitted(_seeds):
    return _seeds.copy()


def use(adata):
    """Everything that evaluates coefficients."""
    target = str(adata.uns["betas"]["terms"]["target"].iloc[0])
    yield lambda: st.tl.perturb(adata, "FOXO1", copy=True)
    yield lambda: st.tl.perturb_batch(adata, ["FOXO1"])
    yield lambda: st.tl.genome_screen(adata, genes=["FOXO1"])
    yield lambda: st.get.derivatives(adata, target)


def receive(adata, **options):
    _, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, **{"layer": "log1p", **options})


def smooth(adata):
    adata.layers["log1p"] = adata.layers["log1p"] * 0.9 + adata.layers["log1p"].mean(axis=0) * 0.1


def move(adata):
    adata.obsm["spatial"] = adata.obsm["spatial"] * 1.3
    st.pp.spatial_weights(adata)
    receive(adata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: st.pp.spatial_weights(a, radius=50), r"found radius=50.0 \(200.0 in the fit\)"),
        (lambda a: st.pp.spatial_weights(a, contact_radius=40), r"found contact_radius=40.0 \(30.0 in the fit\)"),
        (lambda a: st.pp.spatial_weights(a, autocrine=False), r"found autocrine=False \(True in the fit\)"),
        (lambda a: receive(a, normalize="mean"), r"found normalize='mean' \('sum' in the fit\)"),
        (move, r"found secreted signals that differ by .*call `st.pp.spatial_weights`"),
        (smooth, r"adata.layers\['log1p'\] to be what the coefficients were fitted on, found .* of 150 cells"),
    ],
    ids=["radius", "contact radius", "autocrine", "normalize", "coordinates", "layer"],
)
def test_whatever_changed_since_is_refused(fitted, change, message):
    change(fitted)
    for call in use(fitted):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_same_tissue_in_another_order_or_form_passes(fitted, tmp_path):
    expected = st.GeneFactory(fitted).perturb("FOXO1").to_frame()
    rng = np.random.default_rng(0)
    moved = fitted[rng.permutation(fitted.n_obs), rng.permutation(fitted.n_vars)].copy()
    renamed = fitted.copy()
    renamed.obs_names = [f"other {i}" for i in range(renamed.n_obs)]
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    again = fitted.copy()
    st.pp.spatial_weights(again, method="grid")
    for adata in (moved, renamed, ad.read_h5ad(tmp_path / "fitted.h5ad"), again):
        found = st.GeneFactory(adata).perturb("FOXO1").to_frame()
        if adata is renamed:
            found.index = expected.index
        np.testing.assert_allclose(found.loc[expected.index, expected.columns], expected, atol=2e-3)


def test_a_subset_is_told_what_it_lost(fitted):
    part = fitted[fitted.obs["cell_type"] == fitted.obs["cell_type"].iloc[0]].copy()
    with pytest.warns(UserWarning, match=r"of the 150 cells of the fit are missing, and with them \d+.\d% of the sec"):
        st.tl.perturb(part, "FOXO1")
    smooth(part)
    with pytest.raises(ValueError, match="to be what the coefficients were fitted on"):
        st.tl.perturb(part, "FOXO1")


def test_signals_that_a_user_asks_for_are_warned_of(fitted):
    st.pp.spatial_weights(fitted, radius=100, key_added="near")
    receive(fitted, weights_key="near", key_added="near_ligands")
    with pytest.warns(UserWarning, match="received_key='received_ligands', but are used with received_key='near"):
        st.tl.perturb(fitted, "FOXO1", received_key="near_ligands")
    st.tl.perturb(fitted, "FOXO1", baseline_layer="log1p", received_key="received_ligands")


def test_another_baseline_is_on_the_same_scale(fitted):
    fitted.layers["denoised"] = 0.5 * fitted.layers["log1p"] + 0.5 * fitted.layers["log1p"].mean(axis=0)
    st.tl.perturb(fitted, "FOXO1", baseline_layer="denoised")
    assert fitted.uns["perturbed"]["layer"] == "denoised"
    changed = fitted.layers["perturbed"] != fitted.layers["denoised"]
    assert set(fitted.var_names[changed.any(axis=0)]) >= {"FOXO1"}
    untouched = ~changed.any(axis=0)
    assert untouched.any()
    table = st.get.perturbation_effect(fitted).query("group == 'all'").set_index("gene")
    expected = (fitted.layers["perturbed"] - fitted.layers["denoised"]).mean(axis=0)
    np.testing.assert_allclose(table.loc["PAX5", "change"], expected[fitted.var_names.get_loc("PAX5")], rtol=1e-4)
    fitted.layers["linear"] = np.expm1(fitted.layers["log1p"])
    for call in (
        lambda: st.tl.perturb(fitted, "FOXO1", baseline_layer="linear"),
        lambda: st.tl.genome_screen(fitted, genes=["FOXO1"], baseline_layer="linear", show_progress_bar=False),
        lambda: st.tl.drivers(fitted, "PAX5", baseline_layer="linear"),
    ):
        with pytest.raises(ValueError, match="`baseline_layer` to be on the scale of the fit, found that .*linear"):
            call()
    with pytest.raises(KeyError, match="nothing"):
        st.tl.perturb(fitted, "FOXO1", baseline_layer="nothing")


def test_a_table_in_another_order_is_refused(fitted):
    fitted.uns["betas"]["terms"] = fitted.uns["betas"]["terms"].sort_values("importance", ascending=False)
    with pytest.raises(ValueError, match="to be as the fit wrote it, found other rows or another order"):
        st.get.betas(fitted, "PAX5")


def test_joined_fits_do_not_lend_each_other_their_tables(fitted):
    other = fitted.copy()
    other.obs_names = [f"b {name}" for name in other.obs_names]
    other.uns["betas"]["terms"] = other.uns["betas"]["terms"].iloc[::-1]
    joined = ad.concat([fitted, other], uns_merge="first")
    for call in (lambda: st.get.betas(joined, "PAX5"), lambda: st.tl.perturb(joined, "FOXO1")):
        with pytest.raises(ValueError, match="found 150 of 300 cells that were not in the fit .first: 'b "):
            call()
    with pytest.raises(KeyError, match="Table 'terms' not found in adata.uns"):
        st.get.betas(ad.concat([fitted, other], uns_merge="same"), "PAX5")


def test_nan_in_coefficients_and_signals_is_named(fitted):
    broken = fitted.copy()
    broken.obsm["betas"] = np.array(broken.obsm["betas"])
    broken.obsm["betas"][3:8] = np.nan
    for call in list(use(broken))[:3]:
        with pytest.raises(ValueError, match=r"coefficients to be finite, .* in 5 cells \(first: cell 3 "):
            call()
    fitted.uns["received_ligands"] = fitted.uns["received_ligands"].copy()
    fitted.uns["received_ligands"].iloc[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"adata.uns\['received_ligands'\] to be finite, found .* in 1 cells"):
        st.tl.fit_betas(fitted, body="seed")


def test_genes_outside_the_model_may_hold_anything(fitted):
    outside = fitted.var_names.get_loc("ACTB")
    expected = st.GeneFactory(fitted).perturb("FOXO1").change
    fitted.layers["log1p"] = np.array(fitted.layers["log1p"])
    fitted.layers["log1p"][5, outside], fitted.layers["log1p"][6, outside] = np.nan, -3.0
    np.testing.assert_array_equal(st.GeneFactory(fitted).perturb("FOXO1").change, expected)
    with pytest.raises(ValueError, match="to be finite, found NaN or infinite values: 1 values of 'ACTB'"):
        st.tl.perturb(fitted, "ACTB")


def test_ligands_received_from_other_expression_than_the_fit_reads(fitted):
    fitted.layers["same"] = fitted.layers["log1p"].copy()
    fitted.layers["other"] = fitted.layers["log1p"] * 0.5
    with pytest.raises(
        ValueError, match=r"found adata.layers\['other'\], which has other values; call `st.pp.received_ligands"
    ):
        st.tl.fit_betas(fitted, body="seed", layer="other")
    st.tl.fit_betas(fitted, body="seed", layer="same", n_jobs=1)
