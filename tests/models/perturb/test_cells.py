"""Which cells are meant: masks, names, positions, comparisons; and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spacetravlr.models.perturb._cells import select_cells


@pytest.fixture
def obs():
    return pd.DataFrame(
        {
            "cell_type": pd.Categorical(["B", "T/NK", "B", None, "T/NK", "B"]),
            "cluster": pd.Categorical([2, 0, 1, 0, 1, 2]),
            "stage": pd.Categorical(["low", "high", "low", "mid", "high", "mid"], ["low", "mid", "high"], ordered=True),
            "n counts": [5.0, 1.0, np.nan, 3.0, 4.0, 2.0],
            "in_tissue": [True, True, False, True, False, True],
            "_row": [9, 9, 0, 9, 9, 9],
            "and": list("xyxyxy"),
        },
        index=list("543210"),
    )


B = np.array([True, False, True, False, False, True])


@pytest.mark.parametrize(
    "cells",
    [
        B,
        list(B),
        pd.array(B, dtype="boolean"),
        pd.Series(B, index=list("543210"))[::-1],
        pd.Series([*B, True], index=[*"543210", "elsewhere"]).astype(object),
        pd.Series(B),
        ["5", "3", "0"],
        pd.Index(["0", "3", "5", "5"]),
        {"5", "3", "0"},
        (name for name in "530"),
        pd.Categorical(["5", "3", "0"]),
        np.array([0, 2, 5]),
        [0, -4, -1],
        pd.array([5, 2, 0], dtype="Int64"),
    ],
)
def test_the_cells_that_are_meant(obs, cells):
    np.testing.assert_array_equal(select_cells(cells, obs), B)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("cell_type == 'B'", [0, 2, 5]),
        ("'B' == cell_type", [0, 2, 5]),
        ('cell_type in ["B", "other"] and not in_tissue', [2]),
        ("cell_type == ['B']", [0, 2, 5]),
        ("cell_type not in ('B',)", [1, 3, 4]),
        ("cell_type == 'T/NK' | cell_type == 'B'", [0, 1, 2, 4, 5]),
        ("(cell_type == 'B') & ~(index == '0')", [0, 2]),
        ("index in ['5', '3']", [0, 2]),
        ("cluster == 2", [0, 5]),
        ("stage >= 'mid'", [1, 3, 4, 5]),
        ("1 < `n counts` <= 4", [3, 4, 5]),
        ("`n counts` > -1 and `n counts` <= cluster", [5]),
        ("_row < 3", [2]),
        ("`and` == 'x'", [0, 2, 4]),
        ("in_tissue", [0, 1, 3, 5]),
        ("in_tissue == False", [2, 4]),
        ("cell_type == '`B` & @x'  or cell_type == 'B'", [0, 2, 5]),
    ],
)
def test_comparisons(obs, query, expected):
    np.testing.assert_array_equal(np.flatnonzero(select_cells(query, obs)), expected)


@pytest.mark.parametrize(
    "query",
    [
        "@pd.io.common.os.system('touch {}') == 0",
        "__import__('os').system('touch {}') == 0",
        "cell_type.map(__import__('os').system) == 0",
        "[c for c in ().__class__.__base__.__subclasses__()] == cell_type",
        "(lambda: cell_type)() == 'B'",
        "cell_type == f'{{__import__(\"os\").getcwd()}}'",
        "cell_type[0] == 'B'",
        "cell_type := 'B'",
        "'B' == 'B'",
        "cell_type",
        "cell_type is 'B'",
        "cell_type == B",
        "cell_type == None",
        "nothing == 1",
        "cell_type < 3",
        "cell_type == 'B",
        "in_tissue and 1",
        "(" * 300 + "in_tissue" + ")" * 300,
    ],
)
def test_text_is_never_run(obs, query, tmp_path):
    file = tmp_path / "made"
    with pytest.raises(ValueError, match="Expected `cells` to be a comparison on adata.obs such as"):
        select_cells(query.format(file), obs)
    assert not file.exists()


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        (slice(0, 3), ValueError, "found `slice`; pass `adata.obs_names"),
        ({"5": 1}, ValueError, "found `dict`"),
        (pd.array([True, None, *[False] * 4], dtype="boolean"), ValueError, "found 1 missing values"),
        ([True, False], ValueError, r"mask of length 6, found shape `\(2,\)`"),
        (pd.Series([True] * 5, index=list("54321")), ValueError, r"one value for each cell, found 1 missing .*'0'"),
        ([6], ValueError, r"below the number of cells \(6\), found `6`"),
        (B.astype(int), ValueError, "one 0 or 1 for each cell; pass booleans"),
        ([0.5], ValueError, "values of type `floating`"),
        (["9"], KeyError, "unknown '9'"),
        ([], ValueError, "at least one cell, found `none`"),
        ("cell_type == 'D'", ValueError, "at least one cell, found `cell_type == 'D'`"),
        ("5", ValueError, "found the name `'5'`; pass a list"),
    ],
)
def test_messages(obs, cells, error, message):
    with pytest.raises(error, match=message):
        select_cells(cells, obs)
