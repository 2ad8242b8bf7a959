"""Gene names as column names of tables in ``uns``.

A column is a key of the file that an AnnData is written to: a slash ("CCL3/L1") would open a group in it, and names
that differ in case only would share a folder of a zarr store where the file system ignores case. Such names are stored
in the manner of URLs ("CCL3%2FL1"; the second of ``Il6`` and ``IL6`` as "IL6%~1") and read back as they were; all
others are stored as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_UNSAFE = re.compile(r"[/\\%\x00-\x1f]|^\.|^_(?=index$)|^$")
_CODE = re.compile(r"%([0-9A-F]{2})")
_TWIN = re.compile(r"%~\d*$")


def encode_columns(names: Iterable[str]) -> list[str]:
    """Column names under which signals of these names are stored, in the same order."""
    taken: dict[str, int] = {}
    columns = []
    for name in names:
        column = _UNSAFE.sub(lambda found: "".join(f"%{ord(c):02X}" for c in found[0]) or "%~", name)
        n_before = taken.get(column.lower(), 0)
        taken[column.lower()] = n_before + 1
        columns.append(f"{column}%~{n_before}" if n_before else column)
    return columns


def decode_column(column: str) -> str:
    """Name of the signal that is stored in a column."""
    return _CODE.sub(lambda found: chr(int(found[1], 16)), _TWIN.sub("", column))


def with_names(stored: pd.DataFrame) -> pd.DataFrame:
    """A stored table with the names of the signals as its columns."""
    names = [decode_column(str(column)) for column in stored.columns]
    return stored if names == list(stored.columns) else stored.set_axis(names, axis=1)


def as_stored(signals: pd.DataFrame) -> pd.DataFrame:
    """A table of signals with the columns under which it is stored."""
    return signals.set_axis(encode_columns(map(str, signals.columns)), axis=1)
