"""Matrices of coefficients in chunks on disk: zarr arrays, written and read here without unnecessary copies.

Within a chunk, the cells of a column are contiguous, so columns of zeros, or of one constant per cell type, take almost
no space and no time to decompress. Rows are reassembled in a buffer that is reused for all chunks. zarr itself can read
the same files, but it treats missing chunks as zeros.
"""

from __future__ import annotations

import hashlib
import math
import socket
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacetravlr._core.linalg.transposed import TOGETHER, put_transposed
from spacetravlr._validators import listed
from spacetravlr.io._lazy import LazyMatrix
from spacetravlr.io._manifest import Manifest, StoredArray, chunk_name

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_LEVEL = -1  # of zstd: in this layout higher levels take longer and pack no better
_DASK_COLUMNS = 4096

_memory = threading.local()


class Part(NamedTuple):
    """A block of columns."""

    folder: Path
    manifest: Manifest


def write_matrix(folder: Path, name: str, values: Floats, array: StoredArray) -> dict[str, tuple[int, int]]:
    """Write a matrix as the zarr array ``name`` in ``folder``, with the shape and chunks of ``array``.

    Returns
    -------
    Sizes and checksums of the chunks.
    """
    import zarr
    from numcodecs import zstd
    from zarr.codecs import TransposeCodec, ZstdCodec

    zarr.create_array(
        folder / name,
        shape=array.shape,
        chunks=array.chunks,
        dtype=array.dtype,
        filters=[TransposeCodec(order=(1, 0))],
        compressors=[ZstdCodec(level=_LEVEL)],
        fill_value=0,
    )
    known = {}
    rows, columns = array.chunks
    for i, j in np.ndindex(*(math.ceil(n / c) for n, c in zip(array.shape, array.chunks, strict=True))):
        part = values[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        chunk = np.zeros((columns, rows), dtype=array.dtype)
        chunk[: part.shape[1], : part.shape[0]] = part.T
        packed = zstd.compress(chunk, _LEVEL)
        file = folder / chunk_name(name, i, j)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(packed)
        known[chunk_name(name, i, j)] = (len(packed), zlib.crc32(packed))
    return known


class StoredMatrix(LazyMatrix):
    """Coefficients, or their standard deviations, in the blocks of a store.

    Parameters
    ----------
    store
        Folder of the store.
    array
        Name of the array in each block.
    parts
        The blocks, in the order of their columns.
    """

    def __init__(self, store: Path, array: str, parts: Sequence[Part]) -> None:
        self.store, self.array, self.parts = store, array, list(parts)
        arrays = [part.manifest.arrays[array] for part in parts]
        self._starts = np.cumsum([0, *(a.shape[1] for a in arrays)])
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            files = sorted((n, *v) for n, v in part.manifest.files.items() if n.startswith(f"{array}/"))
            digest.update(repr((part.manifest.targets, part.manifest.columns, files)).encode())
        place = hashlib.blake2b(f"{store}|{digest.hexdigest()}".encode(), digest_size=16)
        super().__init__(
            f"{array}-{place.hexdigest()}", digest.hexdigest(), (arrays[0].shape[0], int(self._starts[-1]))
        )
        self._checked: set[tuple[int, str]] = set()

    @property
    def rows_per_chunk(self) -> int:
        """Cells of a chunk on disk."""
        return self.parts[0].manifest.arrays[self.array].chunks[0]

    def dask(self) -> Any:
        """Dask array over it."""
        n_rows = self.shape[0]
        step = self.rows_per_chunk
        columns = [
            min(start + width, end) - start
            for part in self.parts
            for end, width in [_columns_at_once(part.manifest.arrays[self.array])]
            for start in range(0, end, width)
        ]
        return self.as_dask([min(step, n_rows - start) for start in range(0, n_rows, step)], columns)

    def read(self, rows: slice, columns: slice) -> Floats:
        """Read cells x columns."""
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        self.read_into(out, rows, columns)
        return out

    def read_into(
        self, out: Floats, rows: slice, columns: slice, *, needed: Ints | None = None, pool: Executor | None = None
    ) -> None:
        """Fill ``out`` (cells x columns, float32) with values; columns that are not ``needed`` may be left unset.

        Raises
        ------
        FileNotFoundError
            If the store or a part of it is not there.
        ValueError
            If a chunk is damaged.
        """
        if not out.size:
            return
        tasks = list(self._tasks(rows, columns, needed))
        for _ in (map if pool is None else pool.map)(lambda task: self._fill(out, rows, columns.start, *task), tasks):
            pass

    def _tasks(self, rows: slice, columns: slice, needed: Ints | None) -> Iterator[tuple[int, int, int, Ints]]:
        """Block, row and column of each chunk that is to be read, and its groups of columns that are needed."""
        if needed is None:
            needed = np.arange(columns.start, columns.stop)
        blocks = np.searchsorted(self._starts, needed, side="right") - 1
        for block in np.unique(blocks).tolist():
            step, width = self.parts[block].manifest.arrays[self.array].chunks
            inside = needed[blocks == block] - self._starts[block]
            for column in np.unique(inside // width).tolist():
                groups = np.unique((inside[inside // width == column] - column * width) // TOGETHER)
                for row in range(rows.start // step, (rows.stop - 1) // step + 1):
                    yield block, row, column, groups

    def _fill(
        self, out: Floats, rows: slice, first_column: int, block: int, row: int, column: int, groups: Ints
    ) -> None:
        array = self.parts[block].manifest.arrays[self.array]
        step, width = array.chunks
        values = self._chunk(block, row, column, array)
        start, stop = max(rows.start, row * step), min(rows.stop, (row + 1) * step)
        # columns beyond the end of the block are filling
        valid = values[: min(width, array.shape[1] - column * width)]
        offset = int(self._starts[block]) + column * width - first_column
        put_transposed(valid, groups, start - row * step, out[start - rows.start : stop - rows.start], offset)

    def _chunk(self, block: int, row: int, column: int, array: StoredArray) -> Floats:
        """Unpack a chunk, columns x cells, into the memory of this thread."""
        from numcodecs import zstd

        name = chunk_name(self.array, row, column)
        size, checksum = self.parts[block].manifest.files.get(name, (0, 0))
        packed = memoryview(_buffer("packed", size + 1))
        try:
            with (self.parts[block].folder / name).open("rb", buffering=0) as file:
                found = _read(file, packed)
        except FileNotFoundError as error:
            raise FileNotFoundError(self._missing(block, column, name)) from error
        first_time = (block, name) not in self._checked
        if found != size or (first_time and zlib.crc32(packed[:size]) != checksum):
            raise ValueError(self._damaged(block, column, name))
        self._checked.add((block, name))
        step, width = array.chunks
        dtype = np.dtype(array.dtype)
        values = np.frombuffer(_buffer("values", step * width * dtype.itemsize), dtype, step * width)
        zstd.decompress(packed[:size], values)
        single = values.reshape(width, step)
        return single if dtype == np.float32 else single.astype(np.float32)

    def assert_whole(self) -> None:
        """Raise when a file is missing or has another size; nothing is read.

        Raises
        ------
        FileNotFoundError
            If the store or a part of it is not there.
        ValueError
            If a file has another size than it was written with.
        """
        for block, part in enumerate(self.parts):
            for name, (size, _) in part.manifest.files.items():
                if not name.startswith(f"{self.array}/c/"):
                    continue
                column = int(name.rsplit("/", 1)[1])
                try:
                    found = (part.folder / name).stat().st_size
                except OSError as error:
                    raise FileNotFoundError(self._missing(block, column, name)) from error
                if found != size:
                    raise ValueError(self._damaged(block, column, name))

    def _missing(self, block: int, column: int, name: str) -> str:
        of, where = self._targets(block, column), f"on {socket.gethostname()}"
        if not self.store.exists():
            return (
                f"Expected the coefficients of {of} in the store {self.store}, found no such folder {where}. If it was "
                "moved, call `st.io.attach_betas(adata, store)` with its new location. If it was deleted, call "
                "`st.tl.fit_betas` again. Workers of a cluster must be able to access it under the same path."
            )
        return (
            f"Expected the coefficients of {of} in the store {self.store}, found its file "
            f"{self.parts[block].folder.name}/{name} missing {where}. Delete the folder {self.parts[block].folder} and "
            "call `st.tl.fit_betas(adata, store=...)` as before: it refits only what is missing."
        )

    def _damaged(self, block: int, column: int, name: str) -> str:
        folder = self.parts[block].folder
        return (
            f"Expected the coefficients of {self._targets(block, column)} in the store {self.store} to be intact, "
            f"found {folder.name}/{name} damaged or replaced. Delete the folder {folder} and call "
            "`st.tl.fit_betas(adata, store=...)` as before: it refits only what is missing."
        )

    def _targets(self, block: int, column: int) -> str:
        """Targets that have columns in a chunk, in words."""
        manifest = self.parts[block].manifest
        width = manifest.arrays[self.array].chunks[1]
        ends = np.cumsum(manifest.columns)
        starts = ends - manifest.columns
        names = [
            target
            for target, start, end in zip(manifest.targets, starts, ends, strict=True)
            if start < (column + 1) * width and end > column * width
        ]
        return listed(names, 5)


def _columns_at_once(array: StoredArray) -> tuple[int, int]:
    """Columns of a block, and how many of them go into a chunk of the dask array."""
    width = array.chunks[1]
    return array.shape[1], max(1, _DASK_COLUMNS // width) * width


def _buffer(name: str, size: int) -> bytearray:
    """Memory of this thread: new memory for each chunk would take longer than what is done in it."""
    held: bytearray | None = getattr(_memory, name, None)
    if held is None or len(held) < size:
        held = bytearray(size)
        setattr(_memory, name, held)
    return held


def _read(file: object, into: memoryview) -> int:
    total = 0
    while total < len(into):
        count = file.readinto(into[total:])  # type: ignore[attr-defined]
        if not count:
            break
        total += count
    return total
