"""Ligand activity against closed forms and against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra import numpy as hnp
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from spacetravlr.priors import ligand_activity


def test_a_ligand_that_knows_the_set_and_one_that_knows_nothing(potential: pd.DataFrame) -> None:
    table = ligand_activity(potential, ["A", "B"], ["A", "B", "C", "D"]).set_index("ligand")
    assert list(table.columns) == ["pearson", "auroc", "aupr", "aupr_corrected"]
    assert table.index[0] == "TGFB1"
    # A and B rank first: perfect, half of the genes are in the set
    assert tuple(table.loc["TGFB1", ["auroc", "aupr", "aupr_corrected"]]) == pytest.approx((1, 1, 0.5))
    assert table.loc["TGFB1", "pearson"] == pytest.approx(np.corrcoef(potential["TGFB1"], [1, 1, 0, 0])[0, 1])
    assert table.loc["IL4", "auroc"] == pytest.approx(0.5)
    assert np.isnan(table.loc["IL4", "pearson"])


def test_long_potential_and_gene_set_outside_the_background(potential: pd.DataFrame) -> None:
    wide = ligand_activity(potential, ["A", "B"], ["C", "D"])
    long = potential.stack().rename("score").rename_axis(["tf", "ligand"]).reset_index()
    pd.testing.assert_frame_equal(ligand_activity(long, ["A", "B"], ["C", "D", "unknown"]), wide, check_exact=False)
    pd.testing.assert_frame_equal(ligand_activity(potential, ["A", "B"], list("ABCD")), wide)


def test_ligands_and_order(potential: pd.DataFrame) -> None:
    table = ligand_activity(potential, ["A", "C"], list("ABCD"), ligands=["WNT5A", "TGFB1"], sort_by="pearson")
    assert set(table["ligand"]) == {"WNT5A", "TGFB1"}
    assert table["pearson"].is_monotonic_decreasing


def test_errors(potential: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="Expected `gene_set` to share genes with the targets of `potential`"):
        ligand_activity(potential, ["x"], list("ABCD"))
    with pytest.raises(ValueError, match="Expected `background` to share genes"):
        ligand_activity(potential, ["A"], ["A"])
    with pytest.raises(KeyError, match="the ligands of `potential`, found unknown 'TGFB2'"):
        ligand_activity(potential, ["A"], ["B"], ligands=["TGFB2"])
    with pytest.raises(ValueError, match="Expected `potential` to be finite"):
        ligand_activity(potential.replace(0.9, np.nan), ["A"], ["B"])
    with pytest.raises(ValueError, match="Expected `sort_by` to be one of"):
        ligand_activity(potential, ["A"], ["B"], sort_by="spearman")


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float64, 12, elements=hs.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9])),
    hs.sets(hs.integers(0, 11), min_size=1, max_size=11),
)
def test_areas_are_those_of_scikit_learn(values: np.ndarray, members: set[int]) -> None:
    genes = [f"G{i}" for i in range(12)]
    row = ligand_activity(pd.DataFrame({"L": values}, index=genes), [genes[i] for i in members], genes).iloc[0]
    y = np.isin(np.arange(12), list(members))
    precision, recall, _ = precision_recall_curve(y, values)
    assert row["aupr"] == pytest.approx(auc(recall, precision))
    assert row["auroc"] == pytest.approx(roc_auc_score(y, values))


def test_real_potential_finds_the_ligand_whose_targets_are_asked_for(data_dir: Path) -> None:
    path = data_dir / "nichenet_v2_subset_human.parquet"
    wide = pd.read_parquet(path)
    ligand = wide.columns[5]
    table = ligand_activity(path, list(wide[ligand].nlargest(30).index), list(wide.index))
    assert table.loc[0, "ligand"] == ligand
    assert len(table) == wide.shape[1]
