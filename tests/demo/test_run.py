"""The first command of the README, from the tissue to the figures and the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import spacetravlr as st

ROOT = Path(__file__).parents[2]


def test_the_demonstration_runs_to_its_end(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "demo" / "run.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Recovery of the regulation" in done.stdout
    figures = {path.stem for path in tmp_path.glob("*.png")}
    assert {"overview", "betas", "scores", "perturbation_vectors", "screen"} <= figures
    assert {"perturbed", "log1p"} <= set(st.io.read(tmp_path / "demo.h5ad").layers)
