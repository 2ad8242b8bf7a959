"""AnnData to disk: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from spacetravlr.io import read, write


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_what_is_there_is_replaced_only_by_something_complete(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"a.{suffix}"
    write(AnnData(np.ones((2, 3), dtype=np.float32)), path)
    write(AnnData(np.zeros((4, 3), dtype=np.float32)), str(path))
    assert read(path).shape == (4, 3)
    broken = AnnData(np.ones((2, 3), dtype=np.float32))
    broken.uns["object"] = object()
    with pytest.raises(Exception, match="object"):
        write(broken, path)
    assert read(path).shape == (4, 3)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `path` to end in \.h5ad or \.zarr, found `a\.loom`"):
        write(AnnData(np.ones((2, 3), dtype=np.float32)), tmp_path / "a.loom")
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        read(tmp_path / "a.h5ad")
