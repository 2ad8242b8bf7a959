"""Base networks: long, wide, weighted, with levels of confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from hypothesis.extra import numpy as hnp

from spacetravlr.priors import read_base_grn


def as_set(table: pd.DataFrame) -> set[tuple[str, str, float]]:
    return {(str(r.tf), str(r.target), float(r.weight)) for r in table.itertuples()}


def test_long(edges: pd.DataFrame) -> None:
    table = read_base_grn(edges)
    assert list(table.columns) == ["tf", "target", "weight"]
    assert table["weight"].dtype == np.float32
    assert isinstance(table["tf"].dtype, pd.CategoricalDtype)
    assert as_set(table) == {
        ("FOXO1", "PAX5", 1.0), ("FOXO1", "CD19", -1.0), ("PAX5", "CD19", 1.0), ("GATA3", "IL4", 1.0)
    }  # fmt: skip


@pytest.mark.parametrize("names", [("source", "target"), ("source_genesymbol", "target_genesymbol"), ("TF", "gene")])
def test_other_column_names(edges: pd.DataFrame, names: tuple[str, str]) -> None:
    renamed = edges.drop(columns=["confidence"]).rename(columns={"tf": names[0], "target": names[1], "mor": "weight"})
    assert as_set(read_base_grn(renamed)) == as_set(read_base_grn(edges))


def test_symbols_are_preferred_to_identifiers() -> None:
    table = pd.DataFrame(
        {"source": ["P1"], "target": ["P2"], "source_genesymbol": ["STAT1"], "target_genesymbol": ["IRF1"]}
    )
    assert as_set(read_base_grn(table)) == {("STAT1", "IRF1", 1.0)}


def test_confidence(edges: pd.DataFrame) -> None:
    assert len(read_base_grn(edges, confidence="AB")) == 3
    assert len(read_base_grn(edges, confidence=["E"])) == 1
    with pytest.raises(ValueError, match="Expected `confidence` to be levels of `grn`.*found 'Z'"):
        read_base_grn(edges, confidence="AZ")
    with pytest.raises(ValueError, match="to have a column 'confidence'.*found 'tf', 'target', 'mor'"):
        read_base_grn(edges.drop(columns="confidence"), confidence="A")
    with pytest.raises(ValueError, match="to have a column 'confidence'"):
        read_base_grn(pd.DataFrame({"PAX5": [1]}, index=["FOXO1"]), confidence="A")


def test_best_level_of_omnipath_counts() -> None:
    table = pd.DataFrame({"source": ["X", "Y"], "target": ["G", "G"], "dorothea_level": ["A;D", "D"]})
    assert list(read_base_grn(table, confidence="A")["tf"]) == ["X"]


def test_wide_both_orientations() -> None:
    wide = pd.DataFrame([[1, 0, 2.5], [0, 1, 0]], index=["FOXO1", "PAX5"], columns=["CD19", "IL4", "CD79A"])
    wanted = {("FOXO1", "CD19", 1.0), ("FOXO1", "CD79A", 2.5), ("PAX5", "IL4", 1.0)}
    assert as_set(read_base_grn(wide)) == wanted
    assert as_set(read_base_grn(wide.T, orient="gene_by_tf")) == wanted
    with pytest.raises(ValueError, match="Expected `orient` to be one of"):
        read_base_grn(wide, orient="sideways")  # type: ignore[arg-type]


def test_tables_the_wrong_way_round() -> None:
    factors, genes = ["FOXO1", "STAT3", "GATA3", "PAX5"], ["CD19", "IL7R", "ACTB", "COL1A1"]
    long = pd.DataFrame({"tf": genes, "target": factors})
    with pytest.warns(UserWarning, match="look more like transcription factors than its regulators .such as 'CD19'"):
        read_base_grn(long)
    read_base_grn(long.rename(columns={"tf": "target", "target": "tf"}))
    wide = pd.DataFrame(np.eye(4), index=genes, columns=factors)
    assert as_set(read_base_grn(wide)) == {(tf, gene, 1.0) for tf, gene in zip(factors, genes, strict=True)}
    named = pd.DataFrame(np.eye(2), index=pd.Index(["x", "y"], name="target"), columns=["a", "b"])
    assert as_set(read_base_grn(named)) == {("a", "x", 1.0), ("b", "y", 1.0)}


def test_edges_without_a_weight_are_left_out_aloud() -> None:
    known = pd.DataFrame({"tf": ["FOXO1", "STAT3"], "target": ["PAX5", "CD19"], "weight": [0.5, 0.0]})
    more = pd.concat([known, pd.DataFrame({"tf": ["IRF4"], "target": ["CD79A"]})])
    with pytest.warns(UserWarning, match=r"1 of 3 edges of `grn` have no 'weight'.*'IRF4' -> 'CD79A'"):
        found = read_base_grn(more)
    assert as_set(found) == {("FOXO1", "PAX5", 0.5)}
    assert len(read_base_grn(more.drop(columns="weight"))) == 3


def test_wide_csv_takes_the_first_column_as_names(tmp_path: Path) -> None:
    wide = pd.DataFrame([[1, 0], [0, 1]], index=["FOXO1", "PAX5"], columns=["CD19", "IL4"])
    wide.to_csv(tmp_path / "wide.csv")
    assert as_set(read_base_grn(tmp_path / "wide.csv")) == as_set(read_base_grn(wide))


def test_celloracle_peaks_of_a_gene_are_merged() -> None:
    oracle = pd.DataFrame(
        {
            "peak_id": ["chr1_1_2", "chr1_5_6", "chr2_1_2"],
            "gene_short_name": ["CD19", "CD19", "IL4"],
            "FOXO1": [1.0, 1.0, 0.0],
            "GATA3": [0.0, 0.0, 1.0],
        }
    )
    assert as_set(read_base_grn(oracle)) == {("FOXO1", "CD19", 1.0), ("GATA3", "IL4", 1.0)}


def test_untidy_rows_are_left_out() -> None:
    table = pd.DataFrame(
        {
            "tf": [" FOXO1", "FOXO1", None, "", "PAX5", "GATA3"],
            "target": ["CD19", "CD19 ", "X", "Y", None, "IL4"],
            "weight": [1.0, 2.0, 1.0, 1.0, 1.0, 0.0],
        }
    )
    assert as_set(read_base_grn(table)) == {("FOXO1", "CD19", 1.0)}


def test_errors_name_what_was_found() -> None:
    with pytest.raises(ValueError, match=r"long table or a wide matrix.*found columns 'a', 'b'"):
        read_base_grn(pd.DataFrame({"a": ["x"], "b": ["y"]}))
    with pytest.raises(ValueError, match="Expected `grn` to hold at least one row"):
        read_base_grn(pd.DataFrame({"tf": ["A"], "target": ["B"], "weight": [0.0]}))
    with pytest.raises(ValueError, match="Expected column 'weight' of `grn` to hold numbers, found `'strong'`"):
        read_base_grn(pd.DataFrame({"tf": ["A"], "target": ["B"], "weight": ["strong"]}))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=hs.integers(0, 1)))
def test_wide_and_long_agree(mask: np.ndarray) -> None:
    wide = pd.DataFrame(
        mask, index=[f"T{i}" for i in range(len(mask))], columns=[f"G{j}" for j in range(mask.shape[1])]
    )
    long = wide.stack().rename("weight").rename_axis(["tf", "target"]).reset_index()
    if not mask.any():
        with pytest.raises(ValueError, match="at least one row"):
            read_base_grn(wide)
        return
    assert (
        as_set(read_base_grn(wide)) == as_set(read_base_grn(long)) == as_set(read_base_grn(wide.T, orient="gene_by_tf"))
    )


@pytest.mark.parametrize(("organism", "tf"), [("human", "STAT1"), ("mouse", "Stat1")])
def test_real_table(data_dir: Path, organism: str, tf: str) -> None:
    path = data_dir / f"grn_{organism}_dorothea.parquet"
    table = read_base_grn(path, confidence="ABCD")
    assert 20_000 < len(table) < 40_000 < len(read_base_grn(path))
    assert tf in table["tf"].cat.categories
    assert not table.duplicated(["tf", "target"]).any()
