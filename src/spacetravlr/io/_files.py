"""Read and write AnnData with everything that the package stores in it."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._temporary import atomic_path, temporary_folder
from spacetravlr._utils import absolute_path
from spacetravlr.io._codecs import assert_plain_codecs

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_SUFFIXES = (".h5ad", ".zarr")
# what anndata writes: parts of an AnnData, and below them descriptions and chunks
_PARTS = {"X", "layers", "obs", "obsm", "obsp", "raw", "uns", "var", "varm", "varp"}
_DESCRIPTIONS = {"zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata"}
_CHUNK = re.compile(r"\d+(\.\d+)*|c")


def read(path: str | os.PathLike[str]) -> AnnData:
    """Read an AnnData from an .h5ad file or a .zarr folder.

    A folder with arrays whose codecs may run code, such as ``pickle``, is refused.

    Parameters
    ----------
    path
        File or folder; the suffix determines the format.

    Returns
    -------
    The annotated data, in memory.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    ValueError
        If the suffix is unknown, or an array has a codec that may run code.
    """
    import anndata

    file = _checked(path)
    if not file.exists():
        msg = f"Expected `path` to be an .h5ad file or a .zarr folder, found nothing at `{file}`."
        raise FileNotFoundError(msg)
    if file.suffix == ".h5ad":
        return anndata.read_h5ad(file)
    assert_plain_codecs(file)
    return anndata.read_zarr(file)


@document
def write(adata: AnnData | SpatialData, path: str | os.PathLike[str], *, table_key: str | None = None) -> None:
    """Write an AnnData to an .h5ad file or a .zarr folder, completely or not at all.

    Data are written under a temporary name next to ``path`` and moved into place when complete, so an interrupted call
    leaves the previous contents untouched. Only an existing AnnData is replaced, never a ``store`` of coefficients or a
    file of another kind.

    Parameters
    ----------
    adata
        Annotated data, or SpatialData, of which the table is written.
    path
        File or folder; the suffix determines the format.
    %(table_key)s

    Raises
    ------
    ValueError
        If the suffix is unknown, or something other than an AnnData exists at ``path``.
    OSError
        If there is no space or no permission.
    """
    table = unwrap(adata, table_key)
    file = _checked(path)
    found = _something_else(file)
    if found:
        msg = f"Expected `path` to be new or an existing AnnData, found {found} at {file}."
        raise ValueError(msg)
    if file.suffix == ".h5ad":
        with atomic_path(file) as temporary:
            table.write_h5ad(temporary)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(file) as new, temporary_folder(file) as old:
        with no_format_news():
            table.write_zarr(new)
        if file.exists():
            file.rename(old)
        try:
            new.rename(file)
        except OSError:
            if old.exists():
                old.rename(file)
            raise


def _something_else(file: Path) -> str:
    """What lies at ``file`` that is no AnnData, in words; "" when there is nothing or an AnnData."""
    if not os.path.lexists(file):
        return ""
    if file.suffix == ".h5ad":
        return "" if file.is_file() and _is_h5ad(file) else "something else"
    if not file.is_dir():
        return "a file"
    if (file / "spacetravlr.json").exists():
        return "the store of a fit"
    described = [name for name in ("zarr.json", ".zattrs") if (file / name).exists()]
    if not described:
        return "" if not any(file.iterdir()) else "other files"
    try:
        attributes = json.loads((file / described[0]).read_bytes())
        attributes = attributes.get("attributes", attributes)
        is_anndata = attributes.get("encoding-type") == "anndata"
    except (ValueError, AttributeError):
        is_anndata = False
    if not is_anndata:
        return "a zarr folder of something else"
    for place, folders, files in os.walk(file):
        if Path(place) == file and not set(folders) <= _PARTS:
            return f"a folder that also holds {min(set(folders) - _PARTS)!r}"
        foreign = [n for n in files if n not in _DESCRIPTIONS and not _CHUNK.fullmatch(n) and n != ".DS_Store"]
        if foreign:
            return f"a folder that also holds {foreign[0]!r}"
    return ""


def _is_h5ad(file: Path) -> bool:
    import h5py

    try:
        with h5py.File(file, "r") as stored:
            return stored.attrs.get("encoding-type", "") == "anndata" or {"obs", "var"} <= set(stored)
    except OSError:
        return False


@contextmanager
def no_format_news() -> Iterator[None]:
    """Silence warnings of anndata and zarr about their own formats, on which the user cannot act."""
    with warnings.catch_warnings():
        for message in ("Writing zarr v2 data", "zarr v3 autosharding", "Consolidated metadata"):
            warnings.filterwarnings("ignore", message=message)  # noqa: TID251 -- within catch_warnings
        yield


def _checked(path: str | os.PathLike[str]) -> Path:
    file = absolute_path(path)
    if file.suffix not in _SUFFIXES:
        msg = f"Expected `path` to end in .h5ad or .zarr, found `{file.name}`."
        raise ValueError(msg)
    return file
