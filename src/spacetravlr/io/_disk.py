"""Check permissions and disk space before long work, with clear messages if either is missing."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spacetravlr._temporary import temporary_name
from spacetravlr._utils import warn

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def assert_room(folder: Path, *, largest: int, whole: int, name: str) -> None:
    """Raise if ``folder`` cannot be written or has no room for a single part; warn if the whole may not fit.

    Parameters
    ----------
    folder
        Where parts of a result will be written; created if it does not exist.
    largest, whole
        Size in memory of the largest part, and of everything still to be written, in bytes. On disk they are
        compressed (zeros to almost nothing), so more than the free space may still fit.
    name
        The argument that named the folder.

    Raises
    ------
    OSError
        If it cannot be written, or has less room than ``largest``.
    """
    with permitted(folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / temporary_name("probe")
        try:
            probe.write_bytes(b"1")
        finally:
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < largest:
        msg = (
            f"Expected `{name}` to have room for at least {_gb(largest)}, found {_gb(free)} free at {folder}; up to "
            f"{_gb(whole)} will be written in total."
        )
        raise OSError(errno.ENOSPC, msg)
    if free < whole:
        warn(
            f"Up to {_gb(whole)} will be written (less when compressed), and {_gb(free)} are free at {folder}. If the "
            "disk becomes full, finished parts are kept, and the same call resumes from there."
        )


@contextmanager
def permitted(folder: Path, name: str) -> Iterator[None]:
    """Name the argument when its folder cannot be written."""
    try:
        yield
    except OSError as error:
        msg = f"Expected `{name}` to be a writable folder, found {folder} ({error.strerror or error})."
        raise OSError(error.errno, msg) from error


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Say what could not be written, and what to do when the disk is full."""
    try:
        yield
    except OSError as error:
        msg = f"Could not write {what} to {folder}: {error.strerror or error}."
        if error.errno in _FULL:
            msg += " Free some space and call again: finished parts are kept."
        raise OSError(error.errno, msg) from error


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 5e7 else f"{n_bytes / 1e6:.3g} MB"
