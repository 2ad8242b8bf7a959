"""Cached downloads: the local data folder first, then the cache, then the public address."""

from __future__ import annotations

import logging
from pathlib import Path

from spacetravlr._settings import DATA_VARIABLE, settings
from spacetravlr._utils import atomic_path

logger = logging.getLogger(__name__)

_HASH_SUFFIX = ".sha256"


def fetch_file(
    file_name: str, *, url: str | None = None, known_hash: str | None = None, hint: str = "", local: str | None = None
) -> Path:
    """Path of a public file: in the local data folder, in the cache, or downloaded now.

    The local data folder is ``st.settings.data_dir`` (environment variable ``SPACETRAVLR_DATA``), and what lies there
    is taken as it is. The cache is ``st.settings.cache_dir``. A download is checked against ``known_hash``; without
    one, the hash of the first download is written beside the file (``<file_name>.sha256``) and every later use is
    checked against that: a file that changed on disk is noticed, a file that changed at its source is not downloaded
    again.

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

    Raises
    ------
    FileNotFoundError
        When the file is nowhere and has no address.
    ConnectionError
        When the download fails; the message says where to put the file by hand.
    ValueError
        When the file does not have the expected hash.
    """
    data_dir = settings.data_dir
    if data_dir is not None and (data_dir / (local or file_name)).is_file():
        return data_dir / (local or file_name)

    cached = Path(settings.cache_dir) / file_name
    if cached.is_file():
        _check(cached, known_hash or _recorded(cached))
        return cached

    by_hand = (
        f"Put the file as {local or file_name!r} into the folder that the environment variable {DATA_VARIABLE} names, "
        f"or as {file_name!r} into {str(settings.cache_dir)!r}. {hint}"
    ).rstrip()
    if url is None:
        msg = f"Expected {file_name!r} in the local data folder or the cache, found it in neither. {by_hand}"
        raise FileNotFoundError(msg)
    _download(url, cached, known_hash, by_hand)
    return cached


def _download(url: str, final: Path, known_hash: str | None, by_hand: str) -> None:
    import pooch

    final.parent.mkdir(parents=True, exist_ok=True)
    # pooch writes to a temporary name of its own and moves the file when it is complete
    try:
        pooch.retrieve(url, known_hash=None, fname=final.name, path=final.parent, progressbar=False)
    except OSError as error:
        msg = f"Could not download {url} ({type(error).__name__}). {by_hand}"
        raise ConnectionError(msg) from error
    if known_hash is not None:
        try:
            _check(final, known_hash)
        except ValueError:
            final.unlink()
            raise
        return
    digest = pooch.file_hash(str(final))
    with atomic_path(_hash_file(final)) as path:
        path.write_text(f"{digest}\n")
    logger.warning("No checksum is known for %s; trusting this download (sha256 %s).", url, digest)


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
