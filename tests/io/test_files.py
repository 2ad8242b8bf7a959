"""AnnData to disk: all of it or nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from spacetravlr._temporary import temporary_name
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


def _small() -> AnnData:
    return AnnData(np.ones((2, 3), dtype=np.float32))


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_only_an_anndata_is_replaced(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "h5ad":
        path.write_text("a thesis")
        with pytest.raises(ValueError, match="Expected `path` to be new or an existing AnnData, found"):
            write(_small(), path)
        assert path.read_text() == "a thesis"
        path.unlink()
        path.mkdir()
    else:
        for name in ("thesis.txt", "notes/thesis.txt", "obs/thesis.txt", "spacetravlr.json"):
            write(_small(), path)
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text("years")
            with pytest.raises(ValueError, match="Expected `path` to be new or an existing AnnData, found (a|the) "):
                write(_small(), path)
            assert (path / name).read_text() == "years"
            shutil.rmtree(path)
        path.mkdir()
        (path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="Expected `path` to be new or an existing AnnData"):
        write(_small(), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_home_and_tables_of_spatial_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    monkeypatch.setenv("HOME", str(tmp_path))
    sdata = spatialdata.SpatialData(tables={"one": _small(), "two": _small()[:1].copy()})
    write(sdata, "~/a.h5ad", table_key="two")
    assert read(tmp_path / "a.h5ad").shape == read("~/a.h5ad").shape == (1, 3)
    with pytest.raises(ValueError, match="exactly one table"):
        write(sdata, "~/a.h5ad")


def test_what_killed_calls_left_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    mine = [temporary_name("a.h5ad", ".tmp.h5ad"), temporary_name("a.zarr")]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")).mkdir()
    write(_small(), tmp_path / "a.h5ad")
    write(_small(), tmp_path / "a.zarr")
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5ad", "a.zarr", *mine}


def _plant(folder: Path, name: str, described: dict[str, object], chunk: str, value: bytes) -> None:
    (folder / chunk).parent.mkdir(parents=True)
    (folder / name).write_text(json.dumps(described))
    (folder / chunk).write_bytes(value)


class _Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["compressor", "filters", "codecs", "sharded", "consolidated"])
def test_codecs_that_run_code_are_refused(tmp_path: Path, place: str) -> None:
    path, flag = tmp_path / "a.zarr", tmp_path / "ran"
    write(_small(), path)
    pickled = {"id": "pickle", "protocol": 4}
    old: dict[str, object] = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "<f8", "compressor": None, "fill_value": None,
        "order": "C", "filters": None,
    }  # fmt: skip
    new: dict[str, object] = {"zarr_format": 3, "node_type": "array", "shape": [1], "codecs": [{"name": "bytes"}]}
    named = {"name": "numcodecs.pickle", "configuration": {}}
    value = pickle.dumps(_Touches(flag), protocol=4)
    if place == "compressor":
        _plant(path / "uns" / "note", ".zarray", {**old, "compressor": pickled}, "0", value)
    elif place == "filters":
        _plant(path / "uns" / "note", ".zarray", {**old, "filters": [pickled]}, "0", value)
    elif place == "codecs":
        _plant(path / "uns" / "note", "zarr.json", {**new, "codecs": [named]}, "c/0", value)
    elif place == "sharded":
        inner = {"name": "sharding_indexed", "configuration": {"codecs": [named], "chunk_shape": [1]}}
        _plant(path / "uns" / "note", "zarr.json", {**new, "codecs": [inner]}, "c/0", value)
    else:
        metadata = {"attributes": {**new, "codecs": [named]}}
        _plant(path / "uns" / "note", ".zmetadata", {"metadata": metadata}, "c/0", value)
    with pytest.raises(ValueError, match="codecs that decode only numbers and text, found '(numcodecs.)?pickle' in"):
        read(path)
    assert not flag.exists()


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `path` to end in \.h5ad or \.zarr, found `a\.loom`"):
        write(AnnData(np.ones((2, 3), dtype=np.float32)), tmp_path / "a.loom")
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        read(tmp_path / "a.h5ad")
