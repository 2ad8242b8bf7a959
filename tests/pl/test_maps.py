"""Maps on tissues of odd shapes, sizes and dimensions: nothing overlaps, nothing is where there is no tissue."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import Normalize
from scipy.spatial import cKDTree

import spacetravlr as st
from spacetravlr.pl._colors import centred
from spacetravlr.pl._tissue import RASTERIZE_ABOVE, Layout, draw_values
from spacetravlr.pl._vectors import KEY

SHAPES = {"a strip": (100, 2000), "a ribbon": (2000, 100), "a square": (500, 500)}


@pytest.fixture
def shaped(adata):
    def make(width, height):
        xy = adata.obsm["spatial"]
        adata.obsm["spatial"] = (xy - xy.min(axis=0)) / np.ptp(xy, axis=0) * [width, height]
        return adata

    return make


@pytest.mark.parametrize("shape", SHAPES)
def test_titles_and_colour_bars_do_not_overlap(shaped, shape):
    tissue = shaped(*SHAPES[shape])
    named = st.get.modulators(tissue, target="PAX5").query("cell_type == 'all'")
    longest = named.loc[named["label"].str.len().sort_values().index[::-1], "label"].head(4).tolist()
    assert any("(contact)" in label for label in longest)
    figure = st.pl.betas(tissue, "PAX5", longest, ncols=2 if shape == "a ribbon" else 4, return_fig=True)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    panels = figure.get_axes()[:4]
    parts = []
    for panel in panels:
        (bar,) = panel.child_axes
        title, drawn = panel.title.get_window_extent(renderer), panel.get_window_extent(renderer)
        colour = bar.get_tightbbox(renderer)
        assert bar.get_window_extent(renderer).width > 0.08 * figure.dpi
        assert bar.get_window_extent(renderer).height > 0.4 * figure.dpi
        assert not drawn.overlaps(colour)
        assert not title.overlaps(colour)
        parts += [(panel, title), (panel, drawn), (panel, colour)]
    for (a, one), (b, other) in combinations(parts, 2):
        assert a is b or not one.overlaps(other), (shape, a.get_title(), b.get_title())


def test_one_colour_scale_for_all_panels(adata):
    def limits(**options):
        panels = st.pl.betas(adata, "PAX5", n_top=3, **options)
        return [panel.collections[-1].get_clim() for panel in panels]

    assert len(set(limits(value="effect", share_limit=True))) == 1
    assert len(set(limits(value="effect"))) == 3


def test_effects_are_coefficients_per_standard_deviation(adata):
    table = st.get.modulators(adata, target="PAX5", effects=True).query("cell_type == 'all'")
    chosen = table.iloc[::8]
    for ax, effect in zip(
        st.pl.betas(adata, "PAX5", list(chosen["label"]), value="effect"), chosen["effect"], strict=True
    ):
        drawn = np.asarray(ax.collections[-1].get_array())
        assert drawn.mean() == pytest.approx(effect, rel=1e-4, abs=1e-9)
    assert "per SD" in ax.child_axes[0].get_ylabel()
    with pytest.raises(ValueError, match="value"):
        st.pl.betas(adata, "PAX5", "FOXO1", value="mean")


def test_limits_may_be_percentiles():
    values = np.concatenate([np.linspace(-1, 1, 101), [50.0]])
    assert centred(values, "p50").vmax == pytest.approx(np.quantile(np.abs(values), 0.5))
    assert centred(values).vmax == centred(values, "p99").vmax
    assert centred(values, 3).vmin == -3
    for wrong in ("99", "p0", "p101", "px"):
        with pytest.raises(ValueError, match="percentile such as"):
            centred(values, wrong)
    with pytest.raises(ValueError, match="positive"):
        centred(values, -1)


def test_colour_bars_are_pointed_where_values_lie_beyond(adata):
    ax = st.pl.betas(adata, "PAX5", "FOXO1")
    assert ax.collections[-1].colorbar.extend != "neither"
    ax = st.pl.betas(adata, "PAX5", "FOXO1", limit="p100")
    assert ax.collections[-1].colorbar.extend == "neither"


@pytest.mark.parametrize("n", [RASTERIZE_ABOVE, RASTERIZE_ABOVE + 1])
def test_large_tissue_is_pixels_in_vector_graphics(n, tmp_path):
    xy = np.random.default_rng(0).uniform(0, 1000, (n, 2))
    figure, ax = plt.subplots(figsize=(3, 3))
    draw_values(
        xy[:, 0], ax, layout=Layout(xy, np.arange(n), [], "µm"), label="x", cmap="viridis", norm=Normalize(0, 1e3)
    )
    assert bool(ax.collections[-1].get_rasterized()) == (n > RASTERIZE_ABOVE)


def test_three_dimensions_say_so():
    adata = st.datasets.simulated_tissue(n_cells=80, n_dims=3)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"], layer="log1p")
    st.pp.niche(adata, radius=60)
    for ax in (st.pl.received_ligands(adata, "DLL1"), st.pl.niche(adata), st.pl.niche(adata, adata.obs_names[3])):
        assert "z projected" in [text.get_text() for text in ax.texts]
    adata.obsm["spatial"][:, 2] = 5.0  # a section in three columns
    assert "z projected" not in [text.get_text() for text in st.pl.niche(adata).texts]


def test_names_of_slides_are_below_the_title(slides):
    ax = st.pl.betas(slides, "PAX5", "FOXO1")
    ax.figure.canvas.draw()
    title = ax.title.get_window_extent()
    names = [text.get_window_extent() for text in ax.texts if text.get_text().startswith("slide")]
    assert len(names) == 2
    assert not any(title.overlaps(name) for name in names)


# --- niche


def test_niche_map_is_the_share_among_neighbours(adata):
    counts = adata.obsm["niche_composition"].astype(float)
    types = list(adata.uns["niche_composition"]["cell_types"])
    own = adata.obs["cell_type"].map({t: i for i, t in enumerate(types)}).to_numpy(int)
    counts[np.arange(adata.n_obs), own] -= 1
    share = counts / counts.sum(axis=1, keepdims=True)
    b_cells, mixing = st.pl.niche(adata, color=["B cell", "entropy"])
    drawn = np.asarray(b_cells.collections[-1].get_array())
    np.testing.assert_allclose(np.sort(drawn), np.sort(share[:, types.index("B cell")]), atol=1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(share * np.log2(share), axis=1)
    np.testing.assert_allclose(np.sort(mixing.collections[-1].get_array()), np.sort(entropy), atol=1e-9)
    with pytest.raises(ValueError, match="`color` to be one of"):
        st.pl.niche(adata, color="T")


def test_cells_without_neighbours_are_grey(adata):
    adata.obsm["spatial"][0] = [5000, 5000]
    st.pp.niche(adata, radius=100)
    drawn = st.pl.niche(adata).collections[-1].get_array()
    assert np.ma.masked_invalid(drawn).count() == adata.n_obs - 1


def test_niche_of_a_cell_has_the_circles_of_the_kernels(adata):
    ax = st.pl.niche(adata, "cell100")
    weights, radius = adata.uns["spatial_weights"], adata.uns["niche_composition"]["radius"]
    assert [patch.get_radius() for patch in ax.patches] == [radius, weights["radius"], weights["contact_radius"]]
    relative = adata.obsm["spatial"] - adata["cell100"].obsm["spatial"]
    near = np.linalg.norm(relative, axis=1) <= radius
    counts = adata.obs["cell_type"][near].value_counts()
    counts[adata.obs.loc["cell100", "cell_type"]] -= 1
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert all(any(text.startswith(f"{name}: {n}") for text in texts) for name, n in counts.items())
    (bar,) = ax.child_axes
    heights = [patch.get_height() for patch in bar.patches]
    np.testing.assert_allclose(heights, counts[list(adata.uns["niche_composition"]["cell_types"])] / counts.sum())
    del adata.uns["spatial_weights"]
    assert len(st.pl.niche(adata, "cell100").patches) == 1


# --- arrows


def with_arrows(adata):
    st.tl.perturb(adata, "FOXO1")
    adata.obsm["perturbed_spatial"] = np.ones((adata.n_obs, 2), dtype=np.float32)
    return adata


def test_no_arrow_outside_the_tissue_nor_between_slides(slides):
    slides = with_arrows(slides.copy())
    xy = slides.obsm["spatial"]
    middle = xy.mean(axis=0)
    hole = np.linalg.norm(xy - middle, axis=1) < 0.35 * np.ptp(xy, axis=0).max()
    slides = slides[~hole].copy()
    ax = st.pl.perturbation_vectors(slides, n_grid=15)
    cells = np.concatenate([c.get_offsets() for c in ax.collections[:-1]])
    starts = np.asarray(ax.collections[-1].get_offsets())
    step = (
        max(np.ptp(slides.obsm["spatial"][slides.obs["slide"] == s], axis=0).max() for s in ("slide 1", "slide 2")) / 14
    )
    assert cKDTree(cells).query(starts)[0].max() <= 0.5 * step + 1e-6
    assert len(starts) > 20


def test_arrows_average_one_slide_only(slides):
    slides = with_arrows(slides.copy())
    right = (slides.obs["slide"] == "slide 2").to_numpy()
    slides.obsm["perturbed_spatial"][right] *= -1
    drawn = st.pl.perturbation_vectors(slides).collections[-1]
    np.testing.assert_allclose(np.abs(drawn.U), 1, rtol=1e-5)
    assert len(st.pl.perturbation_vectors(slides, kind="stream").collections) > 1


def test_arrows_have_a_key(adata):
    ax = st.pl.perturbation_vectors(with_arrows(adata))
    (key,) = (drawn for drawn in ax.collections if drawn.get_gid() == KEY)
    field = ax.collections[-1]
    assert "arrow length 1" in [text.get_text() for text in ax.texts]
    assert (key.U, key.scale) == (1, field.scale)


# --- perturbed cells


def test_one_perturbed_cell_is_seen_in_a_large_tissue():
    n = 6000
    cells = st.datasets.simulated_tissue(n_cells=n, n_targets=2, n_tfs=2, n_active_tfs=1, n_pairs=2, n_active_pairs=1,
                                         n_contact_pairs=1, n_ligand_tf=1, keep_truth=False)  # fmt: skip
    cells.obsm["spatial"] = np.random.default_rng(0).uniform(0, 3000, (n, 2))
    change = np.zeros(cells.shape, dtype=np.float32)
    change[:, cells.var_names.get_loc("PAX5")] = 0.1
    cells.layers["perturbed"] = cells.layers["log1p"] + change
    perturbed = np.arange(n) == 17
    table = cells.obs[[]].assign(perturbed=perturbed)
    cells.uns["perturbed"] = {"cells": table, "layer": "log1p", "label": "FOXO1=0", "genes": ["FOXO1"]}
    ax = st.pl.perturbation(cells, "PAX5")
    ring = ax.collections[-1]
    np.testing.assert_allclose(ring.get_offsets(), cells.obsm["spatial"][[17]])
    assert np.sqrt(ring.get_sizes()[0]) > 7  # points
    assert "ringed: perturbed (1 cell)" in [text.get_text() for text in ax.texts]
    table["perturbed"] = cells.obsm["spatial"][:, 0] < 1000
    ax = st.pl.perturbation(cells, "PAX5")
    (area,) = ax.collections[-1].get_paths()
    within = area.contains_points(cells.obsm["spatial"])
    assert (within == table["perturbed"]).mean() > 0.99
    assert any(text.get_text().startswith("outlined: perturbed") for text in ax.texts)
