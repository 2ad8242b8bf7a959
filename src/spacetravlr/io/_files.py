"""AnnData to and from disk, with everything the package keeps in it."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spacetravlr._utils import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

_SUFFIXES = (".h5ad", ".zarr")


def read(path: str | os.PathLike[str]) -> AnnData:
    """Read an AnnData from an .h5ad file or a .zarr folder.

    Parameters
    ----------
    path
        File or folder; its suffix tells which.

    Returns
    -------
    The annotated data, in memory.

    Raises
    ------
    FileNotFoundError
        When there is nothing at ``path``.
    ValueError
        When the suffix is another one.
    """
    import anndata

    file = _checked(path)
    if not file.exists():
        msg = f"Expected `path` to be an .h5ad file or a .zarr folder, found nothing at `{file}`."
        raise FileNotFoundError(msg)
    return anndata.read_h5ad(file) if file.suffix == ".h5ad" else anndata.read_zarr(file)


def write(adata: AnnData, path: str | os.PathLike[str]) -> None:
    """Write an AnnData to an .h5ad file or a .zarr folder, all of it or nothing.

    It is written under a temporary name beside ``path`` and moved into place when it is complete, so that an
    interrupted call leaves what was there before.

    Parameters
    ----------
    adata
        Annotated data.
    path
        File or folder; its suffix tells which. What is there is replaced.

    Raises
    ------
    ValueError
        When the suffix is another one.
    """
    file = _checked(path)
    if file.suffix == ".h5ad":
        with atomic_path(file) as temporary:
            adata.write_h5ad(temporary)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        with no_format_news():
            adata.write_zarr(Path(folder) / "new.zarr")
        if file.exists():
            shutil.move(file, Path(folder) / "old.zarr")
        shutil.move(Path(folder) / "new.zarr", file)


@contextmanager
def no_format_news() -> Iterator[None]:
    """Silence what anndata and zarr say about their own formats: nothing that this user could act upon."""
    with warnings.catch_warnings():
        for message in ("Writing zarr v2 data", "zarr v3 autosharding", "Consolidated metadata"):
            warnings.filterwarnings("ignore", message=message)  # noqa: TID251 -- within catch_warnings
        yield


def _checked(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.suffix not in _SUFFIXES:
        msg = f"Expected `path` to end in .h5ad or .zarr, found `{file.name}`."
        raise ValueError(msg)
    return file
