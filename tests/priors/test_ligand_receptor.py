"""Ligand-receptor pairs: complexes, ranges, and the layouts of the databases."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from spacetravlr.priors import read_ligand_receptor


def test_complexes_become_pairs_and_ranges_follow_the_annotation() -> None:
    table = read_ligand_receptor(
        pd.DataFrame(
            {
                "ligand": ["TGFB1", "TGFB1", "INHBA_INHBB", "DLL1"],
                "receptor": ["TGFBR1_TGFBR2", "ACVR1B_TGFBR2", "ACVR1B", "NOTCH1"],
                "pathway": ["TGFb", "TGFb", "ACTIVIN", "NOTCH"],
                "signaling": ["Secreted Signaling", "Secreted Signaling", "ECM-Receptor", "Cell-Cell Contact"],
            }
        )
    )
    assert table.pop("annotation").tolist() == ["Secreted Signaling"] * 3 + ["ECM-Receptor"] * 2 + ["Cell-Cell Contact"]
    assert list(table.columns) == ["ligand", "receptor", "range", "pathway"]
    # TGFB1-TGFBR2 is in two complexes, and once in the table
    assert list(table.itertuples(index=False, name=None)) == [
        ("TGFB1", "TGFBR1", "secreted", "TGFb"),
        ("TGFB1", "TGFBR2", "secreted", "TGFb"),
        ("TGFB1", "ACVR1B", "secreted", "TGFb"),
        ("INHBA", "ACVR1B", "secreted", "ACTIVIN"),
        ("INHBB", "ACVR1B", "secreted", "ACTIVIN"),
        ("DLL1", "NOTCH1", "contact", "NOTCH"),
    ]


def test_the_log_counts_pairs_with_the_matrix(caplog: pytest.LogCaptureFixture) -> None:
    source = pd.DataFrame(
        {
            "ligand": ["COL1A1", "FN1", "DLL1", "X"],
            "receptor": ["ITGA1_ITGB1", "CD44", "NOTCH1", "Y"],
            "annotation": ["ECM-Receptor", " ECM-Receptor", "Cell-Cell Contact", "Secreted Signaling"],
        }
    )
    caplog.set_level("INFO")
    lr = read_ligand_receptor(source)
    assert "3 of 5 ligand-receptor pairs are annotated 'ECM-Receptor' and are treated as secreted" in caplog.text
    line = caplog.messages[0].partition("as contact: ")[2]
    exec(line, {"lr": lr})  # the line of the message does what it says
    assert lr["range"].tolist() == ["contact"] * 4 + ["secreted"]
    caplog.clear()
    again = read_ligand_receptor(lr)
    pd.testing.assert_frame_equal(again, lr)
    assert not caplog.messages  # what is contact now is not reported again
    read_ligand_receptor(source[2:])
    assert not caplog.messages


def test_a_table_without_annotation_gets_none() -> None:
    table = read_ligand_receptor(pd.DataFrame({"ligand": ["A"], "receptor": ["B"], "range": ["contact"]}))
    assert list(table.columns) == ["ligand", "receptor", "range", "pathway"]


def test_explicit_range_wins() -> None:
    table = pd.DataFrame(
        {
            "ligand": ["A", "A"],
            "receptor": ["B", "B"],
            "range": ["secreted", "Contact"],
            "annotation": "Cell-Cell Contact",
        }
    )
    # one pair, two ranges: both are kept
    assert list(read_ligand_receptor(table)["range"]) == ["secreted", "contact"]
    with pytest.raises(ValueError, match="Expected column 'range'.*'secreted' or 'contact', found 'far'"):
        read_ligand_receptor(table.assign(range="far"))


@pytest.mark.parametrize(
    "columns",
    [("source", "target"), ("source_genesymbol", "target_genesymbol"), ("ligand_complex", "receptor_complex")],
)
def test_other_databases(columns: tuple[str, str]) -> None:
    with pytest.warns(UserWarning, match=r"2 of 2 ligand-receptor pairs .such as WNT5A-FZD1.*`ranges=`"):
        table = read_ligand_receptor(pd.DataFrame([["WNT5A", "FZD1_LRP6"]], columns=list(columns)))
    assert list(table["receptor"]) == ["FZD1", "LRP6"]
    assert set(table["range"]) == {"secreted"}
    assert set(table["pathway"]) == {""}


def test_symbols_of_cellchat_are_preferred_to_names_of_complexes() -> None:
    table = pd.DataFrame(
        {
            "ligand": ["TGFB1"], "receptor": ["TGFbR1_R2"],
            "ligand.symbol": ["TGFB1"], "receptor.symbol": ["TGFBR1, TGFBR2"],
            "annotation": ["Secreted Signaling"], "pathway_name": ["TGFb"],
        }
    )  # fmt: skip
    assert list(read_ligand_receptor(table)["receptor"]) == ["TGFBR1", "TGFBR2"]


def test_one_resource_of_many() -> None:
    table = pd.DataFrame({"ligand": ["A", "C"], "receptor": ["B", "D"], "resource": ["consensus", "cellchatdb"]})
    table["range"] = "secreted"
    assert list(read_ligand_receptor(table, resource="cellchatdb")["ligand"]) == ["C"]
    with pytest.raises(ValueError, match="Expected `resource` to be one of 'cellchatdb', 'consensus', found `'mine'`"):
        read_ligand_receptor(table, resource="mine")
    with pytest.raises(ValueError, match="to have a column 'resource'.*found 'ligand', 'receptor'"):
        read_ligand_receptor(table[["ligand", "receptor"]], resource="consensus")


def test_ranges_of_a_second_table() -> None:
    table = pd.DataFrame(
        {"ligand": ["DLL1", "DLL1", "CDH1", "BOTH", "X"], "receptor": ["NOTCH1", "NEW", "CDH1", "NEW", "Y"]}
    )
    known = pd.DataFrame(
        {
            "ligand": ["DLL1", "CDH1", "BOTH", "BOTH"],
            "receptor": ["NOTCH1", "CDH1", "R1", "R2"],
            "annotation": ["Cell-Cell Contact", "Cell-Cell Contact", "Cell-Cell Contact", "Secreted Signaling"],
        }
    )
    with pytest.warns(UserWarning, match=r"2 of 5 .*such as BOTH-NEW.*treated as secreted\."):
        found = read_ligand_receptor(table, ranges=known)
    assert list(found["range"]) == ["contact", "contact", "contact", "secreted", "secreted"]
    # what the table itself says comes first
    assert set(read_ligand_receptor(table.assign(range="secreted"), ranges=known)["range"]) == {"secreted"}


@pytest.mark.parametrize("annotation", ["Protein family 7", None])
def test_annotations_that_say_nothing_of_the_range(annotation: str | None) -> None:
    table = pd.DataFrame({"ligand": ["A", "C"], "receptor": ["B", "D"], "annotation": [annotation, "other"]})
    with pytest.warns(UserWarning, match="2 of 2 ligand-receptor pairs"):
        read_ligand_receptor(table)


def test_reading_twice_changes_nothing() -> None:
    once = read_ligand_receptor(
        pd.DataFrame({"ligand": ["A_B"], "receptor": ["C_D"], "signaling": ["Cell-Cell Contact"]})
    )
    pd.testing.assert_frame_equal(read_ligand_receptor(once), once)


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match="columns 'ligand' and 'receptor'.*found 'ligand', 'partner'"):
        read_ligand_receptor(pd.DataFrame({"ligand": ["A"], "partner": ["B"]}))
    with pytest.raises(ValueError, match="Expected `ligand_receptor` to hold at least one row"):
        read_ligand_receptor(pd.DataFrame({"ligand": [None], "receptor": ["B"]}))


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_real_table(data_dir: Path, organism: str) -> None:
    source = pd.read_csv(data_dir / f"lr_cellchatdb_{organism}.csv.gz")
    table = read_ligand_receptor(source)
    subunits = set(source["receptor"].str.split("_").explode())
    assert set(table["receptor"]) == subunits
    assert not table.duplicated(["ligand", "receptor", "range"]).any()
    contact = source.loc[source["signaling"] == "Cell-Cell Contact", "ligand"].str.split("_").explode()
    assert set(table.loc[table["range"] == "contact", "ligand"]) == set(contact)
