"""Sources of every kind give the same table, and a wrong one says what was found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr.priors._tables import read_table


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.txt", "t.parquet", "t.feather"])
@pytest.mark.parametrize("as_text", [True, False])
def test_every_format_reads_the_same(tmp_path: Path, edges: pd.DataFrame, name: str, as_text: bool) -> None:
    path = tmp_path / name
    if ".csv" in name:
        edges.to_csv(path, index=False)
    elif name.endswith((".tsv", ".txt")):
        edges.to_csv(path, index=False, sep="\t")
    else:
        getattr(edges, f"to_{name.split('.')[1]}")(path)
    pd.testing.assert_frame_equal(
        st.priors.read_base_grn(str(path) if as_text else path), st.priors.read_base_grn(edges)
    )


def test_source_must_exist_and_be_a_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Expected `grn` to be the path of a file"):
        read_table(tmp_path / "nowhere.csv", name="grn")
    with pytest.raises(TypeError, match="found `list`"):
        read_table([1, 2], name="grn")  # type: ignore[arg-type]
    (tmp_path / "grn.xlsx").touch()
    with pytest.raises(ValueError, match=r"Expected `grn` to end in .csv.*found `grn\.xlsx`"):
        read_table(tmp_path / "grn.xlsx", name="grn")


def test_reading_leaves_the_source_alone(edges: pd.DataFrame) -> None:
    before = edges.copy(deep=True)
    st.priors.read_base_grn(edges, confidence="AB")
    pd.testing.assert_frame_equal(edges, before)
