"""One order of cells, types, slides and terms, whatever the user's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spacetravlr._anndata._modulators import build_design
from spacetravlr._anndata._order import CellOrder, sorted_section, sorted_terms
from spacetravlr._anndata._section import Section
from spacetravlr._core.design import Targets

NAMES = pd.Index(["c10", "a", "c9", "b"])


def test_cells_are_sorted_by_name_and_found_again():
    order = CellOrder.of(NAMES)
    assert NAMES[order.rows].tolist() == ["a", "b", "c10", "c9"]
    values = np.random.default_rng(0).normal(size=(4, 70)).astype(np.float32)
    found = order.sort(values.copy())
    np.testing.assert_array_equal(found, values[order.rows])
    np.testing.assert_array_equal(found[order.position], values)
    assert order.sort(np.zeros((4, 0))).shape == (4, 0)


def test_types_and_slides_are_sorted_by_name():
    order = CellOrder.of(NAMES)
    section = Section(
        cell_type=np.array([0, 1, 2, 0]), type_names=["T", "B", "NK"], coordinates=np.arange(8.0).reshape(4, 2),
        slides=np.array([1, 1, 0, 0]), slide_names=["y", "x"], radius=1.0, microns_per_unit=1.0, signals={},
    )  # fmt: skip
    found = sorted_section(section, order)
    assert [found.type_names[c] for c in found.cell_type] == ["B", "T", "T", "NK"]
    assert found.type_names == ["B", "NK", "T"]
    assert [found.slide_names[c] for c in found.slides] == ["x", "y", "x", "y"]
    np.testing.assert_array_equal(found.coordinates, section.coordinates[order.rows])


def test_terms_do_not_depend_on_the_order_of_genes_or_rows():
    table = pd.DataFrame(
        [("t", "tf", "b", "", "", ""), ("t", "tf", "a", "", "", ""), ("t", "lr", "", "l", "r", "secreted"),
         ("t", "lr", "", "k", "r", "contact"), ("t", "tfl", "a", "l", "", "secreted")],
        columns=["target", "kind", "tf", "ligand", "receptor", "range"],
    )  # fmt: skip
    found = []
    for genes in (list("abklrt"), list("trlkba")):
        for rows in (slice(None), slice(None, None, -1)):
            design = build_design(table[rows], pd.Index(genes))
            terms, targets = sorted_terms(design)
            labels = [
                (int(kind), genes[gene], design.signal_names[signal] if signal >= 0 else "")
                for kind, gene, signal in zip(terms.kind, terms.gene, terms.signal, strict=True)
            ]
            found.append(labels)
            first = labels[targets.term[0]]
            assert first == ((0, "b", "") if rows == slice(None) else (2, "a", "l"))  # columns stay the user's
    assert found[0] == [(0, "a", ""), (0, "b", ""), (1, "r", "k|contact"), (1, "r", "l"), (2, "a", "l")]
    assert all(labels == found[0] for labels in found)


def test_places_of_columns():
    targets = Targets(np.arange(3), np.array([0, 2, 2, 5]), np.array([7, 3, 4, 1, 2]))
    index, order = np.array([2, 0, 1]), np.array([1, 2, 0])
    # the second, the third, then the first of index: 0 with terms 3, 7; 1 without terms; 2 with terms 1, 2, 4
    assert targets.places_of_columns(index, order).tolist() == [4, 7, 5, 6, 0, 2, 1, 3]
