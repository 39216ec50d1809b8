"""The folder in which a build works: files that only grow, and a state that says how much of them counts.

A checkpoint forces the files to disk, then replaces the state. Whoever continues cuts what came after it, so a
build that was killed at any moment goes on from its last checkpoint; batches depend on the corpus alone, so the end
is the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from morgana.files import json_lines, storing, write_bytes
from morgana.index import shelf
from morgana.index._batches import Made
from morgana.index.kinds import Rows
from morgana.types import Document, StoreError

GROWING = ("documents.jsonl", "vectors.raw", "quarantine.jsonl")
START: Mapping[str, Any] = {
    "key": {},
    "bytes": dict.fromkeys(GROWING, 0),
    "batches": 0,
    "digest": "",
    "vectors": 0,
    "documents": 0,
    "quarantined": 0,
}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, made if need be, to one process alone; the system frees it when that process dies."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another process is building in {folder}; wait for it, or stop it") from None
        yield


class Staging:
    """The growing files of one build; `state` is what the last checkpoint says."""

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder, self.key = folder, dict(key)
        self.state = self.known() or dict(START)
        self.files: dict[str, IO[bytes]] = {}

    def known(self) -> dict[str, Any] | None:
        """The state on disk if it is of a build like this one and its files are long enough."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "state.json").read_bytes())
            whole = all((self.folder / name).stat().st_size >= state["bytes"][name] for name in GROWING)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return state if whole and state["key"] == self.key else None

    def forget(self) -> None:
        """Start again from nothing."""
        (self.folder / "state.json").unlink(missing_ok=True)
        self.state = dict(START)

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Open the files at the last checkpoint; whatever ends the block, what is whole is kept."""
        with storing(self.folder):
            for name in GROWING:
                self.files[name] = (self.folder / name).open("ab")
                self.files[name].truncate(self.state["bytes"][name])
                self.files[name].seek(0, os.SEEK_END)
        try:
            yield
        finally:
            for file in self.files.values():
                with suppress(OSError):  # what no longer fits, the state does not count
                    file.close()

    def add(self, made: Made, digest: str) -> None:
        """One batch more, counted at the next checkpoint."""
        with storing(self.folder):
            for document, sources in made.kept:
                self.files["documents.jsonl"].write(line(plain(document) | {"sources": sources}))
            for vector in made.vectors:
                self.files["vectors.raw"].write(np.ascontiguousarray(vector, dtype="<f4").tobytes())
            for document, reason in made.refused:
                self.files["quarantine.jsonl"].write(line({"id": document.id, "reason": reason}))
        self.state = self.state | {
            "key": self.key,
            "bytes": {name: file.tell() for name, file in self.files.items()},
            "batches": self.state["batches"] + 1,
            "digest": digest,
            "vectors": self.state["vectors"] + len(made.vectors),
            "documents": self.state["documents"] + len(made.kept),
            "quarantined": self.state["quarantined"] + len(made.refused),
        }

    def checkpoint(self) -> None:
        with storing(self.folder):
            for file in self.files.values():
                file.flush()
                os.fsync(file.fileno())
        write_bytes(self.folder / "state.json", json.dumps(self.state).encode())

    def rows(self) -> Iterator[tuple[Document, tuple[str, ...]]]:
        for _, row in json_lines(self.folder / "documents.jsonl"):
            yield shelf.document(row["id"], row["text"], row["image"], row["metadata"]), tuple(row["sources"])

    def vectors(self, dimension: int) -> Rows:
        mapped: Rows = np.memmap(self.folder / "vectors.raw", dtype="<f4", mode="r").reshape(-1, dimension)
        return mapped

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def plain(document: Document) -> dict[str, Any]:
    return dict(zip(("id", "text", "image", "metadata"), shelf.columns(document), strict=True))


def line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
