"""Tables carried from one organism to another."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from spacetravlr.priors import map_orthologs, read_base_grn, read_ligand_receptor


@pytest.fixture
def orthologs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "human": ["FOXO1", "PAX5", "TGFB1", "TGFBR1", "TGFBR2", "KLRC1", "KLRC1"],
            "mouse": ["Foxo1", "Pax5", "Tgfb1", "Tgfbr1", "Tgfbr2", "Klrc1", "Klrc2"],
        }
    )


def test_rows_without_an_ortholog_are_left_out(edges: pd.DataFrame, orthologs: pd.DataFrame) -> None:
    before = edges.copy(deep=True)
    mapped = map_orthologs(edges, orthologs)
    assert list(mapped[["tf", "target"]].itertuples(index=False, name=None)) == [("Foxo1", "Pax5")]
    assert list(mapped.columns) == list(edges.columns)
    pd.testing.assert_frame_equal(edges, before)


def test_complexes_several_orthologs_and_the_way_back(orthologs: pd.DataFrame) -> None:
    pairs = pd.DataFrame({"ligand": ["TGFB1", "TGFB1"], "receptor": ["TGFBR1_TGFBR2", "KLRC1"], "pathway": ["a", "b"]})
    mapped = map_orthologs(pairs, orthologs)
    assert list(mapped["receptor"]) == ["Tgfbr1_Tgfbr2", "Klrc1", "Klrc2"]
    back = map_orthologs(mapped, orthologs, source="mouse", target="human")
    pd.testing.assert_frame_equal(back, pairs)


def test_mapping_columns_and_category(edges: pd.DataFrame) -> None:
    mapped = map_orthologs(read_base_grn(edges), {"FOXO1": "Foxo1"}, columns=["tf"])
    assert list(mapped["target"]) == ["PAX5", "CD19"]
    assert list(mapped["tf"].cat.categories) == ["Foxo1"]


def test_errors(edges: pd.DataFrame, orthologs: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="Expected `table` to have 'gene2', found 'tf', 'target'"):
        map_orthologs(edges, orthologs, columns=["gene2"])
    with pytest.raises(ValueError, match="a column of gene names, found 'x'.*`columns=`"):
        map_orthologs(pd.DataFrame({"x": ["FOXO1"]}), orthologs)
    with pytest.raises(ValueError, match="columns 'human' and 'rat', found 'human', 'mouse'"):
        map_orthologs(edges, orthologs, target="rat")
    with pytest.raises(ValueError, match="genes of `orthologs` column 'mouse', found none"):
        map_orthologs(edges, orthologs, source="mouse", target="human")


def test_real_tables(data_dir: Path) -> None:
    path = data_dir / "orthologs_human_mouse_1to1.csv.gz"
    human = read_ligand_receptor(data_dir / "lr_cellchatdb_human.csv.gz")
    mouse = read_ligand_receptor(data_dir / "lr_cellchatdb_mouse.csv.gz")
    mapped = map_orthologs(human, path)
    known = set(zip(mouse["ligand"], mouse["receptor"], strict=True))
    found = [pair in known for pair in zip(mapped["ligand"], mapped["receptor"], strict=True)]
    assert len(mapped) > 0.8 * len(human)
    assert sum(found) > 0.9 * len(found)
