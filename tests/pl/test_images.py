"""A few plots against stored images. Run with ``UPDATE_IMAGES=1`` to write them anew, then look at them."""

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

import spacetravlr as st

FOLDER = Path(__file__).parent.parent / "_data" / "pl"
TOLERANCE = 15

DRAWINGS = {
    "kernel": lambda a: st.pl.spatial_weights(a, return_fig=True),
    "neighbours": lambda a: st.pl.spatial_weights(a, a.obs_names[100], return_fig=True),
    "betas": lambda a: st.pl.betas(a, "PAX5", ["FOXO1", "STAT3"], return_fig=True),
    "modulators": lambda a: st.pl.modulators(a, "PAX5", "B cell", return_fig=True),
    "scores": lambda a: st.pl.scores(a, return_fig=True),
    "niche": lambda a: st.pl.niche(a, a.obs_names[100], return_fig=True),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_image(adata, name, tmp_path):
    stored = FOLDER / f"{name}.png"
    updating = os.environ.get("UPDATE_IMAGES") == "1"
    path = stored if updating else tmp_path / f"{name}.png"
    with mpl.rc_context(mpl.rcParamsDefault):
        DRAWINGS[name](adata).savefig(path, dpi=40)
    drawn, expected = (255 * imread(p)[..., :3] for p in (path, stored))
    assert drawn.shape == expected.shape
    difference = float(np.sqrt(((drawn - expected) ** 2).mean()))
    assert difference < TOLERANCE, f"{path} differs from {stored} by {difference:.1f}"
