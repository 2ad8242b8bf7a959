"""Reading coefficients a chunk at a time, whether they lie in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._core.response.propagation import in_memory
from spacetravlr._core.response.round import CoefficientChunk
from spacetravlr._core.response.start import Workspace
from spacetravlr._utils import resolve_n_jobs
from spacetravlr.io._chunks import StoredMatrix
from spacetravlr.io._lazy import lazy_matrix

if TYPE_CHECKING:
    from spacetravlr._core.design import Targets
    from spacetravlr._core.response.round import CoefficientReader
    from spacetravlr._types import Floats, Ints

# A perturbation reads the coefficients several times, so what is no larger than this is loaded once.
LOAD_BYTES = 1 << 30
CHUNK_BYTES = 1 << 27


def coefficient_reader(
    betas: Any,
    targets: Targets,
    *,
    load_bytes: int = LOAD_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
    n_jobs: int | None = None,
) -> CoefficientReader:
    """Reader of a coefficient matrix.

    Parameters
    ----------
    betas
        Cells x columns: an ndarray, or anything that is sliced lazily, such as a dask array over zarr.
    targets
        Which columns belong to which target.
    load_bytes
        Lazily read coefficients up to this size are loaded at once and kept.
    chunk_bytes
        Largest chunk of lazily read coefficients in memory.
    n_jobs
        Threads that read from a store.

    Returns
    -------
    A function from target indices, and the columns of these targets that are needed (all by default), to chunks that
    cover them at all cells. A chunk holds until the next one is asked for.

    Raises
    ------
    FileNotFoundError, ValueError
        If coefficients are in a store that is not there, or not whole.
    """
    if isinstance(betas, np.ndarray):
        return in_memory(_single(betas))
    matrix = lazy_matrix(betas)
    stored = matrix if isinstance(matrix, StoredMatrix) else None
    if stored is not None:
        stored.assert_whole()
    n_cells, n_columns = betas.shape
    if n_cells * n_columns * 4 <= load_bytes:
        return in_memory(load(betas) if stored is None else _load_stored(stored, n_jobs))
    if stored is not None:
        return _stream(stored, targets, chunk_bytes, n_jobs)
    by_cells = _is_chunked_by_cells(betas)

    def read(wanted: Ints, needed: Ints | None = None) -> Iterator[CoefficientChunk]:
        for group in [wanted] if by_cells else column_groups(wanted, targets, max(1, chunk_bytes // (4 * n_cells))):
            if not len(group):
                continue
            first, stop = _columns(group, targets)
            step = max(1, chunk_bytes // (4 * (stop - first)))
            for start in range(0, n_cells, step):
                cells = slice(start, min(start + step, n_cells))
                yield CoefficientChunk(cells, group, first, load(betas[cells, first:stop]))

    return read


def load(block: Any) -> Floats:
    """Bring a lazily read piece into memory, in a precision that compiled code reads."""
    return _single(np.asarray(block.compute() if hasattr(block, "compute") else block[...]))


def _load_stored(stored: StoredMatrix, n_jobs: int | None) -> Floats:
    out = np.empty(stored.shape, dtype=np.float32)
    with ThreadPoolExecutor(resolve_n_jobs(n_jobs)) as pool:
        stored.read_into(out, slice(0, stored.shape[0]), slice(0, stored.shape[1]), pool=pool)
    return out


def _stream(stored: StoredMatrix, targets: Targets, chunk_bytes: int, n_jobs: int | None) -> CoefficientReader:
    """Read a store through memory that is used again and again; of the files, those that hold needed columns."""
    n_cells = stored.shape[0]
    rows = min(stored.rows_per_chunk, n_cells)
    workspace = Workspace()

    def read(wanted: Ints, needed: Ints | None = None) -> Iterator[CoefficientChunk]:
        with ThreadPoolExecutor(resolve_n_jobs(n_jobs)) as pool:
            for group in column_groups(wanted, targets, max(1, chunk_bytes // (4 * rows))):
                if not len(group):
                    continue
                first, stop = _columns(group, targets)
                columns = np.concatenate([np.r_[targets.columns_of(t)] for t in group.tolist()])
                if needed is not None:
                    columns = np.intersect1d(columns, needed)
                step = max(1, min(rows, chunk_bytes // (4 * (stop - first))))
                for start in range(0, n_cells, step):
                    cells = slice(start, min(start + step, n_cells))
                    values = workspace.empty("chunk", (cells.stop - start, stop - first), stored.dtype)
                    stored.read_into(values, cells, slice(first, stop), needed=columns, pool=pool)
                    yield CoefficientChunk(cells, group, first, values)

    return read


def _single(values: Floats) -> Floats:
    # a cell's coefficients must lie side by side: a matrix in column order is copied once, not read across
    dtype = values.dtype if values.dtype in (np.float32, np.float64) else np.float32
    return np.ascontiguousarray(values, dtype=dtype)


def _is_chunked_by_cells(betas: Any) -> bool:
    chunks = getattr(betas, "chunks", None)
    if not chunks or len(chunks) != 2:
        return False
    columns = chunks[1] if isinstance(chunks[1], int) else max(chunks[1])
    cells = chunks[0] if isinstance(chunks[0], int) else max(chunks[0])
    return bool(columns >= betas.shape[1] and cells < betas.shape[0])


def _columns(group: Ints, targets: Targets) -> tuple[int, int]:
    """First column of the first target, and the end of the last one's."""
    return targets.columns_of(int(group.min())).start, targets.columns_of(int(group.max())).stop


def column_groups(wanted: Ints, targets: Targets, max_columns: int) -> Iterator[Ints]:
    """Runs of targets whose columns, with what lies between them, are at most ``max_columns`` wide."""
    wanted = np.sort(wanted)
    start = 0
    for i, t in enumerate(wanted):
        if i > start and targets.columns_of(int(t)).stop - targets.columns_of(int(wanted[start])).start > max_columns:
            yield wanted[start:i]
            start = i
    yield wanted[start:]
