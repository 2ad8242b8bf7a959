"""Coefficients on disk: what is fitted once is not fitted again, whatever happened in between."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch import Callback

import spacetravlr as st
from spacetravlr._temporary import temporary_name
from spacetravlr.io._store import BetaStore
from spacetravlr.models.bodies._registry import BODY_NAMES
from spacetravlr.models.fit import _block, _lazy
from spacetravlr.models.fit import _tissue as fitting

TARGETS = ["PAX5", "CD79A", "MS4A1"]


def _ready():
    adata = st.datasets.simulated_tissue(
        n_cells=150, n_cell_types=2, n_targets=3, n_tfs=5, n_active_tfs=3, n_pairs=4, n_active_pairs=2,
        n_contact_pairs=1, n_ligand_tf=0, n_active_ligand_tf=0, fields="position", rng=1,
    )  # fmt: skip
    st.pp.spatial_weights(adata)
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn)
    return adata


@pytest.fixture(scope="module")
def base():
    return _ready()


@pytest.fixture(scope="module")
def in_memory(base):
    return _fit(base, None)


def _fit(adata, store, **options):
    options = {"body": "surface", "block_size": 1, "n_jobs": 1, "uncertainty": True, **options}
    return st.tl.fit_betas(adata, options.pop("targets", TARGETS), store=store, copy=True, **options)


@pytest.fixture
def fitted_blocks(monkeypatch):
    """Targets of the blocks that were fitted, in order."""
    blocks: list[list[int]] = []
    fit_targets = fitting.fit_targets

    def count(inputs, settings, index, **options):
        blocks.append(list(index))
        return fit_targets(inputs, settings, index, **options)

    monkeypatch.setattr(fitting, "fit_targets", count)
    return blocks


@pytest.fixture
def parts():
    """A block as a fit leaves it."""
    return {
        "betas": np.arange(12, dtype=np.float32).reshape(4, 3),
        "terms": pd.DataFrame({"importance": [np.nan, 1.0, 0.0], "active": [True, True, False]}),
        "scores": pd.DataFrame({"target": ["A", "A"], "cell_type": [0, 1], "kept": ["zero", "seed"]}),
        "training": pd.DataFrame({"target": pd.Series(dtype=object), "epoch": pd.Series(dtype=int)}),
    }


# the folder


def test_a_block_comes_back(tmp_path, parts):
    store = BetaStore(tmp_path / "new" / "betas.zarr", {"cells": "a"})
    assert not store.has(0)
    store.write(0, **parts)
    store.write(3, **parts, sd=parts["betas"] / 2)
    again = BetaStore(store.path, {"cells": "a"})
    assert [again.has(b) for b in range(5)] == [True, False, False, True, False]
    block = again.read(3)
    assert isinstance(block.betas, da.Array)
    np.testing.assert_array_equal(block.betas, parts["betas"])
    np.testing.assert_array_equal(block.sd, parts["betas"] / 2)
    assert again.read(0).sd is None
    for name in ("terms", "scores", "training"):
        pd.testing.assert_frame_equal(
            getattr(block, name).astype(object), parts[name].rename(index=str).astype(object), check_index_type=False
        )


def test_a_block_that_is_there_stays(tmp_path, parts):
    store = BetaStore(tmp_path / "betas.zarr", {})
    store.write(0, **parts)
    store.write(0, **{**parts, "betas": parts["betas"] + 1})
    np.testing.assert_array_equal(store.read(0).betas, parts["betas"])
    assert not list(store.path.glob(".block_*"))


def test_a_block_that_cannot_be_written_leaves_nothing(tmp_path, parts, monkeypatch):
    import anndata.io

    store = BetaStore(tmp_path / "betas.zarr", {})
    store.write(0, **parts)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(anndata.io, "write_elem", full)
    with pytest.raises(OSError, match=r"Could not write block 1 of the coefficients to .*: No space left on device"):
        store.write(1, **parts)
    assert store.has(0)
    assert not store.has(1)
    assert not list(store.path.glob(".block_*"))


def test_what_a_dead_process_left_is_removed_and_nothing_else(tmp_path, parts):
    store = BetaStore(tmp_path / "betas.zarr", {})
    store.write(0, **parts)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    name = temporary_name("block_00001")
    dead = store.path / name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    another_start = store.path / re.sub(rf"-{os.getpid()}-\d+-", f"-{os.getpid()}-1-", name)
    elsewhere, old_elsewhere = (store.path / re.sub(r"\.[0-9a-f]{8}-", f".{m}-", name) for m in ("0" * 8, "1" * 8))
    alive, foreign = store.path / name, store.path / ".block_00001.mine"
    for path in (dead, another_start, elsewhere, old_elsewhere, alive, foreign):
        path.mkdir()
        (path / "half").write_text("x")
    for path in (old_elsewhere / "half", old_elsewhere):
        os.utime(path, (0, time.time() - 2 * 86_400))
    again = BetaStore(store.path, {})
    assert set(store.path.glob(".block_*")) == {elsewhere, alive, foreign}
    assert again.has(0)
    assert not again.has(1)


def _spoil(block, how):
    if how == "no manifest":
        (block / "manifest.json").unlink()
    elif how == "damaged manifest":
        (block / "manifest.json").write_text('{"format": 1, "targets"')
    elif how == "other manifest":
        (block / "manifest.json").write_text('{"format": 1, "files": []}')
    elif how == "no chunk":
        (block / "betas" / "c" / "0" / "0").unlink()
    elif how == "short chunk":
        (block / "betas" / "c" / "0" / "0").write_bytes(b"x")
    elif how == "no table":
        shutil.rmtree(block / "terms")
    else:
        table = block / "scores" / "zarr.json"
        table.write_text(table.read_text().replace("scores", "SCORES").swapcase())


DAMAGE = ["no manifest", "damaged manifest", "other manifest", "no chunk", "short chunk", "no table", "changed table"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_block_is_whole_or_an_error(tmp_path, parts, how):
    store = BetaStore(tmp_path / "betas.zarr", {})
    store.write(0, **parts)
    _spoil(store.path / "block_00000", how)
    again = BetaStore(store.path, {})
    with pytest.raises(
        ValueError, match=r"block_00000 to hold the coefficients of .* as they were written, found that"
    ):
        again.has(0)
    again.write(0, **{**parts, "betas": parts["betas"] + 1})
    assert again.has(0)
    np.testing.assert_array_equal(again.read(0).betas, parts["betas"] + 1)
    assert not list(store.path.glob(".block_*"))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"text"', "\x00\xff"])
def test_a_damaged_note_is_named(tmp_path, text):
    store = BetaStore(tmp_path / "betas.zarr", {"cells": "a"})
    (store.path / "spacetravlr.json").write_text(text)
    with pytest.raises(ValueError, match=r"Expected .*spacetravlr\.json to describe the fit of a store, found"):
        BetaStore(store.path, {"cells": "a"})


def test_a_store_as_zarr_sees_it(tmp_path):
    """Chunks of several rows and columns, with edges; zeros are written too."""
    import zarr

    values = np.random.default_rng(0).normal(size=(5000, 1200)).astype(np.float32)
    values[:, 100:200] = 0
    frame = pd.DataFrame({"a": [1.0]})
    store = BetaStore(tmp_path / "betas.zarr", {})
    store.write(0, betas=values, terms=frame, scores=frame, training=frame)
    block = store.path / "block_00000"
    np.testing.assert_array_equal(zarr.open_group(block, mode="r")["betas"][:], values)
    assert len([p for p in (block / "betas" / "c").rglob("*") if p.is_file()]) == 6
    betas = store.read(0).betas
    np.testing.assert_array_equal(betas, values)
    for key in (np.s_[1000:3000, 390:840], np.s_[::-3, 5:1:-2], np.s_[[3, 4999, 0], :], np.s_[5, 7], np.s_[10:10, :]):
        np.testing.assert_array_equal(betas[key], values[key])


def test_foreign_folders_and_files_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="Expected `store` to be a new folder or one written by fit_betas, found"):
        BetaStore(tmp_path / "folder", {})
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match=r"Expected `store` to be a folder, found the file .*thesis\.txt"):
        BetaStore(tmp_path / "folder" / "thesis.txt", {})
    with pytest.raises(OSError, match="Expected `store` to be a writable folder, found"):
        BetaStore(tmp_path / "folder" / "thesis.txt" / "below", {})


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "betas.zarr").mkdir()
    (tmp_path / "betas.zarr" / temporary_name("spacetravlr.json", ".tmp")).write_text("{")  # killed as it began
    assert not BetaStore(tmp_path / "betas.zarr", {"a": "1"}).has(0)


@contextmanager
def _nobody():
    """Whose permissions count; nothing is closed to root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_cannot_be_written(parts):
    """Or no longer: going on asks before it fits."""
    with tempfile.TemporaryDirectory() as folder:  # where everyone may look
        store = BetaStore(Path(folder) / "b.zarr", {})
        store.write(0, **parts)
        Path(folder).chmod(0o755)
        store.path.chmod(0o555)
        with _nobody(), pytest.raises(OSError, match=r"Expected `store` to be a writable folder, found"):
            store.assert_room([1])
        with _nobody(), pytest.raises(OSError, match="Expected `store` to be a writable folder, found"):
            BetaStore(store.path / "below", {})
        store.path.chmod(0o755)
        store.assert_room([1])
        assert not list(store.path.glob(".probe*"))


def test_another_fingerprint_is_refused(tmp_path):
    BetaStore(tmp_path / "betas.zarr", {"cells": "1", "settings": "2", "folds": "3"})
    with pytest.raises(ValueError, match="found one that differs in cells, folds; pass another folder or delete"):
        BetaStore(tmp_path / "betas.zarr", {"cells": "9", "settings": "2"})


def test_half_precision(tmp_path, parts):
    import zarr

    store = BetaStore(tmp_path / "betas.zarr", {}, store_as="float16")
    store.write(0, **parts, sd=parts["betas"] * np.nan)
    block = store.read(0)
    assert block.betas.dtype == block.sd.dtype == np.float32
    np.testing.assert_allclose(block.betas, parts["betas"], rtol=1e-3, atol=1e-7)
    assert np.isnan(block.sd.compute()).all()
    assert zarr.open_group(store.path / "block_00000", mode="r")["betas"].dtype == np.float16


def test_what_half_precision_cannot_hold_is_refused(tmp_path, parts):
    store = BetaStore(tmp_path / "betas.zarr", {}, store_as="float16")
    with pytest.raises(
        ValueError, match=r'within 65504 for `store_as="float16"`, found 7e\+04; use store_as="float32"'
    ):
        store.write(0, **{**parts, "betas": np.where(parts["betas"] == parts["betas"].max(), 7e4, 0)})
    assert not store.has(0)
    assert not list(store.path.glob(".block_*"))


def test_a_store_keeps_its_form(tmp_path):
    BetaStore(tmp_path / "betas.zarr", {}, store_as="float16")
    for other in ("float32", "bodies"):
        with pytest.raises(ValueError, match="differs in store_as"):
            BetaStore(tmp_path / "betas.zarr", {}, store_as=other)


# fits


@pytest.mark.parametrize("store_as", ["float16", "bodies"])
def test_other_forms_of_the_coefficients(base, in_memory, tmp_path, fitted_blocks, store_as):
    folder = tmp_path / "betas.zarr"
    tolerance = {"rtol": 1e-3, "atol": 1e-6} if store_as == "float16" else {"atol": 1e-6}
    expected = in_memory.obsm["betas"]
    for _ in range(2):
        out = _fit(base, folder, store_as=store_as, uncertainty=False)
        assert len(fitted_blocks) == 3
        assert isinstance(out.obsm["betas"], da.Array)
        assert out.obsm["betas"].dtype == np.float32
        np.testing.assert_allclose(out.obsm["betas"].compute(), expected, **tolerance)
    np.testing.assert_allclose(out.obsm["betas"][40:90, 3:30], expected[40:90, 3:30], **tolerance)
    memory = in_memory.copy()
    for adata in (out, memory):
        st.tl.perturb(adata, {"FOXO1": 0})
    np.testing.assert_allclose(out.layers["perturbed"], memory.layers["perturbed"], atol=1e-3)
    assert (folder / "block_00000" / "betas").exists() == (store_as == "float16")


def test_bodies_are_evaluated_in_chunks_and_from_several_threads(base, tmp_path, monkeypatch):
    network = st.nn.NetworkConfig(n_epochs=3, batch_size=64, learning_rate=0.02, device="cpu")
    options = {"body": "cnn", "network": network, "uncertainty": False, "block_size": 2}
    monkeypatch.setattr(
        _block, "choose_bodies", lambda block, *_: np.full((len(block), 2), BODY_NAMES.index("network"))
    )
    memory = _fit(base, None, **options)
    monkeypatch.setattr(_lazy, "_BYTES", 4 * 20 * 40)
    out = _fit(base, tmp_path / "betas.zarr", store_as="bodies", **options)
    assert len(out.obsm["betas"].chunks[0]) > 2
    values = out.obsm["betas"].compute(scheduler="threads", num_workers=4)
    np.testing.assert_allclose(values, memory.obsm["betas"], atol=1e-5)


def test_a_form_needs_a_folder(base):
    with pytest.raises(ValueError, match="Expected `store` to name a folder with store_as='bodies', found None"):
        _fit(base, None, store_as="bodies")
    with pytest.raises(ValueError, match="Expected `store_as` to be one of"):
        _fit(base, "x", store_as="float64")


def test_same_coefficients_with_and_without(base, in_memory, tmp_path):
    out = _fit(base, tmp_path / "betas.zarr")
    for key in ("betas", "betas_sd"):
        assert isinstance(out.obsm[key], da.Array)
        np.testing.assert_allclose(out.obsm[key].compute(), in_memory.obsm[key], atol=1e-6)
    assert out.uns["betas"]["store"] == str(tmp_path / "betas.zarr")
    for table in ("terms", "scores", "training"):
        pd.testing.assert_frame_equal(
            out.uns["betas"][table], in_memory.uns["betas"][table], check_categorical=False, check_dtype=False
        )


def test_what_follows_a_fit_works_from_the_store(base, in_memory, tmp_path):
    out = _fit(base, tmp_path / "betas.zarr", block_size=2)
    memory = in_memory.copy()
    for adata in (out, memory):
        st.tl.perturb(adata, {"FOXO1": 0})
    np.testing.assert_allclose(out.layers["perturbed"], memory.layers["perturbed"], atol=1e-5)
    assert not np.allclose(out.layers["perturbed"], out.layers["log1p"])
    np.testing.assert_allclose(st.get.betas(out, "MS4A1"), st.get.betas(memory, "MS4A1"), atol=1e-5)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_lazily_read_coefficients_are_written_with_the_rest(base, in_memory, tmp_path, suffix):
    out = _fit(base, tmp_path / "betas.zarr")
    del out.obsp, out.uns["simulation"]  # a zarr folder has many files as it is
    for name in [n for n in out.layers if n is not None]:
        del out.layers[name]
    st.io.write(out, tmp_path / f"fit{suffix}")
    back = st.io.read(tmp_path / f"fit{suffix}")
    np.testing.assert_allclose(back.obsm["betas"], in_memory.obsm["betas"], atol=1e-6)


def test_a_store_stays_where_it_is(base, in_memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for store, place in (("betas.zarr", tmp_path), ("~/betas.zarr", tmp_path / "home")):
        out = _fit(base, store)
        assert out.uns["betas"]["store"] == str(place / "betas.zarr")
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)
        monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def surface_store(base, tmp_path_factory):
    """The folder of a finished fit, and what was fitted."""
    folder = tmp_path_factory.mktemp("surface") / "betas.zarr"
    return folder, _fit(base, folder)


def _every_reader(adata, folder):
    yield lambda: adata.obsm["betas"].compute()
    yield lambda: adata[10:20].obsm["betas"].compute()
    yield lambda: st.get.betas(adata, "CD79A")
    yield lambda: st.tl.perturb(adata, "FOXO1", copy=True)
    yield lambda: st.io.write(adata, folder / "out.h5ad")
    yield lambda: pickle.loads(pickle.dumps(adata.obsm["betas"])).compute(scheduler="synchronous")


@pytest.mark.parametrize("how", ["moved", "no block", "no chunk", "short chunk"])
def test_coefficients_that_are_gone_are_no_zeros(surface_store, tmp_path, how):
    folder, out = _copied(surface_store, tmp_path)
    block = folder / "block_00001"
    if how == "moved":
        folder.rename(tmp_path / "elsewhere")
    elif how == "no block":
        shutil.rmtree(block)
    else:
        _spoil(block, how)
    what = "intact, found .*damaged" if how == "short chunk" else "found (no such folder|its file .* missing)"
    with np.errstate(all="ignore"):
        for read in _every_reader(out, tmp_path):
            with pytest.raises((FileNotFoundError, ValueError), match=rf"coefficients of '.*store {folder}.*{what}"):
                read()
    assert not list(tmp_path.glob("*out.h5ad*"))


def test_a_chunk_of_the_same_size_is_noticed_when_it_is_read(surface_store, tmp_path):
    folder, out = _copied(surface_store, tmp_path)
    chunk = folder / "block_00001" / "betas" / "c" / "0" / "0"
    values = bytearray(chunk.read_bytes())
    values[-1] ^= 1
    chunk.write_bytes(values)
    with pytest.raises(
        ValueError, match=r"coefficients of 'CD79A' .*damaged or replaced. Delete the folder .*block_0000"
    ):
        st.get.betas(out, "CD79A")
    st.get.betas(out, "PAX5")


@pytest.mark.parametrize("how", ["no chunk", "no table"])
def test_a_block_that_lost_files_is_named_before_the_fit(base, in_memory, surface_store, tmp_path, fitted_blocks, how):
    folder, _ = _copied(surface_store, tmp_path)
    _spoil(folder / "block_00001", how)
    with pytest.raises(
        ValueError, match="block_00001 to hold the coefficients of 'CD79A' .* Delete this folder and call"
    ):
        _fit(base, folder)
    assert fitted_blocks == []
    shutil.rmtree(folder / "block_00001")
    out = _fit(base, folder)
    assert fitted_blocks == [[1]]
    np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)


def test_a_moved_store_is_attached_again(surface_store, in_memory, tmp_path):
    folder, out = _copied(surface_store, tmp_path)
    folder.rename(tmp_path / "moved.zarr")
    del out.obsm["betas"], out.obsm["betas_sd"]
    copied = st.io.attach_betas(out, tmp_path / "moved.zarr", copy=True)
    assert "betas" not in out.obsm
    assert st.io.attach_betas(out, tmp_path / "moved.zarr") is None
    for adata in (out, copied):
        for key in ("betas", "betas_sd"):
            assert isinstance(adata.obsm[key], da.Array)
            np.testing.assert_allclose(adata.obsm[key].compute(), in_memory.obsm[key], atol=1e-6)
        assert adata.uns["betas"]["store"] == str(tmp_path / "moved.zarr")


def test_only_the_store_of_the_fit_is_attached(base, surface_store, tmp_path):
    folder, out = _copied(surface_store, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Expected `store` to be the folder that .*found no spacetravlr.json"):
        st.io.attach_betas(out, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found coefficients of other cells"):
        st.io.attach_betas(out[::-1].copy(), folder)
    with pytest.raises(KeyError, match="st.tl.fit_betas"):
        st.io.attach_betas(base, folder)
    other = out.copy()
    other.uns["betas"]["terms"]["importance"] *= 2
    with pytest.raises(ValueError, match="found other targets or coefficients"):
        st.io.attach_betas(other, folder)
    _spoil(folder / "block_00001", "no chunk")
    with pytest.raises(ValueError, match="block_00001 .CD79A.* to be complete, found that betas/c/0/0 is missing"):
        st.io.attach_betas(out, folder)
    bodies = _fit(base, tmp_path / "bodies.zarr", targets="PAX5", store_as="bodies", uncertainty=False)
    with pytest.raises(ValueError, match="found only bodies"):
        st.io.attach_betas(bodies, tmp_path / "bodies.zarr")


def _copied(surface_store, tmp_path):
    """A finished fit in a folder of its own."""
    store, adata = surface_store
    folder = tmp_path / "copied.zarr"
    shutil.copytree(store, folder)
    return folder, st.io.attach_betas(adata, folder, copy=True)


def test_a_finished_store_is_read_and_nothing_fitted(base, in_memory, tmp_path, fitted_blocks):
    _fit(base, tmp_path / "betas.zarr")
    assert fitted_blocks == [[0], [1], [2]]
    out = _fit(base, tmp_path / "betas.zarr", n_jobs=2)
    assert len(fitted_blocks) == 3
    np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)


def test_only_missing_blocks_are_fitted(base, in_memory, tmp_path, fitted_blocks):
    _fit(base, tmp_path / "betas.zarr")
    shutil.rmtree(tmp_path / "betas.zarr" / "block_00001")
    fitted_blocks.clear()
    out = _fit(base, tmp_path / "betas.zarr")
    assert fitted_blocks == [[1]]
    np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)


def test_an_error_in_the_second_block_keeps_the_first(base, in_memory, tmp_path, monkeypatch):
    fit_targets = fitting.fit_targets

    def fail(inputs, settings, index, **options):
        if 1 in index:
            msg = "power cut"
            raise RuntimeError(msg)
        return fit_targets(inputs, settings, index, **options)

    before = set(base.obsm)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_targets", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            st.tl.fit_betas(base, body="surface", block_size=1, n_jobs=1, uncertainty=True, store=tmp_path / "b.zarr")
    assert set(base.obsm) == before
    assert sorted(p.name for p in (tmp_path / "b.zarr").glob("block_*")) == ["block_00000"]
    out = _fit(base, tmp_path / "b.zarr")
    np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)


def _nearly_full(monkeypatch, cls, at):
    """Let no file grow beyond 500 bytes while the ``at``-th part is written: the system's error, as on a full disk."""
    written = []
    write = cls.write

    def limited(self, *args, **options):
        written.append(1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if len(written) == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            write(self, *args, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(cls, "write", limited)


def test_a_disk_that_runs_full_keeps_what_was_written(base, in_memory, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _nearly_full(patch, BetaStore, 3)
        with pytest.raises(
            OSError, match=r"Could not write block 2 .*\. Free some space and call again: finished parts"
        ):
            _fit(base, tmp_path / "b.zarr")
    assert sorted(p.name for p in (tmp_path / "b.zarr").glob("block_*")) == ["block_00000", "block_00001"]
    out = _fit(base, tmp_path / "b.zarr")
    assert not list((tmp_path / "b.zarr").glob(".block_*"))
    np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)


def test_room_is_asked_for_before_the_work(base, tmp_path, monkeypatch, fitted_blocks):
    usage = shutil.disk_usage(tmp_path)
    blocks = 2 * 4 * 150 * (np.diff(_indptr(base)) + 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(blocks.max()) - 1))
        with pytest.raises(OSError, match=r"Expected `store` to have room for at least .* MB, found .* MB free at"):
            _fit(base, tmp_path / "b.zarr")
        assert not fitted_blocks
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(blocks.sum()) - 1))
        with pytest.warns(UserWarning, match=r"Up to .* MB will be written \(less when compressed\), and"):
            _fit(base, tmp_path / "b.zarr")
        assert fitted_blocks == [[0], [1], [2]]
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
        _fit(base, tmp_path / "b.zarr")  # nothing is left to write


def _indptr(adata):
    targets = adata.uns["modulators"]["table"]["target"].astype(str)
    return np.concatenate([[0], np.cumsum([(targets == t).sum() for t in TARGETS])])


def test_a_killed_run_resumes(base, in_memory, tmp_path):
    """The process dies without a chance to tidy up, in the middle of the second block."""
    store = tmp_path / "betas.zarr"
    st.io.write(base, tmp_path / "tissue.h5ad")
    program = textwrap.dedent(
        """
        import os, sys, time
        import spacetravlr as st
        from spacetravlr._temporary import temporary_name
        from spacetravlr.models.fit import _tissue as fitting

        fit_targets = fitting.fit_targets

        def slow(inputs, settings, index, **options):
            if 1 in index:
                os.mkdir(sys.argv[2] + "/" + temporary_name("block_00001"))
                time.sleep(60)
            return fit_targets(inputs, settings, index, **options)

        fitting.fit_targets = slow
        st.tl.fit_betas(st.io.read(sys.argv[1]), body="surface", block_size=1, n_jobs=1, uncertainty=True,
                        store=sys.argv[2], show_progress_bar=False)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "tissue.h5ad"), str(store)]) as process:
        deadline = time.monotonic() + 120
        while not list(store.glob(".block_00001.*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert sorted(p.name for p in store.glob("block_*")) == ["block_00000"]
    out = _fit(base, store)
    np.testing.assert_allclose(out.obsm["betas"].compute(), in_memory.obsm["betas"], atol=1e-6)
    assert not list(store.glob(".block_*"))


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """The folder of a finished fit."""
    folder = tmp_path_factory.mktemp("finished") / "betas.zarr"
    _fit(base, folder, body="seed")
    return folder


@pytest.mark.parametrize(
    "options, differing",
    [
        ({"score_threshold": 0.1}, "settings"),
        ({"uncertainty": False}, "settings"),
        ({"rng": 7}, "folds, settings"),
        ({"n_folds": 4}, "folds"),
        ({"targets": ["PAX5"]}, "expression, modulators, targets"),
        ({"targets": TARGETS[::-1]}, "targets"),
        ({"block_size": 2}, "block_size"),
        ({"raw_layer": "noise_free"}, "raw expression"),
        ({"cluster_key": "domain"}, "cell types"),
        ({"layer": "noise_free"}, "expression"),
    ],
)
def test_a_store_of_another_fit_says_what_differs(base, finished, fitted_blocks, options, differing):
    kept = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    with pytest.raises(ValueError, match=f"found one that differs in {differing};"):
        _fit(base, finished, **{"body": "seed", **options})
    assert fitted_blocks == []
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == kept


def test_objects_given_to_the_trainer_do_not_hinder_a_resume(base, tmp_path, fitted_blocks):
    def fit(**trainer_kwargs):
        network = st.nn.NetworkConfig(n_epochs=1, device="cpu", trainer_kwargs=trainer_kwargs)
        _fit(base, tmp_path / "betas.zarr", targets=["PAX5"], body="cnn", network=network)

    for _ in range(2):
        fit(callbacks=[Callback()])
    assert len(fitted_blocks) == 1
    with pytest.raises(ValueError, match="differs in settings"):
        fit(max_epochs=3)


def test_a_fit_goes_on_on_another_device(base, tmp_path, fitted_blocks):
    for device in ("cpu", "cuda"):
        network = st.nn.NetworkConfig(n_epochs=1, device=device)
        _fit(base, tmp_path / "betas.zarr", targets=["PAX5"], body="cnn", network=network)
    assert len(fitted_blocks) == 1


def test_progress_starts_with_what_is_there(base, tmp_path, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    _fit(base, tmp_path / "betas.zarr", body="seed")
    shutil.rmtree(tmp_path / "betas.zarr" / "block_00001")
    _fit(base, tmp_path / "betas.zarr", body="seed")
    assert [(bar.initial, bar.n, bar.total) for bar in bars] == [(0, 3, 3), (2, 3, 3)]


def test_other_cells_are_another_fit(base, finished):
    renamed = base.copy()
    renamed.obs_names = [f"other{name}" for name in base.obs_names]
    for key in ("received_ligands", "received_ligands_tfl"):
        renamed.uns[key] = renamed.uns[key].set_axis(renamed.obs_names)
    with pytest.raises(ValueError, match="differs in cells;"):
        _fit(renamed, finished, body="seed")
    moved = base.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] * 1.5
    with pytest.raises(ValueError, match="differs in coordinates"):
        _fit(moved, finished, body="seed")


def test_what_is_compared_is_readable(finished):
    found = json.loads((finished / "spacetravlr.json").read_text())
    assert {"cells", "targets", "expression", "modulators", "cell types", "coordinates", "settings"} <= set(found)
    assert all(isinstance(v, str) and len(v) <= 16 for v in found.values())
