"""A small slide that can be checked by eye, and a larger one drawn at random."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def line():
    """Five cells on a line, spacing 10 um; the ligand LIG in the first, its receptor REC everywhere.

    position  0   10   20   30   40
    cell      a    b    c    d    e
    LIG       4    0    0    0    2
    CON       0    1    0    0    0
    """
    expression = pd.DataFrame(
        {"LIG": [4.0, 0, 0, 0, 2], "CON": [0, 1.5, 0, 0, 0], "REC": [0.5] * 5, "TF1": [1.0, 2, 3, 4, 5.5]},
        index=list("abcde"),
    )
    adata = ad.AnnData(
        expression.to_numpy(dtype=np.float32),
        obs=pd.DataFrame({"cell_type": pd.Categorical(["A", "A", "T/NK", "T/NK", "A"])}, index=expression.index),
        var=pd.DataFrame(index=expression.columns),
    )
    adata.obsm["spatial"] = np.column_stack([np.arange(5) * 10.0, np.zeros(5)])
    return adata


@pytest.fixture
def pairs():
    return pd.DataFrame(
        {
            "ligand": ["LIG", "CON", "LIG"],
            "receptor": ["REC", "REC", "TF1"],
            "range": ["secreted", "contact", "contact"],
        }
    )


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def slide(request):
    """200 cells of 3 types on 2 slides, 12 genes, log-normalised, with things of the user's own everywhere."""
    rng = np.random.default_rng(request.param)
    adata = ad.AnnData(
        np.log1p(rng.poisson(1.0, (200, 12)) * rng.uniform(0.5, 2, (200, 1))).astype(np.float32),
        obs=pd.DataFrame(
            {
                "cell_type": pd.Categorical(rng.choice(["B", "T/NK", "stroma"], 200)),
                "half": pd.Categorical(rng.choice(["s1", "s2"], 200)),
            },
            index=[f"cell{i}" for i in range(200)],
        ),
        var=pd.DataFrame(index=[f"G{i}" for i in range(12)]),
        obsm={"spatial": rng.uniform(0, 300, (200, request.param))},
        layers={"scaled": rng.gamma(1.0, 1.0, (200, 12)).astype(np.float32)},
        uns={"mine": {"a": np.arange(3)}},
    )
    adata.obsm["X_pca"] = rng.normal(size=(200, 4))
    return adata


@pytest.fixture
def slide_pairs():
    return pd.DataFrame(
        {
            "ligand": ["G0", "G1", "G0", "G3_G4"],
            "receptor": ["G5", "G6", "G7", "G8"],
            "signaling": ["Secreted Signaling", "ECM-Receptor", "Cell-Cell Contact", "Cell-Cell Contact"],
        }
    )


@pytest.fixture
def unchanged():
    """Checks that an AnnData is what it was, apart from keys that may be new: ``check = unchanged(adata)``."""

    def remember(adata):
        before = adata.copy()

        def check(after, *, new=()):
            for attr in ("obs", "var", "uns", "obsm", "obsp", "layers", "varm"):
                found, expected = getattr(after, attr), getattr(before, attr)
                added = {f"{attr}/{key}" for key in set(found) - set(expected)}
                assert added <= set(new), f"unexpected {added - set(new)}"
                assert set(expected) <= set(found)
            trimmed = after.copy()
            for name in new:
                attr, key = name.split("/")
                getattr(trimmed, attr).pop(key, None)
            ad.tests.helpers.assert_equal(trimmed, before)

        return check

    import anndata.tests.helpers  # noqa: F401 -- makes ad.tests.helpers available

    return remember


@pytest.fixture(params=["h5ad", "zarr"])
def round_trip(request, tmp_path):
    """Writes an AnnData and reads it back."""

    def go(adata):
        path = tmp_path / f"written.{request.param}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata announces its next defaults for zarr
            getattr(adata, f"write_{request.param}")(path)
        return getattr(ad, f"read_{request.param}")(path)

    return go
