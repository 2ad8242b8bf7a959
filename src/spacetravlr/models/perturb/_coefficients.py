"""Reading coefficients a block at a time, whether they lie in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._core.response.propagation import in_memory
from spacetravlr._core.response.round import CoefficientChunk

if TYPE_CHECKING:
    from spacetravlr._core.design import Targets
    from spacetravlr._core.response.round import CoefficientReader
    from spacetravlr._types import Floats, Ints

# A perturbation reads the coefficients several times, so what is no larger than this is loaded once.
LOAD_BYTES = 1 << 30
BLOCK_BYTES = 1 << 28


def coefficient_reader(
    betas: Any, targets: Targets, *, load_bytes: int = LOAD_BYTES, block_bytes: int = BLOCK_BYTES
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
    block_bytes
        Largest block of lazily read coefficients in memory.

    Returns
    -------
    A function from target indices to blocks that cover them at all cells.
    """
    if isinstance(betas, np.ndarray):
        return in_memory(_single(betas))
    n_cells, n_columns = betas.shape
    if n_cells * n_columns * 4 <= load_bytes:
        return in_memory(load(betas))
    by_cells = _is_chunked_by_cells(betas)

    def read(wanted: Ints) -> Iterator[CoefficientChunk]:
        for group in [wanted] if by_cells else _groups(wanted, targets, max(1, block_bytes // (4 * n_cells))):
            if not len(group):
                continue
            first = targets.columns_of(int(group.min())).start
            stop = targets.columns_of(int(group.max())).stop
            step = max(1, block_bytes // (4 * (stop - first)))
            for start in range(0, n_cells, step):
                cells = slice(start, min(start + step, n_cells))
                yield CoefficientChunk(cells, group, first, load(betas[cells, first:stop]))

    return read


def load(block: Any) -> Floats:
    """Bring a lazily read block into memory, in a precision that compiled code reads."""
    return _single(np.asarray(block.compute() if hasattr(block, "compute") else block[...]))


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


def _groups(wanted: Ints, targets: Targets, max_columns: int) -> Iterator[Ints]:
    """Runs of targets whose columns, with what lies between them, are at most ``max_columns`` wide."""
    wanted = np.sort(wanted)
    start = 0
    for i, t in enumerate(wanted):
        if i > start and targets.columns_of(int(t)).stop - targets.columns_of(int(wanted[start])).start > max_columns:
            yield wanted[start:i]
            start = i
    yield wanted[start:]
