"""Coefficients that are evaluated from the bodies in a store when they are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from spacetravlr.io._store import read_bodies
from spacetravlr.models.bodies._fitted import FittedBlock

if TYPE_CHECKING:
    from spacetravlr._types import Floats
    from spacetravlr.models.bodies._reference import QueryCells

_BYTES = 128 * 2**20  # of a chunk
_ONE_AT_A_TIME = Lock()  # compiled parallel code and torch's threads are not to be entered from several threads


def lazy_betas(path: str | os.PathLike[str], widths: Sequence[int], view: QueryCells) -> Any:
    """Coefficients of all blocks of a store at the cells of ``view``, evaluated chunk by chunk when they are read.

    Parameters
    ----------
    path
        Folder of the store.
    widths
        Columns of each block.
    view
        The cells.

    Returns
    -------
    Dask array, cells x columns, float32.
    """
    import dask.array as da
    from dask import delayed

    n_cells = len(view.seen.cell_type)
    shared = delayed(view, name=f"cells-{uuid4().hex}", traverse=False)  # once in the graph, whatever the chunks

    def chunk(block: int, start: int, stop: int) -> Any:
        values = delayed(_evaluate, pure=False)(os.fspath(path), block, shared, start, stop)
        return da.from_delayed(values, shape=(stop - start, widths[block]), dtype=np.float32)

    columns = []
    for block, width in enumerate(widths):
        step = max(1, _BYTES // (4 * max(width, 1)))
        rows = [chunk(block, start, min(start + step, n_cells)) for start in range(0, n_cells, step)]
        columns.append(da.concatenate(rows, axis=0))
    return da.concatenate(columns, axis=1)


def _evaluate(path: str, block: int, view: QueryCells, start: int, stop: int) -> Floats:
    with _ONE_AT_A_TIME:
        return FittedBlock.from_state(read_bodies(path, block)).evaluate(view.at(slice(start, stop)))
