"""Coefficients on disk: one zarr group per block of targets, moved into place when complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from spacetravlr._temporary import remove_abandoned, temporary_folder, write_new
from spacetravlr._utils import absolute_path
from spacetravlr._validators import listed
from spacetravlr.io._chunks import Part, StoredMatrix, write_matrix
from spacetravlr.io._codecs import assert_plain_codecs
from spacetravlr.io._disk import assert_room, permitted, writing
from spacetravlr.io._files import no_format_news
from spacetravlr.io._manifest import (
    Manifest,
    StoredArray,
    checksum_of,
    find_damage,
    list_files,
    read_manifest,
    stored_array,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from spacetravlr._types import Floats

NOTE = "spacetravlr.json"
_FORMAT = "3"

#: What is kept of the coefficients of a block: their values in single or half precision, or the bodies alone.
StoreAs = Literal["float32", "float16", "bodies"]


class StoredBlock(NamedTuple):
    """Tables of a block as they were written, and its matrices, read lazily."""

    betas: Any | None
    """``None`` where only the bodies are kept."""
    sd: Any | None
    terms: pd.DataFrame
    scores: pd.DataFrame
    training: pd.DataFrame


class BetaStore:
    """A folder of fitted blocks from which a later call with the same inputs can resume.

    Parameters
    ----------
    path
        Folder, by convention ending in ``.zarr``; created if it does not exist.
    fingerprint
        What must match for blocks to be reused: cells, targets, settings.
    store_as
        Storage format of the coefficients. All formats are read as float32.

    Raises
    ------
    ValueError
        If it is not a folder, or contains something else or a fit with another fingerprint.
    OSError
        If the folder cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], fingerprint: dict[str, Any], *, store_as: StoreAs = "float32"
    ) -> None:
        import zarr

        self.path = absolute_path(path)
        self.store_as = store_as
        fingerprint = {**fingerprint, "format": _FORMAT}
        if store_as != "float32":
            fingerprint["store_as"] = store_as
        if self.path.exists() and not self.path.is_dir():
            msg = f"Expected `store` to be a folder, found the file {self.path}; pass another name."
            raise ValueError(msg)
        note = self.path / NOTE
        if self.path.exists() and not note.exists() and any(not _is_leftover(p) for p in self.path.iterdir()):
            msg = f"Expected `store` to be a new folder or one written by fit_betas, found other files in {self.path}."
            raise ValueError(msg)
        with permitted(self.path, "store"):
            self.path.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                write_new(note, json.dumps(fingerprint, sort_keys=True))
            if not (self.path / "zarr.json").exists():
                zarr.open_group(self.path, mode="a")
        found = read_note(self.path)
        differing = sorted(k for k in {*found, *fingerprint} if found.get(k) != fingerprint.get(k))
        if differing:
            msg = (
                f"Expected `store` {self.path} to come from the same fit, found one that differs in "
                f"{', '.join(differing)}; pass another folder or delete this one."
            )
            raise ValueError(msg)
        for pattern in (".block_*", f".{NOTE}.*", ".probe.*"):
            remove_abandoned(self.path, pattern)

    def assert_room(self, block_bytes: Sequence[int]) -> None:
        """Raise when blocks of these sizes (bytes in memory) cannot be written; warn when there may be no room for all.

        Raises
        ------
        OSError
            If the folder cannot be written or has no room for the largest block.
        """
        assert_room(self.path, largest=max(block_bytes), whole=sum(block_bytes), name="store")

    def has(self, block: int) -> bool:
        """Whether block ``block`` is there.

        Raises
        ------
        ValueError
            If it is there and not whole.
        """
        folder = self.path / block_name(block)
        if not folder.exists():
            return False
        if damage := find_damage(folder):
            msg = (
                f"Expected {folder} to hold the coefficients of {_targets_in(folder)} as they were written, found that "
                f"{damage}. Delete this folder and call again: only these targets are refitted."
            )
            raise ValueError(msg)
        return True

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
        targets: Mapping[str, int] | None = None,
    ) -> None:
        """Write a block under a temporary name and move it into place.

        ``bodies`` are nested dicts of arrays and plain values, for :func:`stored_bodies`; ``targets`` the names of the
        targets of the block with their numbers of columns.

        Raises
        ------
        OSError
            If there is no room or no permission; blocks written before stay.
        ValueError
            If a coefficient is too large for half precision.
        """
        import zarr
        from anndata.io import write_elem

        final = self.path / block_name(block)
        with writing(f"block {block} of the coefficients", self.path), temporary_folder(final) as temporary:
            group = zarr.open_group(temporary, mode="w")
            known: dict[str, tuple[int, int]] = {}
            arrays: dict[str, StoredArray] = {}
            for name, values in (("betas", None if self.store_as == "bodies" else betas), ("sd", sd)):
                if values is not None:
                    packed = self._packed(values)
                    arrays[name] = stored_array(packed)
                    known |= write_matrix(temporary, name, packed, arrays[name])
            with no_format_news():
                for name, frame in (("terms", terms), ("scores", scores), ("training", training)):
                    write_elem(group, name, frame.rename(index=str))
                write_elem(group, "bodies", dict(bodies or {}))
            names = targets or {}
            Manifest(list(names), list(names.values()), arrays, list_files(temporary, known)).write(temporary)
            self._move(temporary, final)

    def _move(self, temporary: Path, final: Path) -> None:
        """Move a whole block into place, unless another process was faster; one that is not whole goes."""
        if final.exists() and find_damage(final):
            with temporary_folder(final) as aside:
                final.rename(aside)
        try:
            temporary.rename(final)
        except OSError:
            if find_damage(final):
                raise

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
        part = read_part(self.path, block)
        betas, sd = (
            StoredMatrix(self.path, name, [part]).dask() if name in part.manifest.arrays else None
            for name in ("betas", "sd")
        )
        return StoredBlock(betas, sd, *(_read_elem(part, name) for name in ("terms", "scores", "training")))

    def matrix(self, array: str, n_blocks: int) -> Any:
        """Dask array of all blocks: ``"betas"``, or their standard deviations ``"sd"``."""
        return StoredMatrix(self.path, array, [read_part(self.path, b) for b in range(n_blocks)]).dask()


def read_note(path: Path) -> dict[str, Any]:
    """Read what a store says of its fit.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    note = path / NOTE
    try:
        found = json.loads(note.read_bytes())
    except ValueError as error:
        msg = f"Expected {note} to describe the fit of a store, found it damaged ({error}); delete the folder."
        raise ValueError(msg) from error
    if not isinstance(found, dict):
        msg = f"Expected {note} to describe the fit of a store, found `{str(found)[:40]}`; delete the folder."
        raise ValueError(msg)
    return found


def stored_bodies(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the bodies of each block of a finished fit, one block at a time."""
    for block in range(max(1, count_blocks(path))):
        yield read_bodies(path, block)


def count_blocks(path: str | os.PathLike[str]) -> int:
    """Number of blocks in a store."""
    return len(list(Path(path).glob("block_*")))


def read_bodies(path: str | os.PathLike[str], block: int) -> dict[str, Any]:
    """Read the bodies of a block, as they were given to :meth:`BetaStore.write`.

    Raises
    ------
    FileNotFoundError
        If the block is not there.
    ValueError
        If it is damaged.
    """
    bodies: dict[str, Any] = _read_elem(read_part(Path(path), block), "bodies")
    return bodies


def read_part(path: Path, block: int) -> Part:
    """Find a block of a store.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If its manifest is damaged.
    """
    folder = path / block_name(block)
    try:
        return Part(folder, read_manifest(folder))
    except FileNotFoundError as error:
        what = f"the store {path}" if path.exists() else f"a store at {path}"
        msg = (
            f"Expected {what} to hold {block_name(block)} of a fit, found no complete block. If the store was moved, "
            "call `st.io.attach_betas(adata, store)` with its new location; otherwise call `st.tl.fit_betas` with "
            "`store=` as before: it fits only what is missing."
        )
        raise FileNotFoundError(msg) from error


def digest(*values: Any) -> str:
    """Short digest of arrays and plain values."""
    h = hashlib.sha256()
    for value in values:
        h.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return h.hexdigest()[:16]


def read_table(part: Part, name: str) -> pd.DataFrame:
    """Read ``terms``, ``scores`` or ``training`` of a block."""
    table: pd.DataFrame = _read_elem(part, name)
    return table


def _read_elem(part: Part, name: str) -> Any:
    """Read a table or nested arrays of a block, after a look at the files they lie in."""
    import zarr
    from anndata.io import read_elem

    for file, (_, checksum) in part.manifest.files.items():
        if file.startswith(f"{name}/"):
            path = part.folder / file
            if not path.exists() or checksum_of(path) != checksum:
                msg = (
                    f"Expected {path} to be as it was written, found it missing or damaged. Delete the folder "
                    f"{part.folder} and call `st.tl.fit_betas` with `store=` as before: it refits only this block."
                )
                raise ValueError(msg)
    assert_plain_codecs(part.folder / name)
    return read_elem(zarr.open_group(part.folder, mode="r")[name])


def _targets_in(folder: Path) -> str:
    """Targets of a block in words, as far as its manifest can be read."""
    try:
        names = read_manifest(folder).targets
    except (FileNotFoundError, ValueError):
        names = []
    return listed(names, 5) if names else "its targets"


def _is_leftover(path: Path) -> bool:
    """Whether a process that was killed when it began left this."""
    return path.name.startswith(f".{NOTE}.")


def block_name(block: int) -> str:
    """Name of the folder of a block."""
    return f"block_{block:05d}"
