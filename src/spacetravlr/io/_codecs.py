"""Check the codecs of a zarr folder: some can run code that comes with the data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_METADATA = ("zarr.json", ".zarray", ".zmetadata")
#: Codecs that turn bytes into numbers or text and nothing else.
_PLAIN = {
    "adler32", "astype", "base64", "bitround", "blosc", "bytes", "bz2", "cast_value", "categorize", "crc32",
    "crc32c", "delta", "endian", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "json2", "lz4",
    "lzma", "msgpack2", "n5_wrapper", "packbits", "pcodec", "quantize", "scale_offset", "sharding_indexed",
    "shuffle", "transpose", "vlen-array", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd",
}  # fmt: skip


def assert_plain_codecs(folder: Path) -> None:
    """Raise when an array below ``folder`` has a codec that may run code, such as ``pickle``; nothing is decoded.

    Raises
    ------
    ValueError
        If there is one, or the metadata of an array cannot be read.
    """
    for file in _descriptions(folder):
        try:
            described = json.loads(file.read_bytes())
        except ValueError as error:
            msg = f"Expected {file} to describe a zarr array or group, found it damaged ({error})."
            raise ValueError(msg) from error
        for name in _codecs(described):
            if name.removeprefix("numcodecs.") not in _PLAIN:
                msg = (
                    f"Expected the arrays in {folder} to have codecs that decode only numbers and text, found {name!r} "
                    f"in {file}, which may run code that comes with the data. Do not read files from untrusted "
                    "sources; if you trust this one, open it with zarr and write it again with other codecs."
                )
                raise ValueError(msg)


def _descriptions(folder: Path) -> Iterator[Path]:
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in sorted(files) if name.lower() in _METADATA)


def _codecs(described: Any) -> Iterator[str]:
    """Names of the codecs of an array, and of all arrays in consolidated metadata."""
    if isinstance(described, list):
        for part in described:
            yield from _codecs(part)
    if not isinstance(described, dict):
        return
    for key, value in described.items():
        if key in ("compressor", "filters", "codecs", "index_codecs", "object_codec"):
            for codec in value if isinstance(value, list) else [value]:
                if isinstance(codec, dict):
                    yield str(codec.get("id", codec.get("name", "")))
                elif isinstance(codec, str):
                    yield codec
        yield from _codecs(value)
