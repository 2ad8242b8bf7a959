"""The script of the tables of signals runs, resumes, and its measures know the truth."""

import matplotlib.image as mpimg
import pytest
from benchmarks.signals import Setting, acting, main, tissue


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
