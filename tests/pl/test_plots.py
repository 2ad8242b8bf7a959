"""Every plot draws what it says, on the axes it is given, and leaves the data alone."""

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import spacetravlr as st


@pytest.fixture(scope="module")
def done(_tissue):
    """The tissue after a perturbation of some cells, with arrows on the tissue and on an embedding."""
    adata = _tissue.copy()
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(adata.n_obs, 2)).astype(np.float32)
    xy = adata.obsm["spatial"]
    near = np.linalg.norm(xy - xy.mean(axis=0), axis=1) < 40
    st.tl.perturb(adata, {"FOXO1": 0, "CXCL12": "max"}, cells=near)
    for basis in ("spatial", "umap"):
        st.tl.perturbation_vectors(adata, basis=basis, n_neighbors=20)
    return adata


@pytest.fixture(scope="module")
def screen(_tissue):
    return st.tl.genome_screen(_tissue, save_to=None, genes=["FOXO1", "STAT3", "IRF4", "CXCL12", "CXCR4"])


DRAWINGS = {
    "kernel": lambda a, **k: st.pl.spatial_weights(a, **k),
    "neighbours": lambda a, **k: st.pl.spatial_weights(a, a.obs_names[100], **k),
    "contact": lambda a, **k: st.pl.spatial_weights(a, a.obs_names[100], signal_range="contact", **k),
    "received": lambda a, **k: st.pl.received_ligands(a, "CXCL12", **k),
    "niche": lambda a, **k: st.pl.niche(a, a.obs_names[100], **k),
    "betas": lambda a, **k: st.pl.betas(a, "PAX5", "FOXO1", **k),
    "modulators": lambda a, **k: st.pl.modulators(a, "PAX5", "B cell", **k),
    "scores": lambda a, **k: st.pl.scores(a, **k),
    "training": lambda a, **k: st.pl.training(a, **k),
    "change": lambda a, **k: st.pl.perturbation(a, "PAX5", **k),
    "distance": lambda a, **k: st.pl.perturbation(a, kind="distance", **k),
    "quiver": lambda a, **k: st.pl.perturbation_vectors(a, **k),
    "stream": lambda a, **k: st.pl.perturbation_vectors(a, kind="stream", **k),
    "cells": lambda a, **k: st.pl.perturbation_vectors(a, kind="cells", color=None, **k),
    "umap": lambda a, **k: st.pl.perturbation_vectors(a, "umap", **k),
}


def _fingerprint(adata):
    parts = [np.asarray(adata.X).sum(), tuple(adata.obs.columns), tuple(adata.var.columns)]
    for container in (adata.layers, adata.obsm, adata.obsp, adata.uns):
        parts.append(frozenset(container))  # anndata 0.13 has X among the layers, as None
    parts.extend(float(np.abs(adata.obsm[k]).sum()) for k in sorted(adata.obsm))
    parts.append(tuple(adata.uns.get("cell_type_colors", ())))
    return parts


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_on_the_axes_given(done, name):
    before = _fingerprint(done)
    figure, (left, right) = plt.subplots(1, 2)
    returned = DRAWINGS[name](done, ax=left, title="a title of its own")
    assert returned is left
    assert left.get_title() == "a title of its own"
    assert left.has_data()
    assert not right.has_data()
    assert plt.get_fignums() == [figure.number]
    assert _fingerprint(done) == before


@pytest.mark.parametrize("name", DRAWINGS)
def test_makes_one_figure(done, name, tmp_path):
    path = tmp_path / "figure.png"
    figure = DRAWINGS[name](done, return_fig=True, save=path, figsize=(3, 2.5))
    assert isinstance(figure, Figure)
    assert tuple(figure.get_size_inches()) == (3, 2.5)
    assert path.stat().st_size > 1000
    assert plt.get_fignums() == [figure.number]


def test_last_parameters_are_the_same_everywhere():
    for name in st.pl.__all__:
        parameters = list(inspect.signature(getattr(st.pl, name)).parameters.values())
        assert [p.name for p in parameters[-5:]] == ["ax", "figsize", "title", "return_fig", "save"], name
        assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) <= 3, name


@pytest.mark.parametrize("kind", ["heatmap", "ranking"])
@pytest.mark.parametrize("cell_type", [None, "T cell"])
def test_screen(screen, kind, cell_type):
    ax = plt.subplots()[1]
    assert st.pl.screen(screen, kind=kind, cell_type=cell_type, ax=ax) is ax
    assert (cell_type or "all cells") in ax.get_title()
    labels = {t.get_text() for t in ax.get_yticklabels()}
    assert "FOXO1" in labels


def test_screen_shows_changes_in_standard_deviations(screen):
    ax = st.pl.screen(screen)
    drawn = ax.images[0].get_array()
    row = [t.get_text() for t in ax.get_yticklabels()].index("FOXO1")
    column = [t.get_text() for t in ax.get_xticklabels()].index("PAX5")
    expected = screen["FOXO1", "PAX5"].X.item() / screen.var.loc["PAX5", "sd"]
    assert drawn[row, column] == pytest.approx(expected, rel=1e-5)
    low, high = ax.images[0].get_clim()
    assert low == -high < 0


def test_betas_map_shows_the_coefficients(adata):
    ax = st.pl.betas(adata, "PAX5", "FOXO1")
    drawn = np.asarray(ax.collections[-1].get_array())
    np.testing.assert_allclose(np.sort(drawn), np.sort(st.get.betas(adata, "PAX5")["beta_FOXO1"]), rtol=1e-6)
    low, high = ax.collections[-1].get_clim()
    assert low == -high < 0
    assert high <= np.abs(drawn).max()


def test_positions_are_in_micrometres(adata):
    adata.uns["spatial_weights"]["microns_per_unit"] = 0.5
    drawn = st.pl.betas(adata, "PAX5", "FOXO1").collections[-1].get_offsets()
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(adata.obsm["spatial"][:, 0] / 2))


def test_grid_of_maps(adata):
    panels = st.pl.betas(adata, "PAX5", n_top=4)
    assert len(panels) == 4
    assert all(isinstance(p, Axes) for p in panels)
    terms = adata.uns["betas"]["terms"].query("target == 'PAX5' and kind != 'intercept'")
    assert (
        terms.sort_values("importance").iloc[-1]["tf"] in panels[0].get_title()
        or "\N{EN DASH}" in panels[0].get_title()
    )
    with pytest.raises(ValueError, match="Expected `ax` to be 4 axes"):
        st.pl.betas(adata, "PAX5", n_top=4, ax=plt.subplots(1, 2)[1])


def test_slides_are_set_side_by_side(slides):
    both = st.pl.betas(slides, "PAX5", "FOXO1")
    assert {t.get_text() for t in both.texts} >= {"slide 1", "slide 2"}
    x = np.sort(np.asarray(both.collections[-1].get_offsets())[:, 0])
    assert np.diff(x).argmax() == 99  # the gap between two slides of 100 cells
    one = st.pl.betas(slides, "PAX5", "FOXO1", library_id="slide 2")
    assert len(one.collections[-1].get_offsets()) == 100
    with pytest.raises(ValueError, match="library_id"):
        st.pl.betas(slides, "PAX5", "FOXO1", library_id="slide 3")


def test_neighbours_have_the_stored_weights(adata):
    cell = adata.obs_names[100]
    stored = adata.obsp["contact_weights"][100].toarray().ravel()
    for drop in (False, True):  # without stored weights the kernel itself is drawn
        if drop:
            del adata.obsp["contact_weights"]
        ax = st.pl.spatial_weights(adata, cell, signal_range="contact")
        drawn = np.ma.filled(ax.collections[-1].get_array(), np.nan)
        np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(stored[stored > 0]), rtol=1e-4)


def test_modulators_are_ranked(adata):
    ax = st.pl.modulators(adata, "PAX5", "all", n_top=5)
    length = [abs(p.get_width()) for p in ax.patches]
    assert len(length) == 5
    assert length == sorted(length, reverse=True)
    # the bar of a transcription factor is its mean coefficient times its spread
    label = next(t.get_text() for t in ax.get_yticklabels() if t.get_text() in adata.var_names)
    bar = ax.patches[[t.get_text() for t in ax.get_yticklabels()].index(label)]
    mean = st.get.betas(adata, "PAX5")[f"beta_{label}"].mean()
    assert bar.get_width() == pytest.approx(mean * adata[:, label].X.std(), rel=1e-4)
    assert len(st.pl.modulators(adata, "PAX5", value="importance")) == 4
    assert isinstance(st.pl.modulators(adata, "PAX5", "B cell", value="mean"), Axes)


def test_modulator_bars_of_pairs(adata):
    ax = st.pl.modulators(adata, "PAX5", "all", n_top=50)
    labels = [t.get_text() for t in ax.get_yticklabels()]
    terms = adata.uns["betas"]["terms"].query("target == 'PAX5' and active and kind == 'lr' and range == 'secreted'")
    row = terms.iloc[0]
    score = adata.uns["received_ligands"][row["ligand"]] * adata[:, row["receptor"]].X.ravel()
    mean = adata.obsm["betas"][:, int(row.name)].mean()
    width = ax.patches[labels.index(f"{row['ligand']}\N{EN DASH}{row['receptor']}")].get_width()
    assert width == pytest.approx(mean * score.std(ddof=0), rel=1e-3)


def test_distance_profile(done):
    ax = st.pl.perturbation(done, "PAX5", kind="distance")
    x, y = ax.lines[0].get_data()
    cells = done.uns["perturbed"]["cells"]
    change = (done[:, "PAX5"].layers["perturbed"] - done[:, "PAX5"].layers["log1p"]).ravel()
    assert x[0] == 0
    assert y[0] == pytest.approx(change[cells].mean(), rel=1e-5)
    assert (np.diff(x) > 0).all()


def test_map_circles_the_perturbed_cells(done):
    ax = st.pl.perturbation(done, "PAX5")
    assert len(ax.collections[-1].get_offsets()) == done.uns["perturbed"]["cells"].sum()


def test_scores_counts(adata):
    ax = st.pl.scores(adata)
    table = adata.uns["betas"]["scores"]
    better = (table["r2_surface"] > table["r2_seed"]).sum()
    assert f"surface: better in {better} of {len(table)}" in {t.get_text() for t in ax.get_legend().get_texts()}


def test_three_dimensions():
    adata = st.datasets.simulated_tissue(n_cells=60, n_dims=3)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"], layer="log1p")
    ax = st.pl.received_ligands(adata, ["DLL1"])
    assert len(ax.collections[-1].get_offsets()) == 60
    assert ax.get_title() == "DLL1 (contact)"


def test_colours_are_those_of_the_user(done):
    done = done.copy()
    done.uns["cell_type_colors"] = ["#010203", "#040506", "#070809", "#0a0b0c"]
    ax = st.pl.perturbation_vectors(done)
    rgb = {tuple(np.round(c[:3] * 255).astype(int)) for c in ax.collections[0].get_facecolors()}
    assert rgb == {(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)}
    del done.uns["cell_type_colors"]
    st.pl.perturbation_vectors(done)
    assert "cell_type_colors" not in done.uns


def test_errors_say_what_to_call(adata, done):
    empty = st.datasets.simulated_tissue(n_cells=30)
    calls = {
        r"st\.pp\.spatial_weights": lambda: st.pl.spatial_weights(empty),
        r"st\.pp\.received_ligands": lambda: st.pl.received_ligands(empty, "CXCL12"),
        r"st\.pp\.niche": lambda: st.pl.niche(empty, empty.obs_names[0]),
        r"st\.tl\.fit_betas": lambda: st.pl.betas(empty, "PAX5"),
        r"st\.tl\.perturb\(": lambda: st.pl.perturbation(empty),
        r"st\.tl\.perturbation_vectors": lambda: st.pl.perturbation_vectors(empty),
        r"st\.tl\.genome_screen": lambda: st.pl.screen(empty),
    }
    for match, call in calls.items():
        with pytest.raises(KeyError, match=match):
            call()
    with pytest.raises(KeyError, match="closest: FOXO1"):
        st.pl.betas(adata, "PAX5", "FOXO2")
    with pytest.raises(ValueError, match="kind"):
        st.pl.perturbation(done, kind="other")
    st.tl.perturb(adata, "FOXO1")
    with pytest.raises(ValueError, match="all cells were perturbed"):
        st.pl.perturbation(adata, kind="distance")
    del adata.uns["betas"]["training"]
    with pytest.raises(KeyError, match="cnn"):
        st.pl.training(adata)
    assert plt.get_fignums() == []
