"""Images that a corpus holds inside other files, unpacked where documents can point at them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from morgana import files
from morgana.corpus.images import SUFFIXES
from morgana.types import StoreError

LARGEST = 64 << 20  # bytes of one image file


def cache(*names: str) -> Path:
    """Where what is unpacked from these files lies."""
    return files.cache("unpacked") / hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]


def keep(folder: Path, data: bytes, suffix: str, place: str) -> Path:
    """The file that holds these bytes, named by their digest, written once; StoreError naming `place` if too large."""
    if len(data) > LARGEST:
        raise StoreError(f"{place}: an image of {len(data)} bytes, at most {LARGEST} are read; make it smaller")
    name = hashlib.sha256(data).hexdigest()[:32] + (suffix if suffix in SUFFIXES else ".img")
    path = folder / name[:2] / name
    if not path.is_file() or path.stat().st_size != len(data):
        files.write_bytes(path, data)
    return path
