"""The folder in which a build works: files that only grow, and a state that says how much of them counts.

A checkpoint forces the files to disk, then replaces the state. Whoever continues cuts what came after it, so a
build that was killed at any moment goes on from its last checkpoint; batches depend on the corpus alone, so the end
is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from morgana.files import json_lines, storing
from morgana.index import _disk, shelf
from morgana.index._batches import Made
from morgana.index.vectors import Stored, half
from morgana.types import Document

GROWING = ("documents.jsonl", "vectors.raw", "quarantine.jsonl", "aliases.jsonl")
START: Mapping[str, Any] = {
    "key": {},
    "bytes": dict.fromkeys(GROWING, 0),
    "batches": 0,
    "digest": "",
    "vectors": 0,
    "documents": 0,
    "quarantined": 0,
}


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

    def add(self, made: Made, aliases: Sequence[tuple[str, str]], digest: str) -> None:
        """One batch more, counted at the next checkpoint."""
        _disk.step("add to the stage")
        with storing(self.folder):
            for document, sources in made.kept:
                self.files["documents.jsonl"].write(line(plain(document) | {"sources": sources}))
            for vector in made.vectors:
                self.files["vectors.raw"].write(half(vector).tobytes())
            for document, reason in made.refused:
                self.files["quarantine.jsonl"].write(line({"id": document.id, "reason": reason}))
            for id, first in aliases:
                self.files["aliases.jsonl"].write(line({"id": id, "of": first}))
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
                _disk.step("sync the stage")
                os.fsync(file.fileno())
        _disk.replace(self.folder / "state.json", json.dumps(self.state).encode())

    def rows(self) -> Iterator[tuple[Document, tuple[str, ...]]]:
        for _, row in json_lines(self.folder / "documents.jsonl"):
            yield (
                shelf.document(row["id"], row["text"], row["image"], json.loads(row["metadata"])),
                tuple(row["sources"]),
            )

    def vectors(self, dimension: int) -> Stored:
        return Stored(self.folder / "vectors.raw", self.state["vectors"], dimension, 0)

    def refused(self) -> Iterator[tuple[str, str]]:
        return ((row["id"], row["reason"]) for _, row in json_lines(self.folder / "quarantine.jsonl"))

    def aliases(self) -> Iterator[tuple[str, str]]:
        return ((row["id"], row["of"]) for _, row in json_lines(self.folder / "aliases.jsonl"))

    def clear(self) -> None:
        _disk.remove(self.folder)


def plain(document: Document) -> dict[str, Any]:
    return dict(zip(("id", "text", "image", "metadata"), shelf.columns(document), strict=True))


def line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
