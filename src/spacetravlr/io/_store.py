"""Coefficients on disk: one zarr group a block of targets, moved into place when it is whole."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from spacetravlr.io._disk import assert_room, permitted, writing
from spacetravlr.io._files import no_format_news

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from spacetravlr._types import Floats

_META = "spacetravlr.json"
_ROWS = 16_384


#: What is kept of the coefficients of a block: their values in single or half precision, or the bodies alone.
StoreAs = Literal["float32", "float16", "bodies"]


class StoredBlock(NamedTuple):
    """One block as it was written; ``betas`` and ``sd`` are lazily read dask arrays."""

    betas: Any | None
    """``None`` where only the bodies are kept."""
    sd: Any | None
    terms: pd.DataFrame
    scores: pd.DataFrame
    training: pd.DataFrame


class BetaStore:
    """A folder of fitted blocks that a later call with the same inputs picks up where it stopped.

    Parameters
    ----------
    path
        Folder, by convention ending in ``.zarr``; made when it does not exist.
    fingerprint
        What must agree for blocks to be reused: cells, targets, settings.
    store_as
        What is kept of the coefficients. All read as float32.

    Raises
    ------
    ValueError
        When it is not a folder, holds something else, or a fit with another fingerprint.
    OSError
        When the folder cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], fingerprint: dict[str, Any], *, store_as: StoreAs = "float32"
    ) -> None:
        import zarr

        self.path = Path(path)
        self.store_as = store_as
        if store_as != "float32":
            fingerprint = {**fingerprint, "store_as": store_as}
        meta = self.path / _META
        if self.path.exists() and not self.path.is_dir():
            msg = f"Expected `store` to be a folder, found the file {self.path}; pass another name."
            raise ValueError(msg)
        if self.path.exists() and not meta.exists() and any(not _is_leftover(p) for p in self.path.iterdir()):
            msg = f"Expected `store` to be a new folder or one written by fit_betas, found other files in {self.path}."
            raise ValueError(msg)
        with permitted(self.path, "store"):
            self.path.mkdir(parents=True, exist_ok=True)
            if not meta.exists():
                self._write_text(meta, json.dumps(fingerprint, sort_keys=True))
            zarr.open_group(self.path, mode="a")
        found = json.loads(meta.read_text())
        differing = sorted(k for k in {*found, *fingerprint} if found.get(k) != fingerprint.get(k))
        if differing:
            msg = (
                f"Expected `store` {self.path} to come from the same fit, found one that differs in "
                f"{', '.join(differing)}; pass another folder or delete this one."
            )
            raise ValueError(msg)
        for leftover in self.path.glob(".block_*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def assert_room(self, block_bytes: Sequence[int]) -> None:
        """Raise when blocks of these sizes (bytes in memory) cannot be written; warn when there may be no room for all.

        Raises
        ------
        OSError
            When the folder cannot be written or has no room for the largest block.
        """
        assert_room(self.path, largest=max(block_bytes), whole=sum(block_bytes), name="store")

    def _write_text(self, path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        temporary.write_text(text)
        temporary.replace(path)

    def has(self, block: int) -> bool:
        """Whether block ``block`` is there and whole."""
        return (self.path / block_name(block)).exists()

    def write(
        self,
        block: int,
        *,
        betas: Floats,
        terms: pd.DataFrame,
        scores: pd.DataFrame,
        training: pd.DataFrame,
        sd: Floats | None = None,
        bodies: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a block under a temporary name and move it into place.

        ``bodies`` are nested dicts of arrays and plain values, for :func:`stored_bodies`.

        Raises
        ------
        OSError
            When there is no room or no permission; blocks written before stay.
        ValueError
            When a coefficient is too large for half precision.
        """
        import zarr
        from anndata.io import write_elem

        temporary = self.path / f".{block_name(block)}.{uuid.uuid4().hex}"
        try:
            with writing(f"block {block} of the coefficients", self.path):
                group = zarr.open_group(temporary, mode="w")
                for name, values in (("betas", None if self.store_as == "bodies" else betas), ("sd", sd)):
                    if values is None:
                        continue
                    chunks = (min(_ROWS, max(values.shape[0], 1)), max(values.shape[1], 1))
                    group.create_array(name, data=self._packed(values), chunks=chunks)
                with no_format_news():
                    for name, frame in (("terms", terms), ("scores", scores), ("training", training)):
                        write_elem(group, name, frame.rename(index=str))
                    write_elem(group, "bodies", dict(bodies or {}))
                if not self.has(block):
                    temporary.rename(self.path / block_name(block))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _packed(self, values: Floats) -> Floats:
        if self.store_as != "float16":
            return np.ascontiguousarray(values, dtype=np.float32)
        limit = float(np.finfo(np.float16).max)
        largest = float(np.nanmax(np.abs(values), initial=0.0))
        if largest > limit:
            msg = (
                f'Expected coefficients within {limit:g} for `store_as="float16"`, found {largest:.4g}; use '
                'store_as="float32", or scale expression to smaller numbers (log1p).'
            )
            raise ValueError(msg)
        return np.ascontiguousarray(values, dtype=np.float16)

    def bytes_of(self, n_cells: int, n_columns: int, *, with_sd: bool) -> int:
        """Bytes in memory of what a block writes for its cells."""
        item = 2 if self.store_as == "float16" else 4
        return n_cells * n_columns * item * ((self.store_as != "bodies") + with_sd)

    def read(self, block: int) -> StoredBlock:
        """Read the tables of a block, and its coefficients lazily."""
        import dask.array as da
        import zarr
        from anndata.io import read_elem

        group = zarr.open_group(self.path / block_name(block), mode="r")
        betas, sd = (
            da.from_zarr(group[name]).astype(np.float32, copy=False) if name in group else None
            for name in ("betas", "sd")
        )
        return StoredBlock(
            betas=betas,
            sd=sd,
            terms=read_elem(group["terms"]),
            scores=read_elem(group["scores"]),
            training=read_elem(group["training"]),
        )


def stored_bodies(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the bodies of each block of a finished fit, one block at a time."""
    for block in range(max(1, len(list(Path(path).glob("block_*"))))):
        yield read_bodies(path, block)


def read_bodies(path: str | os.PathLike[str], block: int) -> dict[str, Any]:
    """Read the bodies of a block, as they were given to :meth:`BetaStore.write`.

    Raises
    ------
    FileNotFoundError
        When the block is not there.
    """
    import zarr
    from anndata.io import read_elem

    folder = Path(path) / block_name(block)
    if not folder.exists():
        msg = f"Expected the store of a fit at {path}, found no {block_name(block)} there; was it moved or deleted?"
        raise FileNotFoundError(msg)
    bodies: dict[str, Any] = read_elem(zarr.open_group(folder, mode="r")["bodies"])
    return bodies


def _is_leftover(path: Path) -> bool:
    """Whether a process that was killed when it began left this."""
    return path.name.startswith(f".{_META}.")


def block_name(block: int) -> str:
    """Name of the folder of a block."""
    return f"block_{block:05d}"
