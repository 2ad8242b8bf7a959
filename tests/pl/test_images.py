"""Every plot against a stored image, colours included, and against what is stored of its texts and legends.

Images are drawn without text, whose shape depends on fonts, and compared after smoothing over some pixels, so that it
hardly matters where exactly a line falls. Two differences are measured, each as a part of what there is: that of the
ink (how dark) and that of its colour. What text there is, and where legends and colour bars are, is compared by itself.
Every plot is also spoiled on purpose (colours exchanged, legends moved, a label taken away), which must be seen.

``python tests/_data/pl/draw.py`` draws the stored images anew: look at them before they are committed.
"""

import json
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread, imsave
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter
from scipy.ndimage import gaussian_filter

import spacetravlr as st
from spacetravlr.pl._figure import TITLE_ROOM

FOLDER = Path(__file__).parent.parent / "_data" / "pl"
DPI, SMOOTHING = 40, 5
#: A shift by a pixel changes at most 0.19, an exchange of red and blue at least 1.1.
TOLERANCE = 0.25
#: How far a legend or a colour bar may lie from where it was, as part of the figure: fonts differ a little.
PLACE = 0.06
LABELS = FOLDER / "labels.json"

DRAWINGS = {
    "kernel": lambda a, s, **k: st.pl.spatial_weights(a, **k),
    "neighbours": lambda a, s, **k: st.pl.spatial_weights(a, a.obs_names[100], **k),
    "received": lambda a, s, **k: st.pl.received_ligands(a, "CXCL12", **k),
    "niche": lambda a, s, **k: st.pl.niche(a, a.obs_names[100], **k),
    "niche_image": lambda a, s, **k: st.pl.niche(a, a.obs_names[100], kind="image", **k),
    "niche_map": lambda a, s, **k: st.pl.niche(a, color=["B cell", "entropy"], **k),
    "senders": lambda a, s, **k: st.pl.senders(a, "CXCL12", **k),
    "betas": lambda a, s, **k: st.pl.betas(a, "PAX5", ["FOXO1", "STAT3"], **k),
    "betas_per_sd": lambda a, s, **k: st.pl.betas(a, "PAX5", n_top=3, value="effect", share_limit=True, **k),
    "modulators": lambda a, s, **k: st.pl.modulators(a, "PAX5", "B cell", **k),
    "microniches": lambda a, s, **k: st.pl.microniches(a, **k),
    "scores": lambda a, s, **k: st.pl.scores(a, **k),
    "scores_ranked": lambda a, s, **k: st.pl.scores(a, kind="ranking", betas_key="judged", **k),
    "training": lambda a, s, **k: st.pl.training(a, **k),
    "intervals": lambda a, s, **k: st.pl.modulators(a, "PAX5", "B cell", betas_key="judged", **k),
    "masked": lambda a, s, **k: st.pl.betas(a, "PAX5", "FOXO1", mask="insignificant", betas_key="judged", **k),
    "effects": lambda a, s, **k: st.pl.perturbation_effects(a, **k),
    "volcano": lambda a, s, **k: st.pl.perturbation_effects(a, kind="volcano", cell_type="T cell", **k),
    "violin": lambda a, s, **k: st.pl.perturbation_effects(a, ["PAX5", "MS4A1"], kind="violin", **k),
    "signals": lambda a, s, **k: st.pl.signals(a, **k),
    "signalling": lambda a, s, **k: st.pl.signalling(a, **k),
    "change": lambda a, s, **k: st.pl.perturbation(a, "PAX5", **k),
    "one_cell": lambda a, s, **k: st.pl.perturbation(a, "PAX5", perturbed_key="one", **k),
    "outlined": lambda a, s, **k: st.pl.perturbation(a, "PAX5", perturbed_key="many", **k),
    "distance": lambda a, s, **k: st.pl.perturbation(a, ["PAX5", "MS4A1"], kind="distance", **k),
    "quiver": lambda a, s, **k: st.pl.perturbation_vectors(a, **k),
    "stream": lambda a, s, **k: st.pl.perturbation_vectors(a, kind="stream", color="PAX5", **k),
    "cells": lambda a, s, **k: st.pl.perturbation_vectors(a, "umap", kind="cells", **k),
    "heatmap": lambda a, s, **k: st.pl.screen(s, **k),
    "drivers": lambda a, s, **k: st.pl.drivers(a, **k),
    "driver_map": lambda a, s, **k: st.pl.drivers(a, "CXCL12", mode="increase", **k),
    "ranking": lambda a, s, **k: st.pl.screen(s, kind="ranking", **k),
}
FUNCTIONS = {"kernel": "spatial_weights", "received": "received_ligands", "niche": "niche", "betas": "betas",
             "modulators": "modulators", "microniches": "microniches", "scores": "scores", "training": "training",
             "change": "perturbation", "effects": "perturbation_effects", "quiver": "perturbation_vectors",
             "heatmap": "screen", "drivers": "drivers", "signals": "signals", "signalling": "signalling",
             "senders": "senders"}  # fmt: skip


def with_niches(adata, split):
    """Niches by hand: B cells left and right, one niche of every other type."""
    types = adata.obs["cell_type"].astype(str)
    names = types + " " + np.where((types == "B cell") & split, "1", "0")
    niches = [f"{t} {i}" for t in adata.obs["cell_type"].cat.categories for i in range(1 + (t == "B cell"))]
    adata.obs["microniche"] = pd.Categorical(names, categories=niches)
    table = pd.DataFrame({"niche": niches, "cell_type": [n[:-2] for n in niches], "stability": np.nan})
    table["separation"] = np.nan
    table.loc[table["cell_type"] == "B cell", ["stability", "separation"]] = [[0.9, 0.8], [0.7, 0.8]]
    adata.uns["microniches"] = {"niches": table, "params": {"min_stability": 0.75, "min_separation": 0.5}}


@pytest.fixture(scope="module")
def tissue(_tissue):
    """The tissue after a perturbation whose numbers are a formula, so that images show plots, not simulations."""
    adata = _tissue.copy()
    xy = adata.obsm["spatial"] - adata.obsm["spatial"].mean(axis=0)
    distance = np.linalg.norm(xy, axis=1)
    st.tl.perturb(adata, {"FOXO1": 0, "CXCL12": "max"}, cells=distance < 30)
    for gene, change in {"PAX5": xy[:, 0] / 100, "MS4A1": -np.exp(-distance / 30)}.items():
        g = adata.var_names.get_loc(gene)
        adata.layers["perturbed"][:, g] = adata.layers["log1p"][:, g] + change
    judge(adata)
    swirl = np.stack([-xy[:, 1], xy[:, 0]], axis=1) / distance.max()
    adata.obsm["perturbed_spatial"] = swirl.astype(np.float32)
    st.tl.drivers(adata, "PAX5", cells=xy[:, 1] < 20, n_check=0)
    table, genes = adata.uns["drivers"]["table"], list(adata.uns["drivers"]["genes"])
    number = table["gene"].map(genes.index) + 2.5 * table["cell_type"].astype("category").cat.codes
    table["knockout"] = np.sin(number) * (table["cell_type"] != "all")
    everywhere = table["cell_type"] == "all"
    table.loc[everywhere, "knockout"] = table.groupby("gene")["knockout"].sum()[table["gene"][everywhere]].to_numpy()
    table.loc[everywhere, "checked"] = (0.5 * table["knockout"]).where(number % 3 == 0)
    for _, part in table.groupby("cell_type"):
        table.loc[part.index, "rank_knockout"] = (
            part["knockout"].abs().rank(ascending=False, method="first").astype(int)
        )
    adata.obsm["drivers"][:] = (xy[:, [0]] / 100).astype(np.float32)
    adata.obsm["X_umap"] = (xy * [1.0, -0.7]).astype(np.float32)
    with_niches(adata, split=xy[:, 0] > 0)
    adata.obsm["perturbed_umap"] = (swirl * [1.0, -0.7]).astype(np.float32)
    for key, cells in {"one": distance <= distance.min(), "many": xy[:, 0] < np.quantile(xy[:, 0], 0.9)}.items():
        adata.layers[key] = adata.layers["perturbed"]
        adata.uns[key] = adata.uns["perturbed"] | {"cells": pd.DataFrame({"perturbed": cells}, index=adata.obs_names)}
    return adata


def judge(adata):
    """Add errors to the coefficients, under another key, and to the perturbation."""
    types = list(adata.obs["cell_type"].cat.categories)
    terms = adata.uns["betas"]["terms"].copy()
    size = np.abs(adata.obsm["betas"]).mean(axis=0)
    terms["se"] = 0.3 * size + 0.02 * size.mean()
    terms["low"], terms["high"] = size - terms["se"], size + terms["se"]
    terms["p"] = terms["q"] = np.linspace(0, 0.4, len(terms))
    of_types = {
        name: np.repeat(terms[[name]].to_numpy(float), len(types), axis=1) for name in ("se", "low", "high", "p")
    }
    of_types["q"] = np.tile(np.linspace(0, 0.3, len(types)), (len(terms), 1))
    adata.obsm["judged"] = adata.obsm["betas"]
    adata.uns["judged"] = adata.uns["betas"] | {
        "terms": terms, "scores": with_ceiling(adata.uns["betas"]["scores"]),
        "by_type": of_types | {"cell_types": np.array(types, dtype=object)}
    }  # fmt: skip
    genes = list(dict.fromkeys(["FOXO1", "CXCL12", *terms["target"].astype(str)]))
    change = adata.to_df("perturbed")[genes] - adata.to_df("log1p")[genes]
    means = [change.mean(), *(change[adata.obs["cell_type"] == name].mean() for name in types)]
    draws = np.stack([m.to_numpy() for m in means]) + np.linspace(-0.03, 0.03, 9)[:, None, None]
    groups = np.array(["all", *types], dtype=object)
    adata.uns["perturbed"]["samples"] = {"mean_change": draws, "genes": np.array(genes, dtype=object), "groups": groups}


def with_ceiling(scores):
    """Scores as a fit to counts has them."""
    found = scores.rename(columns={"r2_seed": "r2_field", "r2_network": "r2_pooled"}).drop(columns="r2_surface")
    found["ceiling"] = 0.1 + 1.2 * found["r2_kept"]
    found["explained"] = found["r2_kept"] / found["ceiling"]
    found["explained_low"], found["explained_high"] = found["explained"] - 0.1, found["explained"] + 0.1
    return found


@pytest.fixture(scope="module")
def screen(_tissue):
    table = st.tl.genome_screen(_tissue, save_to=None, genes=["FOXO1", "STAT3", "IRF4", "CXCL12", "CXCR4"])
    p, g = np.indices(table.shape)
    table.X = (np.sin(1.3 * p + 0.9 * g) * table.var["sd"].to_numpy() * (p + 1) / 5).astype(np.float32)
    return table


def draw(name, tissue, screen):
    with mpl.rc_context(mpl.rcParamsDefault):
        return DRAWINGS[name](tissue, screen, return_fig=True)


def save_without_text(figure, path):
    for legend in figure.findobj(Legend):
        legend.remove()
    for text in figure.findobj(Text):
        text.set_visible(False)
    with mpl.rc_context(mpl.rcParamsDefault):
        figure.savefig(path, dpi=DPI)
    return imread(path)[..., :3]


def render(name, tissue, screen, path):
    return save_without_text(draw(name, tissue, screen), path)


def read(ax):
    """Texts of a panel that are seen."""
    return [text for text in ax.texts if text.get_gid() != TITLE_ROOM]


def texts_of(figure):
    """Titles, labels and texts of every panel, names of its rows and columns, and texts of legends."""
    found = []
    for ax in figure.findobj(Axes):
        names = [
            [t.get_text() for t in axis.get_ticklabels()]
            if isinstance(axis.get_major_formatter(), FixedFormatter)
            else []
            for axis in (ax.xaxis, ax.yaxis)
        ]
        found.append([ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), *names, [t.get_text() for t in read(ax)]])
    legends = [
        [legend.get_title().get_text(), *(t.get_text() for t in legend.get_texts())]
        for legend in figure.findobj(Legend)
    ]
    return {"panels": found, "legends": legends}


def places_of(figure):
    """Middle of every panel, colour bar, legend and text, as part of the figure."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    artists = [artist for kind in (Axes, Legend) for artist in figure.findobj(kind)]
    artists += [text for ax in figure.findobj(Axes) for text in read(ax)]
    boxes = [artist.get_window_extent(renderer) for artist in artists]
    width, height = figure.get_size_inches() * figure.dpi
    return [[round((b.x0 + b.x1) / 2 / width, 3), round((b.y0 + b.y1) / 2 / height, 3)] for b in boxes]


def far(places, stored):
    """Largest distance from the stored places."""
    if len(places) != len(stored):
        return np.inf
    return float(np.abs(np.asarray(places) - np.asarray(stored)).max())


def moved_places(figure):
    """Places after legends were moved by a sixth of the figure; colour bars or names where there is no legend."""
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    legends = figure.findobj(Legend)
    for legend in legends:
        box = legend.get_window_extent().transformed(figure.transFigure.inverted())
        legend.set_loc("center")
        legend.set_bbox_to_anchor(((box.x0 + box.x1) / 2 - 1 / 6, (box.y0 + box.y1) / 2), figure.transFigure)
    bars = [] if legends else [ax for ax in figure.findobj(Axes) if hasattr(ax, "_colorbar")]
    locators = [bar.get_axes_locator() for bar in bars]
    for bar in bars:
        box = bar.get_position()
        bar.set_axes_locator(None)
        bar.set_position([box.x0 - 1 / 6, box.y0, box.width, box.height])
    names = [] if legends or bars else [text for ax in figure.findobj(Axes) for text in ax.texts]
    for text in names:
        text.set_x(text.get_position()[0] - 0.5)
    assert legends or bars or names, "nothing tells what colours mean"
    found = places_of(figure)
    for bar, locator in zip(bars, locators, strict=True):
        bar.set_axes_locator(locator)
    for text in names:
        text.set_x(text.get_position()[0] + 0.5)
    figure.set_layout_engine(engine)
    return found


def without_one(texts):
    """What there would be to read with one title, label or text less, for each of them."""
    for p, panel in enumerate(texts["panels"]):
        for i, value in enumerate(panel):
            if value:
                less = json.loads(json.dumps(texts))
                less["panels"][p][i] = "" if isinstance(value, str) else value[1:]
                yield less
    for i, legend in enumerate(texts["legends"]):
        less = json.loads(json.dumps(texts))
        less["legends"][i] = legend[:-1]
        yield less


class Drawings(dict):
    """Every plot drawn once, when it is asked for: its image, texts, places, and places when keys were moved."""

    def __init__(self, tissue, screen, folder):
        self.args, self.folder = (tissue, screen), folder

    def __missing__(self, name):
        figure = draw(name, *self.args)
        found = {"texts": texts_of(figure), "places": places_of(figure), "moved": moved_places(figure)}
        self[name] = found | {"image": save_without_text(figure, self.folder / f"{name}.png")}
        return self[name]


@pytest.fixture(scope="module")
def drawings(tissue, screen, tmp_path_factory):
    return Drawings(tissue, screen, tmp_path_factory.mktemp("images"))


def ink_and_colour(image):
    """How dark each place is, and how much its colours differ from grey."""
    smooth = gaussian_filter(1 - image, (SMOOTHING, SMOOTHING, 0))
    ink = smooth.mean(axis=-1, keepdims=True)
    return ink, smooth - ink


def difference(drawn, stored):
    """Difference of two images in ink or in colour, whichever is larger, as a part of both."""
    pairs = zip(ink_and_colour(drawn), ink_and_colour(stored), strict=True)
    return max(np.abs(a - b).sum() / (0.5 * (np.abs(a).sum() + np.abs(b).sum())) for a, b in pairs)


@pytest.mark.parametrize("name", DRAWINGS)
def test_image(drawings, name):
    stored, drawn = FOLDER / f"{name}.png", drawings[name]
    if os.environ.get("UPDATE_IMAGES") == "1":
        imsave(stored, drawn["image"])
        known = json.loads(LABELS.read_text()) if LABELS.exists() else {}
        known = {n: v for n, v in known.items() if n in DRAWINGS}
        known[name] = {part: drawn[part] for part in ("texts", "places")}
        LABELS.write_text(json.dumps(known, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    expected = imread(stored)[..., :3]
    assert drawn["image"].shape == expected.shape
    assert difference(drawn["image"], expected) < TOLERANCE, f"{drawings.folder / name}.png differs from {stored}"


def stored_labels(name):
    return json.loads(LABELS.read_text())[name]


@pytest.mark.parametrize("name", DRAWINGS)
def test_texts_and_places(drawings, name):
    stored = stored_labels(name)
    assert drawings[name]["texts"] == stored["texts"]
    assert far(drawings[name]["places"], stored["places"]) < PLACE


@pytest.mark.parametrize("name", DRAWINGS)
def test_what_is_spoiled_is_seen(drawings, name):
    """Colours exchanged, a legend or colour bar elsewhere, any title, label or text taken away."""
    drawn, stored = drawings[name], stored_labels(name)
    assert difference(drawn["image"][..., ::-1], imread(FOLDER / f"{name}.png")[..., :3]) > TOLERANCE
    assert far(drawn["moved"], stored["places"]) > PLACE
    spoiled = list(without_one(drawn["texts"]))
    assert len(spoiled) > 1
    assert all(texts != stored["texts"] for texts in spoiled)


@pytest.mark.parametrize("name", DRAWINGS)
def test_an_exchange_of_red_and_blue_is_seen(name):
    stored = imread(FOLDER / f"{name}.png")[..., :3]
    assert difference(stored[..., ::-1], stored) > 4 * TOLERANCE


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_shift_by_a_pixel_is_not_seen(name):
    stored = imread(FOLDER / f"{name}.png")[..., :3]
    shifted = np.pad(stored, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]
    assert difference(shifted, stored) < TOLERANCE


@pytest.mark.parametrize("name", ["niche", "quiver", "cells"])
def test_an_exchange_of_two_cell_types_is_seen(tissue, screen, name, tmp_path):
    other = tissue.copy()
    colors = list(other.uns["cell_type_colors"])
    other.uns["cell_type_colors"] = [colors[1], colors[0], *colors[2:]]
    drawn = render(name, other, screen, tmp_path / f"{name}.png")
    assert difference(drawn, imread(FOLDER / f"{name}.png")[..., :3]) > TOLERANCE


@pytest.mark.parametrize("name", ["betas", "change", "heatmap", "effects"])
def test_a_colour_map_the_other_way_round_is_seen(tissue, screen, name, tmp_path, monkeypatch):
    monkeypatch.setitem(DRAWINGS, name, lambda a, s, draw=DRAWINGS[name], **k: draw(a, s, cmap="RdBu", **k))
    drawn = render(name, tissue, screen, tmp_path / f"{name}.png")
    assert difference(drawn, imread(FOLDER / f"{name}.png")[..., :3]) > TOLERANCE


def test_every_plot_has_an_image():
    assert set(FUNCTIONS.values()) == set(st.pl.__all__)
    assert set(FUNCTIONS) <= set(DRAWINGS)
    assert {path.stem for path in FOLDER.glob("*.png")} == set(DRAWINGS)
