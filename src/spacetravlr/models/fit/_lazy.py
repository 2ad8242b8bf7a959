"""Coefficients that are evaluated from the bodies in a store when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from spacetravlr.io._chunks import Part
from spacetravlr.io._lazy import LazyMatrix
from spacetravlr.io._store import read_bodies, read_part
from spacetravlr.models.bodies._fitted import FittedBlock

if TYPE_CHECKING:
    from spacetravlr._types import Floats
    from spacetravlr.models.bodies._reference import QueryCells

_BYTES = 128 * 2**20  # of a chunk
_ONE_AT_A_TIME = Lock()  # compiled parallel code and torch's threads are not to be entered from several threads


def lazy_betas(path: Path, n_blocks: int, view: QueryCells) -> Any:
    """Coefficients of all blocks of a store at the cells of ``view``, evaluated chunk by chunk when they are read.

    Parameters
    ----------
    path
        Folder of the store.
    n_blocks
        Number of blocks.
    view
        The cells.

    Returns
    -------
    Dask array, cells x columns, float32.
    """
    matrix = EvaluatedMatrix(path, [read_part(path, b) for b in range(n_blocks)], view)
    step = max(1, _BYTES // (4 * max(matrix.widths)))
    rows = [min(step, matrix.shape[0] - start) for start in range(0, matrix.shape[0], step)]
    return matrix.as_dask(rows, matrix.widths)


class EvaluatedMatrix(LazyMatrix):
    """Coefficients of the bodies in a store at some cells.

    Parameters
    ----------
    path
        Folder of the store.
    parts
        Its blocks.
    view
        The cells.
    """

    def __init__(self, path: Path, parts: Sequence[Part], view: QueryCells) -> None:
        self.path, self.view = path, view
        self.widths = [sum(part.manifest.columns) for part in parts]
        self._starts = np.cumsum([0, *self.widths])
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            files = {name: v for name, v in part.manifest.files.items() if name.startswith("bodies/")}
            digest.update(repr((part.manifest.targets, sorted(files.items()))).encode())
        super().__init__(f"betas-{uuid4().hex}", digest.hexdigest(), (len(view.seen.cell_type), int(self._starts[-1])))

    def read(self, rows: slice, columns: slice) -> Floats:
        """Evaluate cells x columns."""
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        for block, start in enumerate(self._starts[:-1].tolist()):
            first, last = max(start, columns.start), min(start + self.widths[block], columns.stop)
            if first < last and len(out):
                with _ONE_AT_A_TIME:
                    fitted = FittedBlock.from_state(read_bodies(self.path, block))
                    values = fitted.evaluate(self.view.at(rows))
                out[:, first - columns.start : last - columns.start] = values[:, first - start : last - start]
        return out
