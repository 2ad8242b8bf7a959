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
    "neighbours": lambda a, **k: st.pl.spatial_weights(a, "cell100", **k),
    "contact": lambda a, **k: st.pl.spatial_weights(a, "cell100", signal_range="contact", **k),
    "received": lambda a, **k: st.pl.received_ligands(a, "CXCL12", **k),
    "niche": lambda a, **k: st.pl.niche(a, "cell100", **k),
    "niche image": lambda a, **k: st.pl.niche(a, "cell100", kind="image", **k),
    "niche map": lambda a, **k: st.pl.niche(a, **k),
    "senders": lambda a, **k: st.pl.senders(a, "CXCL12", **k),
    "betas": lambda a, **k: st.pl.betas(a, "PAX5", "FOXO1", **k),
    "betas per SD": lambda a, **k: st.pl.betas(a, "PAX5", "FOXO1", value="effect", **k),
    "modulators": lambda a, **k: st.pl.modulators(a, "PAX5", "B cell", **k),
    "scores": lambda a, **k: st.pl.scores(a, **k),
    "scores ranked": lambda a, **k: st.pl.scores(a, kind="ranking", **k),
    "training": lambda a, **k: st.pl.training(a, **k),
    "violin": lambda a, **k: st.pl.perturbation_effects(a, "PAX5", kind="violin", **k),
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


def first_line(ax):
    return ax.get_title().splitlines()[0]


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


def test_microniches(adata):
    types = adata.obs["cell_type"].astype(str)
    adata.obs["cell_type"] = types.where(types != "T cell", "T/NK").astype("category")
    adata.uns["betas"]["scores"] = adata.uns["betas"]["scores"].replace({"cell_type": {"T cell": "T/NK"}})
    st.tl.microniches(adata, n_niches=2, n_draws=2)
    stored = adata.uns["microniches"]["niches"]
    figure, axes = plt.subplots(1, 2)
    before = _fingerprint(adata)
    returned = st.pl.microniches(adata, ax=axes, title="a title of its own")
    assert returned == list(axes)
    assert _fingerprint(adata) == before
    tissue, bars = axes
    assert [t.get_text() for t in bars.get_yticklabels()] == stored["niche"].tolist()
    np.testing.assert_allclose([b.get_width() for b in bars.patches], stored["stability"])
    assert {t.get_text() for t in tissue.get_legend().get_texts()} == set(stored["niche"])
    one = st.pl.microniches(adata, cell_type="T/NK", return_fig=True).axes
    assert {t.get_text() for t in one[0].get_legend().get_texts()} == {"T/NK 0", "T/NK 1", "none"}
    with pytest.raises(ValueError, match="`cell_type` to be one of"):
        st.pl.microniches(adata, cell_type="T cell")
    with pytest.raises(ValueError, match="Expected `ax` to be 2 axes"):
        st.pl.microniches(adata, ax=plt.subplots()[1])


def test_grid_of_maps(adata):
    panels = st.pl.betas(adata, "PAX5", n_top=4)
    assert len(panels) == 4
    assert all(isinstance(p, Axes) for p in panels)
    terms = adata.uns["betas"]["terms"].query("target == 'PAX5' and kind != 'intercept'")
    assert terms.sort_values("importance").iloc[-1]["tf"] in panels[0].get_title() or "-" in panels[0].get_title()
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
    width = ax.patches[labels.index(f"{row['ligand']}-{row['receptor']}")].get_width()
    assert width == pytest.approx(mean * score.std(ddof=0), rel=1e-3)


def test_receptors_by_themselves_have_a_name_and_a_colour(with_receptors):
    ax = st.pl.modulators(with_receptors, "CD79A", cell_type="all", value="mean", n_top=30)
    assert "CXCR4 (receptor)" in [label.get_text() for label in ax.get_yticklabels()]
    assert "receptor, main effect" in [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert st.pl.betas(with_receptors, "CD79A", "CXCR4").get_title().startswith("CXCR4 (receptor)")


def test_distance_profile(done):
    ax = st.pl.perturbation(done, "PAX5", kind="distance")
    x, y = ax.lines[0].get_data()
    cells = done.uns["perturbed"]["cells"]["perturbed"].to_numpy()
    change = (done[:, "PAX5"].layers["perturbed"] - done[:, "PAX5"].layers["log1p"]).ravel()
    assert x[0] == 0
    assert y[0] == pytest.approx(change[cells].mean(), rel=1e-5)
    assert (np.diff(x) > 0).all()


def test_map_circles_the_perturbed_cells(done):
    ax = st.pl.perturbation(done, "PAX5")
    assert len(ax.collections[-1].get_offsets()) == done.uns["perturbed"]["cells"]["perturbed"].sum()


def test_scores_counts(adata):
    ax = st.pl.scores(adata)
    table = adata.uns["betas"]["scores"]
    better = (table["r2_surface"] > table["r2_seed"]).sum()
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert any(text.startswith(f"surface: better in {better} of {len(table)}") for text in texts)


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


@pytest.fixture(scope="module")
def several_tables(done, screen):
    spatialdata = pytest.importorskip("spatialdata")
    return spatialdata.SpatialData(tables={"cells": done, "screen": screen})


@pytest.mark.parametrize("name", DRAWINGS)
def test_spatialdata(several_tables, name):
    DRAWINGS[name](several_tables, table_key="cells")
    with pytest.raises(ValueError, match="pass `table_key=`"):
        DRAWINGS[name](several_tables)


def test_a_screen_in_spatialdata(several_tables):
    assert st.pl.screen(several_tables, table_key="screen").get_title() == "knockout, all cells"


PALETTES = {
    "names": ["red", "lime", "blue", "grey50"],
    "tuples": [(1, 0, 0), (0, 1, 0), (0, 0, 1), (127 / 255,) * 3],
    "tuples with opacity": [
        (1.0, 0.0, 0.0, 1.0),
        (0.0, 1.0, 0.0, 1.0),
        (0.0, 0.0, 1.0, 1.0),
        (127 / 255,) * 3 + (1.0,),
    ],
    "as read from a file": np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [127 / 255] * 3 + [1]]),
    "text as read from a file": np.array(["#ff0000", "#00ff00", "#0000ff", "#7f7f7f"], dtype=object),
    "eight bits": np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [127, 127, 127]]),
    "more than there are": ["red", "lime", "blue", "grey50", "black"],
}


@pytest.mark.parametrize("name", PALETTES)
def test_colours_in_any_form(adata, name):
    adata.uns["cell_type_colors"] = PALETTES[name]
    ax = st.pl.niche(adata, adata.obs_names[100])
    drawn = np.array([patch.get_facecolor()[:3] for patch in ax.get_legend().get_patches()])
    assert np.round(drawn * 255).astype(int).tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [127, 127, 127]]


@pytest.mark.parametrize("colors", [["steelblue3", "tomato2", "olivedrab4", "grey87"], ["red"], [None] * 4, "viridis"])
def test_colours_that_cannot_be_drawn_are_replaced(done, colors):
    done = done.copy()
    done.uns["cell_type_colors"] = colors
    for draw in (lambda: st.pl.niche(done, done.obs_names[100]), lambda: st.pl.perturbation_vectors(done)):
        with pytest.warns(UserWarning, match=r"Default colours are used, because of adata.uns\['cell_type_colors'\]"):
            draw()


def test_arrows_over_numbers_and_genes(done):
    done = done.copy()
    done.obs["depth"] = done.obsm["spatial"][:, 0]
    for color, expected in (("depth", done.obs["depth"]), ("PAX5", done[:, "PAX5"].layers["log1p"].ravel())):
        ax = st.pl.perturbation_vectors(done, color=color)
        drawn = np.asarray(ax.collections[-3].get_array())
        np.testing.assert_allclose(np.sort(drawn), np.sort(expected), rtol=1e-6)
        assert ax.get_legend() is None
    done.obs["name"] = done.obs_names
    assert st.pl.perturbation_vectors(done, color="name").get_legend() is None  # longer than the plot
    done.obs["cell_type"] = done.obs["cell_type"].where(done.obs["depth"] > 50)
    labels = [t.get_text() for t in st.pl.perturbation_vectors(done).get_legend().get_texts()]
    assert labels == [*done.obs["cell_type"].cat.categories, "none"]
    with pytest.raises(KeyError, match=r"in adata.obs or adata.var_names, found unknown 'PAX55' \(closest: PAX5"):
        st.pl.perturbation_vectors(done, color="PAX55")


def test_types_are_those_of_the_fit(done):
    """Integer clusters under a name of their own."""
    done = done.copy()
    done.obs["leiden"] = done.obs.pop("cell_type").cat.codes.astype(int)
    done.uns["betas"]["params"]["cluster_key"] = "leiden"
    ax = st.pl.perturbation_vectors(done)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["0", "1", "2", "3"]
    assert [first_line(ax) for ax in st.pl.modulators(done, "PAX5")] == ["0", "1", "2", "3"]
    assert first_line(st.pl.modulators(done, "PAX5", 2)) == "2"


def test_a_type_called_all(adata):
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"B cell": "all"})
    widths = {}
    for name in ("all", "all cells"):
        ax = st.pl.modulators(adata, "PAX5", name, value="mean", n_top=1)
        assert first_line(ax) == name
        widths[name] = ax.patches[0].get_width()
    table = st.get.betas(adata, "PAX5").drop(columns="beta0")
    inside = (adata.obs["cell_type"] == "all").to_numpy()
    assert abs(widths["all"]) == pytest.approx(table[inside].mean().abs().max(), rel=1e-4)
    assert abs(widths["all cells"]) == pytest.approx(table.mean().abs().max(), rel=1e-4)


LAYOUTS = {"a line": [1.0, 0.0], "an upright line": [0.0, 1.0], "one place": [0.0, 0.0]}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["quiver", "stream", "cells"])
def test_arrows_of_odd_layouts(done, layout, kind):
    done = done.copy()
    done.obsm["spatial"] = done.obsm["spatial"] * LAYOUTS[layout]
    done.obsm["perturbed_spatial"] = np.ones((done.n_obs, 2), dtype=np.float32) * LAYOUTS[layout]
    if layout == "one place" or kind == "stream":
        where = "different places" if layout == "one place" else "two dimensions"
        with pytest.raises(ValueError, match=f"Expected the cells to .* {where} on `basis='spatial'`"):
            st.pl.perturbation_vectors(done, kind=kind)
    else:
        ax = st.pl.perturbation_vectors(done, kind=kind)
        ax.figure.canvas.draw()
        assert len(ax.collections[-1].get_offsets()) > 5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["neighbours", "received", "niche", "betas", "change"])
def test_maps_of_odd_layouts(done, layout, name):
    done = done.copy()
    done.obsm["spatial"] = done.obsm["spatial"] * LAYOUTS[layout]
    ax = DRAWINGS[name](done)
    ax.figure.canvas.draw()
    assert ax.has_data()
    assert min(ax.get_window_extent().size) > 20


def test_maps_of_one_cell(done):
    one = done[:1].copy()
    for name in ("received", "niche", "betas", "change", "modulators"):
        assert (DRAWINGS[name] if name != "niche" else lambda a: st.pl.niche(a, a.obs_names[0]))(one).axes.has_data()
    with pytest.raises(ValueError, match="Expected cells at some distance"):
        st.pl.perturbation(one, "PAX5", kind="distance")


def test_a_far_frame_draws_the_same(done):
    far = done.copy()
    far.obsm["spatial"] = far.obsm["spatial"] + 1e7
    near, moved = (np.asarray(st.pl.perturbation_vectors(a).collections[-1].U) for a in (done, far))
    np.testing.assert_allclose(moved, near, atol=1e-4)


def test_equal_scores_are_ties(adata):
    scores = adata.uns["betas"]["scores"]
    scores["r2_surface"] = scores["r2_seed"] + np.where(np.arange(len(scores)) < 3, 0.1, 5e-6)
    texts = {t.get_text() for t in st.pl.scores(adata).get_legend().get_texts()}
    assert f"surface: better in 3 of {len(scores)}, {len(scores) - 3} ties" in texts


@pytest.mark.parametrize("kind", ["quiver", "stream", "cells"])
def test_no_arrows_where_nothing_changed(done, kind):
    done = done.copy()
    arrows = done.obsm["perturbed_spatial"]
    arrows[:] = 0
    cells = len(st.pl.perturbation_vectors(done, kind=kind).collections)
    arrows[:20] = 1
    ax = st.pl.perturbation_vectors(done, kind=kind)
    assert len(ax.collections) > cells
    if kind == "cells":
        assert len(ax.collections[-1].get_offsets()) == 20


def test_signals_are_dots_that_say_what_is_significant(adata):
    table = st.get.signals(adata)
    ax = st.pl.signals(adata, fdr=0.1)
    dots = ax.collections[0]
    assert len(dots.get_offsets()) == len(table)
    assert (np.asarray(dots.get_linewidths()) > 1).sum() == (table["q"] <= 0.1).sum() > 0
    np.testing.assert_allclose(np.sort(dots.get_array()), np.sort(table["effect"]))
    few = st.pl.signals(adata, "PAX5", n_top=3)
    assert len(few.collections[0].get_offsets()) == 3


def test_signalling_draws_what_is_called_and_says_when_that_is_nothing(adata):
    called = st.get.signals(adata, max_q=0.1).head(20)
    ax = st.pl.signalling(adata)
    texts = {text.get_text() for text in ax.texts}
    assert set(called["target"]) <= texts
    assert {"sender", "receptor or TF", *adata.obs["cell_type"].cat.categories} <= texts
    assert any(text.startswith(called["ligand"][0]) for text in texts)
    one = st.pl.signalling(adata, n_top=1)
    assert {t.get_text() for t in one.texts} & set(adata.uns["betas"]["terms"]["target"]) == {called["target"][0]}
    empty = st.pl.signalling(adata, fdr=0)
    assert [text.get_text() for text in empty.texts] == ["no signal at a false discovery rate of 0"]
    pathway = called["pathway"][0]
    assert st.pl.signalling(adata, pathway=pathway) is not None
    with pytest.raises(ValueError, match="pathway"):
        st.pl.signalling(adata, pathway="nowhere")
    with pytest.raises(ValueError, match="fdr"):
        st.pl.signals(adata, fdr=2)
    del adata.uns["signals_test"]
    for draw in (st.pl.signals, st.pl.signalling):
        with pytest.raises(KeyError, match="st.tl.test_signals"):
            draw(adata)
