"""One order of cells, cell types, slides and regressors, by name, whatever their order in an AnnData or a table.

Sums and searches depend slightly on the order of their inputs; a fixed order gives reproducible results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.design import Targets, Terms

if TYPE_CHECKING:
    import pandas as pd

    from spacetravlr._anndata._modulators import Design
    from spacetravlr._anndata._section import Section
    from spacetravlr._types import Floats, Ints


_COLUMNS = 32  # whose values are sorted at a time


class CellOrder(NamedTuple):
    """Cells by name."""

    rows: Ints
    """Row of ``adata`` of each cell in this order."""
    position: Ints
    """Place in this order of each row of ``adata``."""

    @classmethod
    def of(cls, obs_names: pd.Index) -> CellOrder:
        """Order the cells of an AnnData."""
        rows = np.argsort(obs_names.astype(str).to_numpy(dtype=object), kind="stable")
        position = np.empty(len(rows), dtype=np.int64)
        position[rows] = np.arange(len(rows))
        return cls(rows, position)

    def sort(self, values: Floats) -> Floats:
        """Bring the rows of an array into this order, in place: some columns at a time, without a second array."""
        for start in range(0, values.shape[1], _COLUMNS):
            columns = values[:, start : start + _COLUMNS]
            columns[:] = columns[self.rows]
        return values


def sorted_section(section: Section, order: CellOrder) -> Section:
    """A section with its cells in ``order``, its types and its slides by name."""
    cell_type, type_names = _codes_by_name(section.cell_type[order.rows], section.type_names)
    slides, slide_names = section.slides, section.slide_names
    if slides is not None:
        slides, slide_names = _codes_by_name(slides[order.rows], slide_names)
    return section._replace(
        cell_type=cell_type,
        type_names=type_names,
        coordinates=np.ascontiguousarray(section.coordinates[order.rows]),
        slides=slides,
        slide_names=slide_names,
    )


def sorted_terms(design: Design) -> tuple[Terms, Targets]:
    """Distinct terms by kind and names; targets, and the terms of each, in the order that they have."""
    terms, genes = design.terms, design.genes.astype(str).to_numpy()
    signal = np.array(["", *design.signal_names], dtype=object)[terms.signal + 1]
    order = np.lexsort([signal.astype(str), genes[terms.gene].astype(str), terms.kind])
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order))
    targets = design.targets
    return terms.take(order), Targets(targets.gene, targets.indptr, rank[targets.term])


def _codes_by_name(codes: Ints, names: list[str]) -> tuple[Ints, list[str]]:
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], [names[i] for i in order]
