"""The first commands of the README, from the tissue to the figures and the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spacetravlr as st

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "demo" / "run.py"), "--out", str(folder / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    figures = {path.stem for path in (folder / "out").glob("*.png")}
    assert {"overview", "betas", "scores", "perturbation_vectors", "screen"} <= figures
    assert {"perturbed", "log1p"} <= set(st.io.read(folder / "out" / "demo.h5ad").layers)
    return done.stdout


@pytest.mark.slow
def test_on_a_simulated_tissue(tmp_path: Path) -> None:
    assert "Recovery of the regulation" in run(tmp_path)


@pytest.mark.slow
def test_on_a_section(tmp_path: Path, data_dir: Path) -> None:
    lung = st.io.read(data_dir / "human_nsclc_cosmx.h5ad")
    corner = np.argsort(np.asarray(lung.obsm["spatial"]).sum(axis=1))[:800]
    lung[corner].copy().write_h5ad(tmp_path / "corner.h5ad")
    assert "Held-out R2 over 3 targets" in run(tmp_path, "--data", str(tmp_path / "corner.h5ad"), "--targets", "3")
