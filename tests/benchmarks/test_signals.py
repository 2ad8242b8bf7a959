"""The script of the tables of signals runs, resumes, and its measures know the truth."""

import matplotlib.image as mpimg
import numpy as np
import pytest
from benchmarks.signals import Setting, acting, main, tissue
from benchmarks.signals_real import plant


@pytest.mark.filterwarnings("ignore")
def test_quick_run_writes_everything(tmp_path, capsys):
    arguments = ["--quick", "--results", str(tmp_path / "r.csv"), "--out", str(tmp_path / "t.md"),
                 "--figure", str(tmp_path / "f.png")]  # fmt: skip
    main(arguments)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["300 cells, no cause", "300 cells, signals act"]
    assert mpimg.imread(tmp_path / "f.png").std() > 0
    capsys.readouterr()
    main(arguments)
    assert "seed" not in capsys.readouterr().out  # nothing is run again


@pytest.mark.filterwarnings("ignore")
def test_what_acts():
    adata = tissue(Setting(200, "signals act"), 100, 2)
    assert 8 <= len(acting(adata, "signals act")) <= 10  # four pairs and a ligand-TF pair each, of one signal perhaps
    assert acting(adata, "shuffled") == set()


@pytest.mark.filterwarnings("ignore")
def test_a_planted_signal_moves_counts_among_cells_of_a_type():
    adata, shares = tissue(Setting(800, "no cause", depth=7.0), 100, 2), {}
    targets = list(adata.var_names[adata.var["role"] == "target"])
    for strength in (0.0, 0.9):
        other = adata.copy()
        planted, shares[strength] = plant(other, targets, strength, seed=0)
        assert list(planted) == targets
        assert set(planted.values()) <= set(adata.uns["received_ligands"].columns)
        for name in adata.obs["cell_type"].unique():
            rows = np.flatnonzero(adata.obs["cell_type"] == name)
            before, after = (np.sort(a.layers["counts"][rows].toarray(), axis=0) for a in (adata, other))
            np.testing.assert_array_equal(before, after)
    assert shares[0.0] < 0.01
    assert shares[0.9] > 0.1
