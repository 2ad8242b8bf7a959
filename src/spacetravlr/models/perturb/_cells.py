"""Which cells a user means, as a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from spacetravlr._types import Bools
from spacetravlr._validators import assert_genes
from spacetravlr.models.perturb._query import query_mask

#: Which cells: all (None), a mask, names, positions, or a comparison on ``adata.obs``.
CellsLike: TypeAlias = Any

_EXPECTED = "Expected `cells` to be a mask, names, positions, or a comparison on adata.obs"


def named_cells(cells: CellsLike, obs: pd.DataFrame, *, name: str) -> Bools:
    """:func:`select_cells` for an argument that is not called ``cells``."""
    try:
        return select_cells(cells, obs)
    except (KeyError, ValueError) as error:
        text = str(error.args[0]).replace("`cells`", f"`{name}`")
        raise type(error)(text) from error


def select_cells(cells: CellsLike, obs: pd.DataFrame) -> Bools:
    """Turn a mask, names, positions, or a comparison on ``obs`` into a mask.

    Whole numbers are positions, as in ``adata[[0, 1, 2]]``. A Series of booleans is matched by cell name.

    Raises
    ------
    KeyError
        If names are not cells.
    ValueError
        If a mask has another length or missing values, a comparison cannot be read, or no cell is chosen.
    """
    if cells is None:
        return np.ones(len(obs), dtype=bool)
    mask = query_mask(cells, obs) if isinstance(cells, str) else _mask(cells, obs)
    if not mask.any():
        found = cells if isinstance(cells, str) else "none"
        msg = f"Expected `cells` to choose at least one cell, found `{found}`."
        raise ValueError(msg)
    return mask


def _mask(cells: Any, obs: pd.DataFrame) -> Bools:
    if isinstance(cells, slice | Mapping | pd.DataFrame):
        msg = f"{_EXPECTED}, found `{type(cells).__name__}`; pass `adata.obs_names[...]` for a range of cells."
        raise ValueError(msg)
    if isinstance(cells, pd.Series):
        cells = _by_name(cells, obs)
    elif isinstance(cells, Iterable) and not hasattr(cells, "dtype"):
        cells = list(cells)
    values = pd.Series(np.atleast_1d(cells) if np.ndim(cells) == 0 else cells)
    if values.isna().any():
        msg = f"{_EXPECTED}, found {int(values.isna().sum())} missing values; fill them first (`.fillna(False)`)."
        raise ValueError(msg)
    kind = pd.api.types.infer_dtype(values, skipna=False)
    if kind == "boolean" or (values.empty and pd.api.types.is_bool_dtype(values.dtype)):
        if len(values) != len(obs):
            msg = f"Expected `cells` to be a mask of length {len(obs)}, found shape `{(len(values),)}`."
            raise ValueError(msg)
        return values.to_numpy(dtype=bool)
    mask = np.zeros(len(obs), dtype=bool)
    if kind == "integer":
        positions = values.to_numpy(dtype=np.int64)
        outside = positions[(positions < -len(obs)) | (positions >= len(obs))]
        if len(outside):
            msg = f"Expected positions in `cells` to be below the number of cells ({len(obs)}), found `{outside[0]}`."
            raise ValueError(msg)
        if len(positions) == len(obs) > 2 and set(np.unique(positions)) <= {0, 1}:
            msg = f"{_EXPECTED}, found one 0 or 1 for each cell; pass booleans (`.astype(bool)`) if it is a mask."
            raise ValueError(msg)
        mask[positions] = True
        return mask
    if kind not in {"string", "categorical", "empty"}:
        msg = f"{_EXPECTED}, found values of type `{kind}`."
        raise ValueError(msg)
    names = pd.Index(values.astype(str)).unique()
    assert_genes(names, obs.index, name="cells", where="adata.obs_names")
    mask[obs.index.get_indexer(names)] = True
    return mask


def _by_name(cells: pd.Series, obs: pd.DataFrame) -> Any:
    """Values of a Series; those of a mask in the order of the cells, unless it has only numbers for names."""
    values = cells.array
    if pd.api.types.infer_dtype(cells, skipna=True) != "boolean" or cells.index.equals(obs.index):
        return values
    if cells.index.is_unique and obs.index.isin(cells.index).all():
        return cells.loc[obs.index].array
    if isinstance(cells.index, pd.RangeIndex) and len(cells) == len(obs):
        return values
    missing = obs.index[~obs.index.isin(cells.index)]
    found = f"{len(missing)} missing (first: {missing[0]!r})" if len(missing) else "some of them more than once"
    msg = f"Expected the Series `cells` to have one value for each cell, found {found}."
    raise ValueError(msg)
