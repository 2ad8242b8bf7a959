"""The manifest of a block's folder: sizes and checksums of its files, written last."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacetravlr._core.linalg.transposed import TOGETHER

if TYPE_CHECKING:
    from spacetravlr._types import Floats

MANIFEST = "manifest.json"
_FORMAT = 1
_AT_ONCE = 1 << 24
_ROWS, _VALUES = 2048, 1 << 20  # of a chunk, at most


@dataclass(frozen=True)
class StoredArray:
    """Shape of a matrix in chunks of equal shape; at the edges chunks are filled up with zeros."""

    shape: tuple[int, int]
    chunks: tuple[int, int]
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """Everything in the folder of a block."""

    targets: list[str]
    """Target genes of the block."""
    columns: list[int]
    """Number of columns of each target."""
    arrays: dict[str, StoredArray]
    files: dict[str, tuple[int, int]] = field(repr=False)
    """Size and checksum of each file, by its path in the folder."""

    def write(self, folder: Path) -> None:
        """Write it; a folder without it is no block."""
        (folder / MANIFEST).write_text(json.dumps({"format": _FORMAT, **asdict(self)}), encoding="utf-8")

    def without_chunks(self) -> list[str]:
        """Files that are not chunks of a matrix; these are small."""
        return [name for name in self.files if not _is_chunk(name)]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a block.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        if found["format"] != _FORMAT:
            msg = f"format {found['format']!r}"
            raise ValueError(msg)
        arrays = {
            str(name): StoredArray(_pair(a["shape"]), _pair(a["chunks"]), str(a["dtype"]))
            for name, a in found["arrays"].items()
        }
        return Manifest(
            targets=[str(name) for name in found["targets"]],
            columns=[int(n) for n in found["columns"]],
            arrays=arrays,
            files={str(name): _pair(value) for name, value in found["files"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"Expected {folder / MANIFEST} to list the files of a block, found it damaged ({error})."
        raise ValueError(msg) from error


def find_damage(folder: Path) -> str:
    """Describe what is wrong with a block ("" for nothing): checks sizes of all files and checksums of small files."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except ValueError as error:
        return str(error)
    small = set(manifest.without_chunks())
    for name, (size, checksum) in manifest.files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
        if name in small and checksum_of(folder / name) != checksum:
            return f"{name} has changed"
    return ""


def list_files(folder: Path, known: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Sizes and checksums of all files below ``folder``; files already known are not read again."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {n: known.get(n) or ((folder / n).stat().st_size, checksum_of(folder / n)) for n in names}


def checksum_of(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            checksum = zlib.crc32(part, checksum)
    return checksum


def chunk_name(array: str, row: int, column: int) -> str:
    """Path of a chunk in the folder of its block, as zarr has it."""
    return f"{array}/c/{row}/{column}"


def stored_array(values: Floats) -> StoredArray:
    """Shape, chunks and precision of a matrix on disk."""
    n_rows, n_columns = max(values.shape[0], 1), max(values.shape[1], 1)
    rows = _even(n_rows, _ROWS, 1)
    columns = _even(n_columns, max(TOGETHER, _VALUES // rows), TOGETHER)
    return StoredArray(values.shape, (rows, min(columns, n_columns)), values.dtype.newbyteorder("<").str)


def _is_chunk(name: str) -> bool:
    return name.split("/")[1:2] == ["c"]


def _even(n: int, most: int, multiple: int) -> int:
    """Length of equal pieces of ``n``, as few as possible of at most about ``most``."""
    length = math.ceil(n / math.ceil(n / most))
    return math.ceil(length / multiple) * multiple


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
