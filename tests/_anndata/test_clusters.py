"""Which column names the cell types, and what all cells together are called."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from spacetravlr._anndata._clusters import aggregate_name, cell_groups, cluster_key_of


@pytest.mark.parametrize(
    ("argument", "fit", "modulators", "expected"),
    [
        ("domain", "leiden", "louvain", "domain"),
        (None, "leiden", "louvain", "leiden"),
        (None, "", "louvain", None),
        (None, None, "louvain", "louvain"),
        (None, None, "", None),
        (None, None, None, "cell_type"),
    ],
)
def test_the_key_of_the_fit_is_remembered(argument, fit, modulators, expected) -> None:
    adata = AnnData(np.zeros((2, 1)), obs=pd.DataFrame({"cell_type": ["a", "b"]}, index=["0", "1"]))
    for key, value in (("betas", fit), ("modulators", modulators)):
        if value is not None:
            adata.uns[key] = {"params": {"cluster_key": value}}
    assert cluster_key_of(adata, argument) == expected


def test_without_a_column_there_are_no_types() -> None:
    assert cluster_key_of(AnnData(np.zeros((2, 1)))) is None


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["B", "T"], "all"),
        (["B", "all"], "all cells"),
        (["all", "all cells"], "(all cells)"),
    ],
)
def test_all_cells_are_never_called_like_a_type(types, expected) -> None:
    assert aggregate_name(types) == expected


def test_groups_of_integer_clusters() -> None:
    adata = AnnData(np.zeros((4, 1)), obs=pd.DataFrame({"cluster": [10, 2, 10, 2]}, index=list("abcd")))
    groups = cell_groups(adata, "cluster")
    assert [g.name for g in groups] == ["all", "2", "10"]
    assert [g.cells.tolist() for g in groups[1:]] == [[False, True, False, True], [True, False, True, False]]
    assert [g.name for g in cell_groups(adata, None)] == ["all"]
