"""What holds for every test: no window is opened, no progress bar drawn, nothing written to the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def _use_kernels_of_these_sources() -> None:
    """Keep compiled kernels in a folder named by the sources of all of them.

    numba looks at the file of a kernel only, so that one would be taken from the cache though what it calls, in another
    file, is no longer the same. Child processes inherit the folder; one that was chosen by hand is left as it is.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    sources = sorted((_ROOT / "src" / "spacetravlr" / "_core").rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    folder = _ROOT / ".pytest_cache" / "kernels" / digest
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


_use_kernels_of_these_sources()  # before numba is imported

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spacetravlr as st

mpl.use("Agg")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--internet", action="store_true", help="run the tests that download")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--internet"):
        _skip(items, "internet", "downloads; pass --internet")
    # torch is imported only when there is something to decide
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "no CUDA device")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _quiet_and_contained(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st.settings, "show_progress_bar", False)
    monkeypatch.setattr(st.settings, "cache_dir", tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture
def data_dir() -> Path:
    """Folder of real sections and tables; the test is skipped where there is none."""
    folder = st.settings.data_dir
    if folder is None or not folder.is_dir():
        pytest.skip("SPACETRAVLR_DATA names no folder")
    return folder


@pytest.fixture(scope="session")
def _fitted() -> AnnData:
    """Build a small tissue with its true coefficients in the place of fitted ones."""
    adata = st.datasets.simulated_tissue(
        n_cells=150,
        n_cell_types=3,
        n_targets=5,
        n_tfs=4,
        n_active_tfs=3,
        n_pairs=5,
        n_active_pairs=3,
        n_contact_pairs=1,
        n_ligand_tf=2,
        n_relays=2,
        rng=1,
    )
    names = ["T/NK", "B", "stroma"]
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(names)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"], layer="log1p")
    terms = adata.uns["simulation"]["terms"].copy()
    terms["importance"] = np.linspace(0, 1, len(terms))
    terms["evidence"] = 1.0
    targets = list(dict.fromkeys(terms["target"].astype(str)))
    sizes = adata.obs["cell_type"].value_counts()
    scores = pd.DataFrame(
        [
            {
                "target": target,
                "cell_type": name,
                "n_cells": int(sizes[name]),
                "n_report": int(sizes[name]) // 4,
                "sst_report": 1.0 + i,
                "r2_zero": 0.0,
                "r2_kept": 0.1 * t + 0.2 * i,
                "kept": "zero" if t == 0 and i == 0 else "surface",
            }
            for t, target in enumerate(targets)
            for i, name in enumerate(names)
        ]
    )
    adata.obsm["betas"] = adata.obsm["true_betas"].copy()
    adata.uns["betas"] = {
        "terms": terms,
        "scores": scores,
        "params": {"layer": "log1p", "cluster_key": "cell_type", "received_key": "received_ligands"},
        "store": "",
    }
    return adata


@pytest.fixture
def adata(_fitted: AnnData) -> AnnData:
    """Copy the small tissue; folders that need another one define their own."""
    return _fitted.copy()


@pytest.fixture
def with_receptors(_fitted: AnnData) -> AnnData:
    """Add to the small tissue what a fit adds by default: the receptor of each pair by itself, in every target."""
    adata = _fitted.copy()
    terms, betas = adata.uns["betas"]["terms"], adata.obsm["betas"]
    rng = np.random.default_rng(5)
    tables, values = [], []
    for target in dict.fromkeys(terms["target"].astype(str)):
        own = (terms["target"] == target).to_numpy()
        receptors = terms.loc[own, "receptor"].astype(str).replace("", np.nan).dropna().unique()
        added = pd.DataFrame({"kind": "receptor", "tf": "", "ligand": "", "receptor": receptors, "range": ""})
        added = added.assign(target=target, importance=0.5, evidence=1.0, active=True)
        tables += [terms[own].astype({c: str for c in added if c not in ("importance", "evidence", "active")}), added]
        values += [betas[:, own], rng.normal(0.3, 0.1, (len(betas), len(added))).astype(np.float32)]
    adata.obsm["betas"] = np.concatenate(values, axis=1)
    adata.uns["betas"] = {**adata.uns["betas"], "terms": pd.concat(tables, ignore_index=True)}
    return adata
