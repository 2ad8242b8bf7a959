"""What holds for every test: no window is opened, no progress bar drawn, nothing written to the user's cache."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest

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
