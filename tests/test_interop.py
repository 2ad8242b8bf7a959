"""The recipes of ``docs/howto/interoperability.md``, as written, and what their packages hand over."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData

import spacetravlr as st
from spacetravlr._validators import assert_in_main_memory

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "interoperability.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="not a checkout of the whole project")


def sections() -> dict[str, list[str]]:
    """Blocks of Python below each heading of the page that has any; those above the first heading are "start"."""
    if not PAGE.exists():
        return {"start": []}
    title, *rest = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = {"start": title} | {text.splitlines()[0]: text for text in rest}
    blocks = {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in texts.items()}
    return {name: found for name, found in blocks.items() if found or name == "start"}


SECTIONS = sections()
RECIPES = [name for name in SECTIONS if name != "start"]


def packages(block: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names


def run(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, PAGE.name, "exec"), names)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Names after the first block of the page."""
    names: dict[str, Any] = {}
    for block in SECTIONS["start"]:
        run(block, names)
    return names


@pytest.fixture
def names(fitted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    yield {**fitted, "adata": fitted["adata"].copy()}
    plt.close("all")


def recipe(section: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the blocks of a section; the test is skipped where one of its packages is not installed."""
    for package in sorted(set().union(*map(packages, SECTIONS[section]))):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    for block in SECTIONS[section]:
        run(block, names)
    return names


def test_every_recipe_has_a_test() -> None:
    tested = {"squidpy", "scanpy", "decoupler", "LIANA", "pertpy", "CellRank", "SpatialData", "rapids-singlecell"}
    assert set(RECIPES) == tested


# what other packages warn of, on import and in use, is theirs
@pytest.mark.filterwarnings("ignore")
class TestRecipes:
    def test_squidpy(self, names):
        adata = recipe("squidpy", names)["adata"]
        assert adata.obsp["graph_weights"].nnz <= 16 * adata.n_obs
        assert (adata.uns["received_on_graph"] <= adata.uns["received_ligands"] * (1 + 1e-4) + 1e-4).all(axis=None)
        assert adata.uns["received_of_clusters"].shape[1] <= adata.uns["received_ligands"].shape[1]
        moran = names["varying"].uns["moranI"]["I"]
        assert moran.max() > 0.9  # smooth by construction, as the page says

    def test_scanpy(self, names):
        recipe("scanpy", names)
        assert names["section"].uns["betas"]["params"]["layer"] == ""
        assert names["screen"].obsm["X_pca"].shape == (names["screen"].n_obs, 2)

    def test_decoupler(self, names):
        adata = recipe("decoupler", names)["adata"]
        tables = [adata.uns[key]["table"] for key in ("modulators", "modulators_of_decoupler")]
        first, second = (set(t.loc[t["kind"] == "tf", "tf"].astype(str)) for t in tables)
        assert first == second
        assert list(names["scores"].index) == list(names["screen"].obs_names)

    def test_liana(self, names):
        adata = recipe("LIANA", names)["adata"]
        kept = adata.uns["received_of_liana_params"]["pairs"]
        assert set(kept["range"]) == {"secreted", "contact"}

    def test_pertpy(self, names):
        recipe("pertpy", names)

    def test_cellrank(self, names):
        adata = recipe("CellRank", names)["adata"]
        np.testing.assert_allclose(adata.obsp["walk_transitions"].sum(axis=1), 1, rtol=1e-4)

    def test_spatialdata(self, names):
        sdata = recipe("SpatialData", names)["sdata"]
        again = names["sd"].read_zarr("section.zarr")
        assert again["table"].uns["spatialdata_attrs"] == sdata["table"].uns["spatialdata_attrs"]
        np.testing.assert_array_equal(again["table"].layers["perturbed"], sdata["table"].layers["perturbed"])
        assert "FOXO1>PAX5" in again["coefficients"].var_names
        st.tl.perturb(again["table"], "FOXO1", key_added="again")
        np.testing.assert_allclose(again["table"].layers["again"], sdata["table"].layers["perturbed"], atol=1e-5)

    def test_rapids_singlecell(self, names):
        recipe("rapids-singlecell", names)


def test_the_defaults_of_scanpy_2_change_nothing(fitted):
    import scanpy as sc

    if not hasattr(sc.settings, "preset"):
        pytest.skip("this scanpy has no presets")
    adata, grn, lr = (fitted[name] for name in ("adata", "grn", "lr"))
    found = []
    for preset in (sc.Preset.ScanpyV1, sc.Preset.ScanpyV2Preview):
        with sc.settings.override(preset=preset):
            part = adata.copy()
            st.pp.received_ligands(part, lr, layer="log1p")
            st.pp.modulators(part, grn)
            st.tl.fit_betas(part, "PAX5", body="seed")
            found.append(part.obsm["betas"])
    np.testing.assert_array_equal(*found)


class _OnGpu:
    """Stands in for an array of CuPy: it has a shape, and refuses to be turned into one of numpy."""

    shape = (3, 2)

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise TypeError


class _Dense(np.ndarray):
    """The same as an array that AnnData takes."""


_OnGpu.__module__, _OnGpu.__qualname__ = "cupyx.scipy.sparse._csr", "csr_matrix"
_Dense.__module__, _Dense.__qualname__ = "cupy", "ndarray"
MESSAGE = r"Expected {} in main memory .*`cupy.*` on a GPU; `rapids_singlecell.get.anndata_to_CPU"


def on_gpu(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).view(_Dense)


def test_arrays_on_a_gpu_are_named():
    for values in (_OnGpu(), on_gpu(np.ones((3, 2))), dask.array.from_array(np.ones(3), meta=on_gpu(np.ones(0)))):
        with pytest.raises(TypeError, match=MESSAGE.format("adata.X")):
            assert_in_main_memory(values, "adata.X")
    assert_in_main_memory(np.ones(3), "adata.X")
    assert_in_main_memory(dask.array.ones(3), "adata.X")


def test_expression_on_a_gpu(fitted):
    adata: AnnData = fitted["adata"].copy()
    adata.layers["device"] = on_gpu(adata.layers["log1p"])
    adata.layers["counts_on_device"] = on_gpu(adata.layers["counts"].toarray())
    calls = {
        r"adata.layers\['device'\]": lambda: st.pp.received_ligands(adata, fitted["lr"], layer="device"),
        r"adata.layers\['counts_on_device'\]": lambda: st.pp.split_counts(adata, counts_layer="counts_on_device"),
    }
    for where, call in calls.items():
        with pytest.raises(TypeError, match=MESSAGE.format(where)):
            call()
    with pytest.raises(TypeError, match="counts_on_device"):
        st.tl.fit_betas(adata, "PAX5", counts_layer="counts_on_device")
    adata.obsm["spatial"] = on_gpu(adata.obsm["spatial"])
    with pytest.raises(TypeError, match=MESSAGE.format(r"adata.obsm\['spatial'\]")):
        st.pp.spatial_weights(adata)
