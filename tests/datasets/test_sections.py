"""Real sections are read from the local folder, and their absence is explained."""

import numpy as np
import pytest

import spacetravlr as st

SECTIONS = ["human_nsclc_cosmx", "mouse_visual_cortex_starmap", "human_breast_st", "mouse_cerebellum_slideseq"]


@pytest.mark.parametrize("name", SECTIONS)
def test_reads_local_folder(name, tmp_path, monkeypatch):
    small = st.datasets.simulated_tissue(n_cells=20, n_targets=2)
    small.write_h5ad(tmp_path / f"{name}.h5ad")
    monkeypatch.setenv("SPACETRAVLR_DATA", str(tmp_path))
    np.testing.assert_array_equal(getattr(st.datasets, name)().X, small.X)


@pytest.mark.parametrize("name", SECTIONS)
def test_absence_is_explained(name, tmp_path, monkeypatch):
    monkeypatch.delenv("SPACETRAVLR_DATA", raising=False)
    monkeypatch.setattr(st.settings, "cache_dir", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"github\.com/.*simulated_tissue"):
        getattr(st.datasets, name)()
