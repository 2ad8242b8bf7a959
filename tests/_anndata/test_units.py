from __future__ import annotations

import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr._anndata._units import check_units

ROW, COLUMN = (axis.ravel() for axis in np.mgrid[0:15, 0:15])
HEXAGONAL = np.c_[COLUMN + 0.5 * (ROW % 2), ROW * np.sqrt(3) / 2]
SQUARE = np.c_[COLUMN, ROW].astype(float)
CELLS = np.random.default_rng(0).uniform(0, 15, (225, 2))


def tissue(coords, *, scalefactors=None, libraries=("s",), **obs):
    adata = ad.AnnData(
        np.ones((len(coords), 2), np.float32),
        obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(len(coords))]),
        obsm={"spatial": np.asarray(coords, dtype=float)},
    )
    if scalefactors is not None:
        adata.uns["spatial"] = {name: {"images": {}, "scalefactors": scalefactors} for name in libraries}
    return adata


def warned(adata, *, unit=1.0, radius=200.0, contact_radius=None, libraries=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_units(
            adata, adata.obsm["spatial"], microns_per_unit=unit, radius=radius, contact_radius=contact_radius,
            libraries=libraries,
        )  # fmt: skip
    return " ".join(str(w.message) for w in caught)


@pytest.mark.parametrize("turn", [0.0, 0.4])
@pytest.mark.parametrize("scalefactors", [{"spot_diameter_fullres": 89.0}, None], ids=["said", "seen"])
def test_pixels_of_visium(scalefactors, turn):
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    adata = tissue(np.round(HEXAGONAL * 137 @ rotation) + 4000, scalefactors=scalefactors)
    said = warned(adata)
    assert float(re.findall(r"Pass `microns_per_unit=([\d.]+)`", said)[0]) == pytest.approx(100 / 137, rel=0.005)
    assert "a radius of 200 um reaches 5.5 other cells now" in said
    assert ("adata.uns['spatial']" in said) == (scalefactors is not None)
    assert not warned(adata, unit=0.73)


@pytest.mark.parametrize(
    "coords, scalefactors",
    [
        (HEXAGONAL * 100, {"spot_diameter_fullres": 89.0}),  # micrometres already, beside the factors of the image
        (HEXAGONAL * 100, {"spot_diameter_fullres": "?", "tissue_hires_scalef": 0.1}),
        (CELLS * 20, {"spot_diameter_fullres": 1.0}),  # a stand-in of readers of other technologies
        (CELLS * 20, None),
        (SQUARE * 100, None),
        (np.zeros((1, 2)), None),
    ],
    ids=["visium", "no-diameter", "stand-in", "cells", "square", "one"],
)
def test_micrometres_are_not_doubted(coords, scalefactors):
    assert not warned(tissue(coords, scalefactors=scalefactors))


def test_square_lattices_are_not_read_as_visium():
    # Spatial Transcriptomics, spots 100 um wide and 200 apart: almost the ratio of Visium
    assert not warned(tissue(SQUARE * 200, scalefactors={"spot_diameter_fullres": 104.0}), radius=500.0)


def test_bins_of_visium_hd_say_their_scale():
    factors = {"spot_diameter_fullres": 29.2, "microns_per_pixel": 0.274, "bin_size_um": 8.0}
    adata = tissue(SQUARE * 29.2, scalefactors=factors)
    assert "Pass `microns_per_unit=0.274`" in warned(adata)
    assert not warned(adata, unit=0.274)
    assert not warned(tissue(SQUARE * 8, scalefactors=factors))


@pytest.mark.parametrize("frame", ["global", "local"])
def test_pixels_of_cosmx(frame):
    names = [f"Center{axis}_{frame}_px" for axis in "XY"]
    pixels = CELLS * 150
    adata = tissue(pixels, **dict(zip(names, pixels.T, strict=True)))
    said = warned(adata)
    assert "Pass `microns_per_unit=0.12`" in said
    assert names[0] in said
    assert not warned(adata, unit=0.12)
    assert not warned(adata, unit=0.18)
    adata.obsm["spatial"] = pixels * 0.12
    assert not warned(adata)


def test_cells_far_apart_may_be_pixels():
    assert "wide for single cells" in warned(tissue(CELLS * 150))


@pytest.mark.parametrize(
    "coords, hint",
    [(np.c_[ROW, 2 * COLUMN + ROW % 2], "86.6 um per row"), (SQUARE, "distance between two spots")],
    ids=["hexagonal", "square"],
)
def test_rows_and_columns_are_no_lengths(coords, hint):
    said = warned(tissue(coords))
    assert "count rows and columns" in said
    assert hint in said


def test_spots_on_a_square_grid_are_scaled_by_their_distance():
    assert not warned(tissue(SQUARE), unit=100.0)


@pytest.mark.parametrize("spread, by", [(0.0, "sample"), (30.0, "sample"), (0.0, "patient")])
def test_slides_on_top_of_each_other(spread, by):
    coords = np.tile(HEXAGONAL * 100, (2, 1)) + np.random.default_rng(0).normal(0, 1, (450, 2)) * spread
    slides = np.repeat(["s1", "s2"], 225)
    adata = tissue(coords, scalefactors={}, libraries=("s1", "s2"), **{by: slides})
    assert f"pass `library_key='{by}'`" in warned(adata)
    assert "library_key" not in warned(adata, libraries=pd.factorize(slides)[0])
    adata.obsm["spatial"] = coords + np.outer(slides == "s2", [1e5, 0])
    assert "library_key" not in warned(adata)


def test_slides_without_labels():
    twice = np.tile(CELLS * 20, (2, 1))
    assert "lie at 225 distinct places" in warned(tissue(twice))
    assert "holds 2 libraries" in warned(tissue(CELLS * 20, scalefactors={}, libraries=("s1", "s2")))


def test_fields_of_view_side_by_side_are_one_slide():
    assert not warned(tissue(CELLS * 20, fov=(CELLS[:, 0] // 5).astype(int)))


def test_a_radius_that_reaches_nobody():
    spots = tissue(SQUARE * 200)
    said = warned(spots, contact_radius=30.0)
    assert "radius=200 is short for spots 200 um apart" in said
    assert "every contact pair is autocrine" in said
    assert "microns_per_unit" not in said
    assert not warned(spots, radius=500.0, contact_radius=250.0)
    without = warned(spots)  # of weights, the radius is short without contact signals as well
    assert "radius=200 is short" in without
    assert "contact" not in without


@pytest.mark.parametrize(
    "change, unit",
    [
        (lambda s: s + 1e8, 1.0),
        (lambda s: s * 1000 + 1e10, 1e-3),
        (lambda s: s * [-1, 1], 1.0),
        (lambda s: s @ np.array([[0.6, -0.8], [0.8, 0.6]]) - 5e5, 1.0),
    ],
    ids=["far", "nanometres", "mirrored", "turned"],
)
@pytest.mark.parametrize("method", ["sparse", "grid"])
def test_frames_do_not_matter(change, unit, method):
    results = []
    for frame, microns in ((lambda s: s, 1.0), (change, unit)):
        adata = st.datasets.simulated_tissue(n_cells=500, n_targets=2, rng=0)
        pairs = st.datasets.simulated_priors(adata).ligand_receptor
        adata.obsm["spatial"] = frame(np.asarray(adata.obsm["spatial"], dtype=np.float64))
        st.pp.spatial_weights(adata, microns_per_unit=microns, method=method)
        st.pp.received_ligands(adata, pairs, layer="log1p")
        results.append(adata.uns["received_ligands"].to_numpy())
    limit = {"sparse": 1e-5, "grid": 2e-3}[method]  # a turned grid errs elsewhere
    assert np.abs(results[0] - results[1]).max() < limit * results[0].max()
