"""Effects held against measurements from outside: the scores, and the whole on a tiny tissue with a made-up truth."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from benchmarks import external
from benchmarks._outside import FACTORS, LIGANDS, auc, bootstrap, compare_factors, compare_ligands, read_truth
from benchmarks._sections import Priors

import spacetravlr as st

GENES = [f"G{i}" for i in range(8)]


def write_truth(folder, ligands, sets):
    ligands.to_csv(folder / LIGANDS, sep="\t")
    with gzip.open(folder / FACTORS, "wt") as file:
        for name, genes in sets.items():
            file.write("\t".join([name, "", *genes]) + "\n")
    return read_truth(folder)


def test_signs_of_sets(tmp_path):
    sets = {
        "A OE HUMAN GSE1 CREEDSID GENE 1 UP": ["G0", "G1"],
        "A OE HUMAN GSE1 CREEDSID GENE 1 DOWN": ["G2"],
        "A KD HUMAN MCF7 GSE2 CREEDSID GENE 2 UP": ["G1", "G3"],
        "A MUT HUMAN GSE3 CREEDSID GENE 3 UP": ["G7"],
        "B SHRNA HUMAN GSE4 CREEDSID GENE 4 DOWN": ["G4", ""],
    }
    truth = write_truth(tmp_path, pd.DataFrame({"TNFA": 1.0, "IL6": 2.0}, index=GENES), sets)
    assert list(truth.ligands) == ["TNF", "IL6"]
    assert truth.factors["A"].to_dict() == {"G0": 1, "G1": 0, "G2": -1, "G3": -1}
    assert truth.factors["B"].to_dict() == {"G4": 1}


def test_auc_is_a_probability():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 4, 30).astype(float), rng.random(30) < 0.4
    pairs = np.sign(scores[positive][:, None] - scores[~positive])
    assert auc(scores, positive) == pytest.approx((pairs.mean() + 1) / 2)
    assert np.isnan(auc(scores, np.ones(30, bool)))


def test_interval_holds_the_mean():
    found = bootstrap([np.arange(50.0)], np.mean, seed=0)
    assert found.mean == 24.5
    assert found.low == pytest.approx(24.5 - 1.96 * 14.4 / np.sqrt(50), abs=0.5)
    assert str(bootstrap([np.array([])], np.mean, seed=0)) == "-"


def test_right_factors():
    factors = {"A": pd.Series({"G0": 1, "G1": -1}), "B": pd.Series({"G4": 1, "G5": 0})}
    effects = pd.DataFrame(0.0, index=["A", "B"], columns=GENES)
    effects.loc["A", ["G0", "G1"]] = 2.0, -1.0
    effects.loc["B", ["G4", "G5"]] = -1.0, 1.0
    found = compare_factors(effects, factors, seed=0)
    assert (found["auc"].mean, found["pairs"], found["factors"]) == (1.0, 3, 2)
    assert found["others"].mean < 0.5 < found["difference"].mean + 0.5
    assert found["sign"].mean == pytest.approx(2 / 3)
    assert found["by chance"] == pytest.approx(1 / 3 * 2 / 3 + 2 / 3 * 1 / 3)
    nothing = compare_factors(effects * 0, factors, seed=0)
    assert nothing["auc"].mean == 0.5
    assert np.isnan(nothing["sign"].mean)


def test_right_ligands():
    rng = np.random.default_rng(0)
    names = list("ABCDE")
    measured = pd.DataFrame(rng.normal(size=(8, 5)), index=GENES, columns=names)
    found = compare_ligands(measured.T * 3 + 1, measured, seed=0)
    assert found["rank"].mean == 1
    assert found["matched"].mean == pytest.approx(1)
    assert compare_ligands(-measured.T, measured, seed=0)["rank"].mean == 0
    nothing = compare_ligands(measured.T * 0, measured, seed=0)
    assert (nothing["rank"].mean, nothing["matched"].mean, nothing["with effects"]) == (0.5, 0, 0)


def test_runs_on_a_tiny_tissue(tmp_path):
    adata = st.datasets.simulated_tissue(n_cells=300, n_cell_types=2, n_targets=6, rng=0)
    priors = Priors(*st.datasets.simulated_priors(adata))
    roles = {role: list(adata.var_names[adata.var["role"] == role]) for role in ("tf", "ligand", "target")}
    rng = np.random.default_rng(0)
    ligands = pd.DataFrame(rng.normal(size=(6, 3)), index=roles["target"], columns=roles["ligand"][:3])
    sets = {
        f"{tf} {how} HUMAN GSE1 CREEDSID GENE 1 {direction}": rng.choice(roles["target"], 2, replace=False)
        for tf, how in zip(roles["tf"][:3], ("OE", "KD", "OE"), strict=True)
        for direction in ("UP", "DOWN")
    }
    sets[f"{roles['tf'][3]} OE HUMAN GSE1 CREEDSID GENE 1 UP"] = roles["target"]  # changes all: nothing to compare
    truth = write_truth(tmp_path, ligands, sets)
    fits = {"seeds": {"layer": "log1p", "body": "seed"}}
    found = external.evaluate(adata, priors, truth, fits, n_targets=6, seed=0, n_jobs=1)
    of_factors, of_ligands = found
    assert list(of_ligands) == ["correlation, measured values", "least squares, measured values", "seeds"]
    assert of_factors["seeds"]["knockouts"]["factors"] == 3
    assert of_ligands["seeds"]["with effects"] == 3
    first, second = external.tables(*found).split("\n\n")
    assert len(first.splitlines()) == 2 + 7
    assert len(second.splitlines()) == 2 + 3


@pytest.mark.slow
def test_quick_run_writes_the_table(tmp_path, data_dir):
    if not (data_dir / "external").is_dir():
        pytest.skip("no measurements from outside")
    external.main(["--quick", "--n-jobs", "1", "--out", str(tmp_path / "external.md")])
    assert "fit, measured values: knockouts" in (tmp_path / "external.md").read_text()


def test_no_folder(monkeypatch, capsys):
    monkeypatch.delenv("SPACETRAVLR_DATA", raising=False)
    with pytest.raises(SystemExit):
        external.main([])
    assert "SPACETRAVLR_DATA names no folder" in capsys.readouterr().err
