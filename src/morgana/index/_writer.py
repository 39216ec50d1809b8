"""Writes one segment: documents and vectors as they come, then the search file and the checksums."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from morgana.files import sha256, storing
from morgana.index import _disk
from morgana.index._counting import Counting
from morgana.index.kinds._base import Kind
from morgana.index.kinds.auto import Auto
from morgana.index.manifest import Entry
from morgana.index.shelf import Shelving
from morgana.index.vectors import Appending, Half, Rows, Stored
from morgana.types import Document

SOURCES = ("text", "image")  # what a vector embeds, by its number in rows.npy
DESCRIPTION = "segment.json"


@dataclass(frozen=True)
class Description:
    """What a segment holds, with size and checksum of each of its files."""

    documents: int
    vectors: int
    dimension: int
    quarantined: int
    kind: str  # repr of the part that searches it
    files: Mapping[str, Mapping[str, Any]]  # name -> {"bytes", "sha256"}

    def encode(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()


class SegmentWriter:
    """A context that fills the folder of a new segment; nothing refers to it until a manifest is committed."""

    def __init__(self, folder: Path, dimension: int, *, sparse: bool = False) -> None:
        self.folder, self.dimension = folder, dimension
        self.owners, self.sources = array("i"), array("i")
        self.digests: dict[Path, Future[str]] = {}
        self.quarantined = 0
        self.beside = ThreadPoolExecutor(1)  # writes vectors and takes checksums while this thread is at the documents
        self.writing: Future[None] | None = None
        with storing(folder):
            _disk.remove(folder)
            folder.mkdir(parents=True)
            self.shelving = Shelving(folder / "documents.sqlite")
            self.vectors = Appending((folder / "vectors.npy").open("wb"), dimension)
            self.quarantine = (folder / "quarantine.jsonl").open("wb")
            self.counting = Counting(folder) if sparse else None

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.beside.shutdown()
        for file in (self.vectors.file, self.quarantine):
            with suppress(OSError):  # what no longer fits is not counted
                file.close()
        self.shelving.close()
        if self.counting:
            with suppress(OSError):
                self.counting.close()
        if kind is not None and issubclass(kind, Exception):
            _disk.remove(self.folder)

    def add(self, documents: Sequence[tuple[Document, Sequence[str]]], rows: Rows | Half) -> None:
        """Documents with the sources of their vectors, and the vectors in that order."""
        _disk.step("add to a segment")
        first = self.shelving.count
        with storing(self.folder):
            self.wait()
            self.writing = self.beside.submit(self.vectors.add, rows)
            self.shelving.add([document for document, _ in documents])
            if self.counting:
                self.counting.add(document.text for document, _ in documents)
        each = [len(sources) for _, sources in documents]
        self.owners.frombytes(np.repeat(np.arange(first, first + len(each), dtype=np.int32), each).tobytes())
        self.sources.extend(map(SOURCES.index, chain.from_iterable(sources for _, sources in documents)))

    @property
    def count(self) -> int:
        """Vectors."""
        return len(self.owners)

    def wait(self) -> None:
        """Until the last vectors are written; raises what that raised."""
        if self.writing is not None:
            self.writing.result()

    def refuse(self, id: str, reason: str) -> None:
        with storing(self.folder):
            self.quarantine.write(json.dumps({"id": str(id), "reason": reason}).encode() + b"\n")
        self.quarantined += 1

    def finish(self, kind: Kind, aliases: Iterable[tuple[str, str]] = ()) -> tuple[Entry, Mapping[str, Any]]:
        """Write what remains and force it to disk: the entry for a manifest, and what Auto measured.

        `aliases` are other ids of documents that were added, (id, of).
        """
        with storing(self.folder):
            _disk.step("finish a segment")
            self.wait()
            self.vectors.finish()
            self.vectors.file.close()
            self.digest(self.folder / "vectors.npy")  # while the documents get their indexes
            for id, first in self.shelving.also(aliases):
                self.refuse(id, f"its content is that of {first!r}, which was refused")
            self.shelving.finish()
            self.quarantine.close()
            rows = np.stack([np.frombuffer(self.owners, np.int32), np.frombuffer(self.sources, np.int32)])
            np.save(self.folder / "rows.npy", rows.astype("<i4"))
        if self.counting:
            self.counting.finish()
        stored = Stored(self.folder / "vectors.npy", self.count, self.dimension)
        measured: Mapping[str, Any] = {}
        _disk.step("write the search file")
        if isinstance(kind, Auto):
            kind, measured = kind.choose(stored, self.folder)
        kind.write(stored, self.folder)
        return self.seal(kind), measured

    def digest(self, path: Path) -> None:
        """Begin to take the checksum of a file that is whole."""
        if path not in self.digests:
            self.digests[path] = self.beside.submit(sha256, path)

    def seal(self, kind: Kind) -> Entry:
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        with storing(self.folder):
            for path in files:
                self.digest(path)
            for path in files:
                _disk.sync(path)
            described = {
                path.relative_to(self.folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest.result()}
                for path, digest in self.digests.items()
            }
        about = Description(self.shelving.count, self.count, self.dimension, self.quarantined, repr(kind), described)
        _disk.write(self.folder / DESCRIPTION, about.encode())
        with storing(self.folder):
            _disk.sync(self.folder)
            _disk.sync(self.folder.parent)
        digest = hashlib.sha256(about.encode()).hexdigest()
        return Entry(self.folder.name, about.documents, about.vectors, about.quarantined, digest)
