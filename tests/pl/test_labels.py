"""A term and a signal have one name in pictures, and arguments take every spelling of it."""

import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr._anndata._term_names import find_signals, find_terms, signal_label, term_labels

ROWS = pd.DataFrame(
    [
        ("intercept", "", "", "", ""),
        ("tf", "FOXO1", "", "", ""),
        ("tf", "CXCR4", "", "", ""),
        ("receptor", "", "", "CXCR4", ""),
        ("receptor", "", "", "NOTCH1", ""),
        ("lr", "", "CXCL12", "CXCR4", "secreted"),
        ("lr", "", "DLL1", "NOTCH1", "contact"),
        ("lr", "", "HLA-A", "CD8A", "secreted"),
        ("lr", "", "HLA-A", "CD8A", "contact"),
        ("tfl", "EBF1", "CCL19", "", "secreted"),
        ("ligand", "", "CCL19", "", ""),
    ],
    columns=["kind", "tf", "ligand", "receptor", "range"],
)
SPELLINGS = {
    0: ["intercept", "beta0"],
    1: ["FOXO1", "beta_FOXO1"],
    2: ["CXCR4"],
    3: ["CXCR4 (receptor)"],
    4: ["NOTCH1 (receptor)", "NOTCH1", "beta_NOTCH1"],
    5: ["CXCL12-CXCR4", "CXCL12\N{EN DASH}CXCR4", "CXCL12$CXCR4", "beta_CXCL12$CXCR4"],
    6: ["DLL1-NOTCH1 (contact)", "DLL1-NOTCH1", "DLL1$NOTCH1", "beta_DLL1$NOTCH1"],
    7: ["HLA-A-CD8A", "HLA-A$CD8A", "HLA-A\N{EN DASH}CD8A"],
    8: ["HLA-A-CD8A (contact)", "HLA-A|contact$CD8A", "beta_HLA-A|contact$CD8A"],
    9: ["CCL19 x EBF1", "CCL19 \N{MULTIPLICATION SIGN} EBF1", "CCL19#EBF1", "beta_CCL19#EBF1"],
    10: ["CCL19 (ligand)", "CCL19", "beta_CCL19"],
}


@pytest.mark.parametrize("position", SPELLINGS)
def test_terms_in_any_spelling(position):
    assert term_labels(ROWS)[position] == SPELLINGS[position][0]
    found = find_terms(SPELLINGS[position], ROWS, name="modulator", where="the modulators")
    assert found == [position] * len(found)


def test_spellings_that_mean_nothing_or_several():
    with pytest.raises(
        KeyError, match=r"`modulator` to be in there, found unknown 'CXCL13-CXCR4' \(closest: CXCL12-CXCR4"
    ):
        find_terms(["CXCL13-CXCR4"], ROWS, name="modulator", where="there")
    twice = pd.concat([ROWS, ROWS[ROWS["tf"] == "FOXO1"]])
    with pytest.raises(KeyError, match="may be 'FOXO1' or 'FOXO1'"):
        find_terms(["FOXO1"], twice, name="modulator", where="there")


def test_signals_in_any_spelling():
    known = ["CXCL12", "DLL1|contact", "CD34", "CD34|contact"]
    options = {"name": "ligands", "where": "there"}
    assert find_signals(["CXCL12", "CXCL12 (secreted)"], known, **options) == ["CXCL12"] * 2
    assert find_signals(["DLL1", "DLL1 (contact)", "DLL1|contact"], known, **options) == ["DLL1|contact"] * 3
    assert find_signals(["CD34", "CD34 (contact)"], known, **options) == ["CD34", "CD34|contact"]
    assert [signal_label(s) for s in known] == ["CXCL12", "DLL1 (contact)", "CD34", "CD34 (contact)"]
    with pytest.raises(KeyError, match="closest: CXCL12"):
        find_signals(["CXCL13"], known, **options)


def test_pictures_tables_and_arguments_agree(adata):
    table = st.get.modulators(adata, target="PAX5")
    everywhere = table[table["cell_type"] == "all"]
    bars = st.pl.modulators(adata, "PAX5", "all", value="mean", n_top=100)
    shown = {t.get_text() for t in bars.get_yticklabels()}
    assert shown == set(everywhere.loc[everywhere["mean"] != 0, "label"])
    for kind, part in everywhere.groupby("kind"):
        label, name = part["label"].iloc[0], part["modulator"].iloc[0]
        drawn = st.pl.betas(adata, "PAX5", [label, name, f"beta_{name}"])
        assert {ax.get_title() for ax in drawn} == {f"{label} \N{RIGHTWARDS ARROW} PAX5"}, kind
        column = st.get.betas(adata, "PAX5")[f"beta_{name}"]
        for ax in drawn:
            np.testing.assert_allclose(np.sort(ax.collections[-1].get_array()), np.sort(column), rtol=1e-6)
    assert set(st.get.betas_adata(adata, targets="PAX5").var["label"]) == set(everywhere["label"])


def test_labels_of_signals_are_arguments(adata):
    dots = st.pl.signals(adata)
    labels = [t.get_text() for t in dots.get_yticklabels()]
    assert any(label.endswith("(contact)") for label in labels)
    assert [ax.get_title() for ax in st.pl.received_ligands(adata, labels)] == labels
    for label in labels[:2] + labels[-2:]:
        assert len(st.get.senders(adata, label))
    assert len(st.pl.senders(adata, labels[0]).patches)
