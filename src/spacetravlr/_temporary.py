"""Files under a temporary name, moved into place when complete; leftovers of killed processes are removed later.

A temporary name identifies the process that made it. Other processes leave it alone while that process runs. It is
removed once the process is gone or, if that cannot be known (another machine), when nothing in it changed for a day.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

_OWNER = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}(\.|$)")
_ABANDONED_SECONDS = 86_400.0
_LATE_SECONDS = 0.2
_STEM = 40  # characters of the final name that are kept: names of files have an end


def temporary_name(stem: str, suffix: str = "") -> str:
    """Hidden name that nobody else has: the stem and the process that runs now."""
    pid = os.getpid()
    return f".{stem[:_STEM]}.{_machine()}-{pid}-{_started(pid) or 0}-{uuid4().hex[:8]}{suffix}"


def is_abandoned(path: Path) -> bool:
    """Whether nobody works at a temporary file or folder any more; those of other programs do not count."""
    owner = _OWNER.search(path.name)
    if owner is None:
        return False
    if owner["machine"] == _machine():
        runs = _runs(int(owner["pid"]), int(owner["start"]))
        if runs is not None:
            return not runs
    with suppress(OSError):
        times = [p.stat().st_mtime for p in (path, *path.rglob("*")) if p.exists()]
        return time.time() - max(times, default=0.0) > _ABANDONED_SECONDS
    return False


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove what processes that are gone left in ``folder`` under names like ``pattern``."""
    for path in list(folder.glob(pattern)):
        if is_abandoned(path):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, also one that threads of a failed call are still writing to."""
    if not path.is_dir() or path.is_symlink():
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return
    for pause in (0.0, 0.02, 0.1, 0.5, 2.0):
        time.sleep(pause)
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that is moved into place when the block ends without an error."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    ending = f".tmp{final.suffix}"
    remove_abandoned(final.parent, f".{glob.escape(final.name[:_STEM])}.*{glob.escape(ending)}")
    temporary = final.with_name(temporary_name(final.name, ending))
    # made by hand: `tempfile` gives a file that nobody else may read, and the final one would keep that
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """Yield the name of a folder beside ``final`` that is removed at the end, if it is still there.

    What processes that are gone left under such names is removed first.
    """
    remove_abandoned(final.parent, f".{glob.escape(final.name[:_STEM])}.*")
    temporary = final.with_name(temporary_name(final.name))
    try:
        yield temporary
    except BaseException:
        remove(temporary)
        time.sleep(_LATE_SECONDS)  # threads of the call that failed may make it once more
        raise
    finally:
        remove(temporary)


def write_new(path: Path, text: str) -> None:
    """Write a file, whole or not at all, unless there is one already, which another process may have just written."""
    temporary = path.with_name(temporary_name(path.name, ".tmp"))
    try:
        temporary.write_text(text, encoding="utf-8")
        with suppress(FileExistsError):
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # no links on this file system
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
                with os.fdopen(file, "w", encoding="utf-8") as new:
                    new.write(text)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Where numbers of processes mean the same: a start of a machine, or a container in it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.blake2b("|".join(parts).encode(), digest_size=4).hexdigest()


def _started(pid: int) -> int | None:
    """When a process began, in ticks of the machine; ``None`` where that is not told, or the process has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = status[status.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _runs(pid: int, start: int) -> bool | None:
    """Whether the process that began at ``start`` still runs; ``None`` where that cannot be known."""
    if os.name == "nt":  # where signals end processes
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return start == 0 or _started(pid) == start
