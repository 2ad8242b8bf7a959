"""Ligand-TF potentials: long, wide, either way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spacetravlr.priors import read_ligand_tf


def as_dict(table: pd.DataFrame) -> dict[tuple[str, str], float]:
    return {(str(r.ligand), str(r.tf)): round(float(r.score), 6) for r in table.itertuples()}


def test_wide_either_way_and_long_agree(potential: pd.DataFrame) -> None:
    wide = as_dict(read_ligand_tf(potential))
    assert len(wide) == 12
    assert wide["TGFB1", "B"] == pytest.approx(0.8)
    assert as_dict(read_ligand_tf(potential.T, orient="ligand_by_tf")) == wide
    # an axis that is called after what it holds needs no option
    assert as_dict(read_ligand_tf(potential.T.rename_axis("ligand"))) == wide
    long = potential.stack().rename("weight").rename_axis(["target", "ligand"]).reset_index()
    assert as_dict(read_ligand_tf(long)) == wide


def test_min_score(potential: pd.DataFrame) -> None:
    assert as_dict(read_ligand_tf(potential, min_score=0.75)) == {("TGFB1", "A"): 0.9, ("TGFB1", "B"): 0.8}
    long = potential.stack().rename("score").rename_axis(["tf", "ligand"]).reset_index()
    for table in (potential, long):
        with pytest.raises(ValueError, match=r"to hold scores above 2 \(`min_score`.*found 0.9 at most"):
            read_ligand_tf(table, min_score=2)
    with pytest.raises(ValueError, match="Expected `ligand_tf` to hold at least one row"):
        read_ligand_tf(long.assign(ligand=None))


def test_schema(potential: pd.DataFrame) -> None:
    table = read_ligand_tf(potential)
    assert list(table.columns) == ["ligand", "tf", "score"]
    assert table["score"].dtype == np.float32
    pd.testing.assert_frame_equal(read_ligand_tf(table), table)


def test_errors() -> None:
    with pytest.raises(ValueError, match="to have a column 'score'.*found 'ligand', 'tf', 'note'"):
        read_ligand_tf(pd.DataFrame({"ligand": ["A"], "tf": ["B"], "note": ["x"]}))
    with pytest.raises(ValueError, match="long table or a wide matrix"):
        read_ligand_tf(pd.DataFrame({"a": ["A"], "b": ["B"]}))
    with pytest.raises(ValueError, match="Expected `orient` to be one of"):
        read_ligand_tf(pd.DataFrame({"A": [1.0]}, index=["B"]), orient="tf_by_gene")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nichenet_v2_subset_human", "nichenet_like_ligand_tf_human"])
def test_real_table(data_dir: Path, name: str) -> None:
    wide = pd.read_parquet(data_dir / f"{name}.parquet")
    table = read_ligand_tf(data_dir / f"{name}.parquet")
    assert set(table["ligand"].cat.categories) <= set(wide.columns)
    assert len(table) == int((wide.to_numpy() > 0).sum())
    row = table.iloc[len(table) // 2]
    assert wide.loc[row["tf"], row["ligand"]] == row["score"]
