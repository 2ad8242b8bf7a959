"""Cached downloads: the local data folder first, then the cache, then the public address."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from spacetravlr._settings import DATA_VARIABLE, settings
from spacetravlr._temporary import atomic_path

logger = logging.getLogger(__name__)

_HASH_SUFFIX = ".sha256"


def fetch_file(
    file_name: str,
    *,
    url: str | None = None,
    known_hash: str | None = None,
    hint: str = "",
    local: str | None = None,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Path of a public file: in the local data folder, in the cache, or downloaded now.

    The local data folder is ``st.settings.data_dir`` (environment variable ``SPACETRAVLR_DATA``), and what lies there
    is taken as it is. The cache is ``st.settings.cache_dir``. A download is checked against ``known_hash``; without
    one, the hash of the first download is written beside the file (``<file_name>.sha256``) and every later use is
    checked against that: a file that changed on disk is noticed, a file that changed at its source is not downloaded
    again. A download that is a web page, such as a message of a server out of order, or that ``check`` cannot read, is
    not kept.

    Parameters
    ----------
    file_name
        Name of the file in the cache.
    url
        Public address; ``None`` when there is none in a format that Python reads.
    known_hash
        SHA256 of the file (or ``"md5:..."``, as in pooch).
    hint
        What to do by hand, ends the error messages.
    local
        Name of the file in the local data folder, ``file_name`` by default.
    check
        Reads a download before it is kept; raises ``ValueError`` or ``KeyError`` when it is not what it should be.

    Raises
    ------
    FileNotFoundError
        If the file is nowhere and has no address.
    ConnectionError
        If the download fails, or is no such file; the message says where to put the file by hand.
    ValueError
        If the file does not have the expected hash.
    """
    data_dir = settings.data_dir
    if data_dir is not None and (data_dir / (local or file_name)).is_file():
        return data_dir / (local or file_name)

    cached = Path(settings.cache_dir) / file_name
    if cached.is_file():
        _check(cached, known_hash or _recorded(cached))
        return cached

    by_hand = (
        f"Put the file as {local or file_name!r} into the folder given by the environment variable {DATA_VARIABLE}, or "
        f"as {file_name!r} into {str(settings.cache_dir)!r}. {hint}"
    ).rstrip()
    if url is None:
        msg = f"Expected {file_name!r} in the local data folder or the cache, found in neither. {by_hand}"
        raise FileNotFoundError(msg)
    _download(url, cached, known_hash, by_hand, check)
    return cached


def _download(
    url: str, final: Path, known_hash: str | None, by_hand: str, check: Callable[[Path], object] | None
) -> None:
    import pooch

    final.parent.mkdir(parents=True, exist_ok=True)
    # under a name of its own until it is known to be what it should be; the ending says how to read it
    received = final.with_name(f"{uuid4().hex}-{final.name}")
    try:
        try:
            pooch.retrieve(url, known_hash=None, fname=received.name, path=received.parent, progressbar=False)
        except OSError as error:
            msg = f"Could not download {url} ({type(error).__name__}). {by_hand}"
            raise ConnectionError(msg) from error
        if known_hash is None:
            _assert_content(received, url, final, by_hand, check)
        _check(received, known_hash)
        digest = pooch.file_hash(str(received))
        received.replace(final)
    finally:
        received.unlink(missing_ok=True)
    if known_hash is None:
        with atomic_path(_hash_file(final)) as path:
            path.write_text(f"{digest}\n")
        logger.warning("No checksum is known for %s; trusting this download (sha256 %s).", url, digest)


def _assert_content(
    received: Path, url: str, final: Path, by_hand: str, check: Callable[[Path], object] | None
) -> None:
    """Raise ``ConnectionError`` when a download is a web page, empty, or not what ``check`` reads."""
    with received.open("rb") as file:
        start = file.read(200)
    is_page = start.lstrip().lower().startswith((b"<!doctype", b"<html"))
    problem = "a web page" if is_page else "" if start else "an empty file"
    if check is not None and not problem:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(received)
        except (KeyError, ValueError, OSError) as error:
            problem = f"something else ({error})"
    if problem:
        msg = (
            f"Expected {url} to be {final.name!r}, found {problem} that begins with {start[:60]!r}; it was not "
            f"kept. Try again later. {by_hand}"
        )
        raise ConnectionError(msg)


def _hash_file(path: Path) -> Path:
    return path.with_name(path.name + _HASH_SUFFIX)


def _recorded(path: Path) -> str | None:
    """Hash written at the first download; ``None`` for a file that the user put there."""
    file = _hash_file(path)
    return file.read_text().strip() if file.is_file() else None


def _check(path: Path, known_hash: str | None) -> None:
    import pooch

    if known_hash is None:
        return
    algorithm, _, digest = known_hash.rpartition(":")
    found = pooch.file_hash(str(path), alg=algorithm or "sha256")
    if found.lower() != digest.lower():
        msg = f"Expected {str(path)!r} to have the hash {known_hash}, found {found}; delete it to download it again."
        raise ValueError(msg)
