"""Matrices that are read on demand, as dask arrays that can be recognised later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats

# by the name of their dask arrays, whose graphs hold them: a slice has another name, and so is not taken for the whole
_OPEN: WeakValueDictionary[str, LazyMatrix] = WeakValueDictionary()


class LazyMatrix(ABC):
    """Cells x columns, float32, read piece by piece.

    Parameters
    ----------
    name
        Name of the dask array, unique to its contents and location.
    digest
        Digest that identifies the contents.
    shape
        Cells and columns.
    """

    def __init__(self, name: str, digest: str, shape: tuple[int, int]) -> None:
        self.name, self.digest, self.shape = name, digest, shape
        self.dtype = np.dtype(np.float32)
        self.ndim = 2
        _OPEN[name] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _OPEN[self.name] = self

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        (rows, row_step), (columns, column_step) = (
            _ascending(part, size) for part, size in zip(key, self.shape, strict=True)
        )
        return self.read(rows, columns)[::row_step, ::column_step]

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> Floats:
        """Read cells x columns; both slices have a start, a stop and no step."""

    def as_dask(self, rows: Sequence[int], columns: Sequence[int]) -> Any:
        """Dask array over it, with chunks of these sizes."""
        import dask.array as da

        return da.from_array(
            self,
            chunks=(tuple(rows), tuple(columns)),
            name=self.name,
            asarray=False,
            fancy=False,
            meta=np.empty((0, 0), dtype=np.float32),
        )


def lazy_matrix(array: Any) -> LazyMatrix | None:
    """The matrix that a dask array reads as a whole; ``None`` for any other array."""
    return _OPEN.get(str(getattr(array, "name", "")))


def _ascending(part: slice, size: int) -> tuple[slice, int]:
    """Range that holds all of a slice, and the step through what was read."""
    indices = range(size)[part]
    if not len(indices):
        return slice(0, 0), 1
    low, high = min(indices[0], indices[-1]), max(indices[0], indices[-1])
    return slice(low, high + 1), indices.step
