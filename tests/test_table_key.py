"""Functions of ``pp`` and ``tl`` on SpatialData with two tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import spacetravlr as st


@pytest.fixture(scope="module")
def _tissue() -> AnnData:
    """A section after a fit and a perturbation."""
    adata = st.datasets.simulated_tissue(n_cells=250, n_targets=2, n_tfs=4, n_active_tfs=2, depth=5.0, rng=1)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, st.datasets.simulated_priors(adata).ligand_receptor, layer="log1p")
    st.pp.modulators(adata, st.datasets.simulated_priors(adata).grn)
    st.tl.fit_betas(adata, body="seed", l1_penalty=0.02, group_penalty=0.02, n_jobs=1)
    st.tl.perturb(adata, "FOXO1", n_jobs=1)
    return adata


@pytest.fixture
def tissue(_tissue: AnnData) -> AnnData:
    return _tissue.copy()


def priors(adata: Any) -> Any:
    return st.datasets.simulated_priors(adata if isinstance(adata, AnnData) else adata.tables["cells"])


def observed(adata: Any) -> AnnData:
    """What an experiment with the same result would have measured."""
    table = adata if isinstance(adata, AnnData) else adata.tables["cells"]
    change = np.asarray(table.layers["perturbed"]) - np.asarray(table.layers["log1p"])
    out = AnnData(change.mean(axis=0, keepdims=True), var=table.var[[]])
    out.obs_names = ["FOXO1"]
    return out


Call = Callable[..., Any]
#: A call of each function, and where its result is written; "" where it is returned.
CALLS: dict[str, tuple[Call, str]] = {
    "pp.denoise": (lambda a, **k: st.pp.denoise(a, layer="log1p", key_added="new", **k), "layers"),
    "pp.impute": (lambda a, **k: st.pp.impute(a, layer="log1p", key_added="new", **k), "layers"),
    "pp.modulators": (lambda a, **k: st.pp.modulators(a, priors(a).grn, key_added="new", **k), "uns"),
    "pp.niche": (lambda a, **k: st.pp.niche(a, key_added="new", **k), "uns"),
    "pp.received_ligands": (
        lambda a, **k: st.pp.received_ligands(a, priors(a).ligand_receptor, layer="log1p", key_added="new", **k), "uns",
    ),
    "pp.spatial_weights": (lambda a, **k: st.pp.spatial_weights(a, key_added="new", **k), "uns"),
    "pp.split_counts": (lambda a, **k: st.pp.split_counts(a, counts_layer="counts", key_added="new", **k), "layers"),
    "tl.drivers": (lambda a, **k: st.tl.drivers(a, "PAX5", n_check=0, key_added="new", **k), "uns"),
    "tl.evaluate_perturbation": (lambda a, **k: st.tl.evaluate_perturbation(a, observed(a), **k), ""),
    "tl.fit_betas": (
        lambda a, **k: st.tl.fit_betas(
            a, body="seed", l1_penalty=0.02, group_penalty=0.02, n_jobs=1, key_added="new", **k
        ),
        "uns",
    ),
    "tl.genome_screen": (lambda a, **k: st.tl.genome_screen(a, genes=["FOXO1"], n_jobs=1, **k), ""),
    "tl.microniches": (lambda a, **k: st.tl.microniches(a, n_niches=2, key_added="new", **k), "obs"),
    "tl.null_fits": (
        lambda a, **k: st.tl.null_fits(
            a, "shuffled", n_fits=1, counts_layer="counts", genes=["FOXO1"], n_jobs=1, key_added="new", **k
        ),
        "uns",
    ),
    "tl.perturb": (lambda a, **k: st.tl.perturb(a, "FOXO1", key_added="new", **k), "uns"),
    "tl.perturb_batch": (lambda a, **k: st.tl.perturb_batch(a, ["FOXO1"], **k), ""),
    "tl.perturbation_vectors": (
        lambda a, **k: st.tl.perturbation_vectors(a, n_shuffles=1, key_added="new", **k), "obsm",
    ),
    "tl.possible_targets": (lambda a, **k: st.tl.possible_targets(a, **k), ""),
    "tl.replicate": (
        lambda a, **k: st.tl.replicate(a, counts_layer="counts", genes="FOXO1", n_jobs=1, key_added="new", **k), "uns",
    ),
    "tl.test_signals": (
        lambda a, **k: st.tl.test_signals(a, counts_layer="counts", n_jobs=1, key_added="new", **k), "uns",
    ),
    "tl.transfer_betas": (
        lambda a, **k: st.tl.transfer_betas(
            a if isinstance(a, AnnData) else a.tables["cells"].copy(), a, key_added="new", **k
        ),
        "uns",
    ),
}  # fmt: skip


def takes_spatialdata() -> Iterator[str]:
    for module in (st.pp, st.tl):
        for name in module.__all__:
            first = next(iter(inspect.signature(getattr(module, name)).parameters.values()))
            if "SpatialData" in str(first.annotation):
                yield f"{module.__name__.rpartition('.')[2]}.{name}"


def test_every_function_is_tried() -> None:
    assert list(takes_spatialdata()) == list(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_place_of_the_argument(name: str) -> None:
    module, _, function = name.partition(".")
    parameters = inspect.signature(getattr(getattr(st, module), function)).parameters
    assert parameters["table_key"].kind is inspect.Parameter.KEYWORD_ONLY
    names = list(parameters)
    if "copy" in names:
        assert names[-1] == "copy"


@pytest.mark.parametrize("name", CALLS)
def test_the_table_that_is_named(tissue: AnnData, name: str) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    call, where = CALLS[name]
    other = tissue[:5].copy()
    sdata = spatialdata.SpatialData(tables={"cells": tissue, "other": other})

    def written(adata: AnnData) -> list[str]:
        return [key for key in getattr(adata, where) if str(key).startswith("new")]

    result = call(sdata, table_key="cells")
    if where:
        assert result is None
        assert written(sdata.tables["cells"])
        assert not written(sdata.tables["other"])
    else:
        assert len(result)
    with pytest.raises(ValueError, match="pass `table_key=`"):
        call(sdata)
    with pytest.raises(KeyError, match="'spots' .`table_key`."):
        call(sdata, table_key="spots")
    with pytest.raises(ValueError, match="Expected `table_key` with SpatialData only"):
        call(tissue, table_key="cells")


def test_one_key_for_two_objects(tissue: AnnData) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    one, two = (spatialdata.SpatialData(tables={"cells": tissue.copy(), "other": tissue[:5].copy()}) for _ in range(2))
    st.tl.transfer_betas(one, two, key_added="new", table_key="cells")
    assert "new" in two.tables["cells"].uns
    st.tl.transfer_betas(one, tissue, key_added="new", table_key="cells")
    np.testing.assert_array_equal(tissue.obsm["new"], two.tables["cells"].obsm["new"])
