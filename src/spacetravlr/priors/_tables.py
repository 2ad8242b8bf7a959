"""What all prior tables share: reading a source, finding columns, telling long tables from wide matrices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from spacetravlr._validators import listed

Source: TypeAlias = pd.DataFrame | str | os.PathLike[str]

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_COMPRESSED = {".gz", ".bz2", ".xz", ".zip", ".zst"}


def read_table(source: Source, *, name: str) -> pd.DataFrame:
    """Table given as a DataFrame or as the path of a csv, tsv, parquet or feather file; never changes the caller's."""
    if isinstance(source, pd.DataFrame):
        return source
    if not isinstance(source, str | os.PathLike):
        msg = f"Expected `{name}` to be a DataFrame or the path of a table, found `{type(source).__name__}`."
        raise TypeError(msg)
    path = Path(source)
    if not path.is_file():
        msg = f"Expected `{name}` to be the path of a file, found nothing at `{path}`."
        raise FileNotFoundError(msg)
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in _COMPRESSED]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _SEPARATORS:
        return pd.read_csv(path, sep=_SEPARATORS[suffix], low_memory=False)
    if suffix == ".parquet":
        return pd.read_parquet(path)
    if suffix in {".feather", ".arrow"}:
        return pd.read_feather(path)
    msg = f"Expected `{name}` to end in .csv, .tsv, .txt, .parquet or .feather, found `{path.name}`."
    raise ValueError(msg)


def find_column(table: pd.DataFrame, candidates: Sequence[str]) -> str | None:
    """First of ``candidates`` that is a column of ``table``, whatever its case."""
    lower = {str(c).lower(): c for c in reversed(table.columns)}
    return next((lower[c] for c in candidates if c in lower), None)


def as_matrix(table: pd.DataFrame, *, name: str, drop: Sequence[str] = ()) -> pd.DataFrame:
    """Wide table as numbers with gene names on both axes; a leading column of names becomes the index.

    Raises
    ------
    ValueError
        If the table is neither this nor, since the caller has looked, one of the long forms.
    """
    table = table.drop(columns=[c for c in drop if c in table.columns])
    text = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if len(text) == 1 and table.columns[0] == text[0]:
        table = table.set_index(text[0])
        text = []
    if text or table.empty or not pd.api.types.is_string_dtype(table.index.astype(object)):
        msg = (
            f"Expected `{name}` to be a long table or a wide matrix with gene names as rows and columns, "
            f"found columns {listed(table.columns)}."
        )
        raise ValueError(msg)
    return table


def melt(matrix: pd.DataFrame, *, rows: str, columns: str, values: str, above: float | None = None) -> pd.DataFrame:
    """Long table of the entries of a wide matrix that are not zero, or that exceed ``above``."""
    dense = matrix.to_numpy(dtype=np.float32)
    keep = np.isfinite(dense) & ((dense != 0) if above is None else (dense > above))
    i, j = np.nonzero(keep)
    return pd.DataFrame(
        {
            rows: pd.Categorical.from_codes(*_codes(matrix.index, i)),
            columns: pd.Categorical.from_codes(*_codes(matrix.columns, j)),
            values: dense[i, j],
        }
    )


def _codes(labels: pd.Index, position: np.ndarray) -> tuple[np.ndarray, pd.Index]:
    code, distinct = pd.factorize(labels.astype(str))
    return code[position], distinct


def clean_names(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Table with ``columns`` as text without blanks around it; rows where one is missing or empty are left out."""
    table = table.copy()
    keep = np.ones(len(table), dtype=bool)
    for column in columns:
        labels = table[column].astype("category")
        text = labels.cat.categories.astype(str).str.strip()
        code, distinct = pd.factorize(text)
        codes = np.append(code, -1)[labels.cat.codes.to_numpy()]
        table[column] = pd.Categorical.from_codes(codes, distinct)
        keep &= (codes >= 0) & (table[column] != "").to_numpy()
    return table[keep].reset_index(drop=True)


def tidy(table: pd.DataFrame, *, name: str, keys: Sequence[str]) -> pd.DataFrame:
    """One row for each combination of ``keys`` (the first), with no unused categories; refuses an empty table."""
    table = table.drop_duplicates(list(keys)).reset_index(drop=True)
    if table.empty:
        msg = f"Expected `{name}` to hold at least one row with gene names and a value, found none."
        raise ValueError(msg)
    for column in table.columns:
        if isinstance(table[column].dtype, pd.CategoricalDtype):
            table[column] = table[column].cat.remove_unused_categories()
    return table


def as_float(table: pd.DataFrame, column: str, *, name: str) -> np.ndarray:
    """Column as float32; ``ValueError`` for what is no number."""
    try:
        return table[column].astype(np.float32).to_numpy()
    except (TypeError, ValueError):
        example = next(v for v in table[column] if pd.isna(pd.to_numeric(v, errors="coerce")) and not pd.isna(v))
        msg = f"Expected column {column!r} of `{name}` to hold numbers, found `{example!r}`."
        raise ValueError(msg) from None
