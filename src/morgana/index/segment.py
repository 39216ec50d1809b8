"""One segment of an index, opened: immutable files, and which of its documents are deleted in this snapshot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from morgana.files import sha256
from morgana.index import _disk, words
from morgana.index._writer import DESCRIPTION, SOURCES, Description
from morgana.index.columns import Columns
from morgana.index.kinds._base import FILE, Bits, Kind, Searcher, spare
from morgana.index.kinds.flat import Flat
from morgana.index.manifest import Entry
from morgana.index.shelf import Shelf
from morgana.index.vectors import Half, Rows, mapped
from morgana.spec import components, parse
from morgana.types import MorganaError, StoreError

FEW = 10_000  # selected rows that are all looked at, whatever the kind
SMALL = 4 << 20  # bytes; larger files have their checksum compared by `verify` only
NEEDED = ("documents.sqlite", "vectors.npy", "rows.npy", "quarantine.jsonl")


class Candidates(NamedTuple):
    """What one segment proposes to each query: (B, n) scores and rows (-1: none), and what the rest cannot exceed."""

    scores: Rows
    rows: NDArray[np.int64]
    bound: NDArray[np.float32]  # (B,)
    final: bool = False  # the scores are right as they are


class Metadata:
    """The metadata of all documents on a shelf, as often as they are gone through."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def __iter__(self) -> Iterator[dict[str, str | None]]:
        return self.shelf.metadata()


@dataclass(frozen=True, eq=False)
class Selection:
    """What a search of one segment may find; see `selecting`."""

    documents: NDArray[np.bool_]  # (documents,), living ones only
    rows: NDArray[np.bool_]  # (vectors,)
    matching: int  # documents with such a row

    @cached_property
    def count(self) -> int:
        """Rows."""
        return int(np.count_nonzero(self.rows))

    @cached_property
    def bits(self) -> Bits:
        """The rows as FAISS's bitmap."""
        return np.packbits(self.rows, bitorder="little")


class Segment:
    """Opens everything, so that what it holds stays readable when a later change removes the files.

    Raises StoreError naming the file that is missing, damaged, a link, or not what the manifest says. Without
    `searched` the search file is left alone.
    """

    def __init__(self, root: Path, entry: Entry, dimension: int, device: str = "cpu", *, searched: bool = True) -> None:
        self.entry, self.folder = entry, _disk.plain(root, f"segments/{entry.name}", f"{root}/manifest.json")
        self.about = described(root, entry, dimension)
        skipped = () if searched else (FILE, *words.FILES)
        if wrong := problems(root, entry, self.about, every=False, skipped=skipped):
            raise StoreError(wrong[0])
        self.shelf = Shelf(self.folder / "documents.sqlite")
        count = self.about.vectors
        self.vectors: Half = mapped(self.folder / "vectors.npy", (count, dimension), "<f2")  # type: ignore[assignment]
        self.rows = mapped(self.folder / "rows.npy", (2, count), "<i4")
        self.check_owners()
        self.dead = tombstones(root, entry)
        has = searched and set(words.FILES) <= set(self.about.files)
        self.words = words.Words(self.folder, self.about.documents) if has else None
        self.kind = kind_of(self.about.kind, self.folder) if searched else Flat()
        self.searcher: Searcher = self.kind.open(self.folder, self.vectors, device)

    @property
    def owners(self) -> NDArray[Any]:
        """The position of each vector's document, (N,) int32, ascending."""
        found: NDArray[Any] = self.rows[0]
        return found

    @property
    def sources(self) -> tuple[str, ...]:
        """What each vector embeds: text or image, (N,)."""
        return tuple(SOURCES[i] for i in self.rows[1])

    @cached_property
    def thorough(self) -> Searcher:
        """Exact search over the same rows."""
        return self.searcher if self.kind.exact else Flat().open(self.folder, self.vectors)

    def search(self, queries: Rows, many: int, *, thorough: bool, only: Selection | None = None) -> Candidates:
        """The `many` best living rows or more, and the score that no other living row exceeds; `only` selected ones.

        Where few rows are selected, or the kind cannot select, all that are selected are looked at.
        """
        if only is not None:
            return self.selected(queries, many, only, thorough=thorough or only.count <= FEW)
        count = len(self.vectors)
        living = count - self.entry.deleted_vectors
        searcher = self.thorough if thorough else self.searcher
        asked = min(count, (many + spare(searcher)) * count // max(1, living) + 1)
        scores, rows = searcher.search(queries, asked)
        last = self.bound(searcher, scores, rest=asked < count)
        if self.dead is not None:
            rows = np.where(self.dead[self.owners[np.maximum(rows, 0)]], -1, rows)
        return Candidates(scores, rows, last, searcher.final)

    def selected(self, queries: Rows, many: int, only: Selection, *, thorough: bool) -> Candidates:
        if not only.count:
            none = np.empty((len(queries), 0), np.float32)
            return Candidates(none, none.astype(np.int64), nothing(none))
        searcher = self.thorough if thorough or not self.searcher.selects else self.searcher
        asked = min(only.count, many + spare(searcher))
        scores, rows = searcher.search(queries, asked, only.bits)
        return Candidates(scores, rows, self.bound(searcher, scores, rest=asked < only.count), searcher.final)

    def bound(self, searcher: Searcher, scores: Rows, *, rest: bool) -> Rows:
        """What no row of the `rest` exceeds, (B,): the last score, where the best were all found or all looked at."""
        if not (rest and (searcher.final or searcher is self.thorough)):
            return nothing(scores)
        return scores[:, -1] + np.float32(searcher.slack) if searcher.slack else scores[:, -1]

    @cached_property
    def columns(self) -> Columns:
        """The documents' metadata by field."""
        return Columns(Metadata(self.shelf))

    def alive(self) -> NDArray[np.bool_]:
        """Which documents can be found, (documents,)."""
        return ~self.dead if self.dead is not None else np.ones(self.about.documents, dtype=bool)

    def quarantine(self) -> Iterator[tuple[str, str]]:
        from morgana.files import json_lines

        return ((str(row["id"]), str(row["reason"])) for _, row in json_lines(self.folder / "quarantine.jsonl"))

    def check_owners(self) -> None:
        low, high = int(self.rows.min()), int(self.rows[0].max())
        if low < 0 or high >= self.about.documents or int(self.rows[1].max()) >= len(SOURCES):
            raise StoreError(f"{self.folder}/rows.npy names documents that are not there; rebuild the index")


def nothing(scores: Rows) -> Rows:
    """The bound where no other row is left, or nothing is known of them."""
    return np.full(len(scores), -np.inf, dtype=np.float32)


def described(root: Path, entry: Entry, dimension: int) -> Description:
    """The segment's description, which the manifest's checksum proves."""
    path = _disk.plain(root, f"segments/{entry.name}", f"{root}/manifest.json") / DESCRIPTION
    if _disk.regular(path) is None:
        raise StoreError(f"{at(entry, DESCRIPTION)} is missing")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise StoreError(f"{at(entry, DESCRIPTION)} was changed after it was written")
    try:
        about = Description(**json.loads(data))
        counts = (about.documents, about.vectors, about.quarantined)
        whole = all(type(value) is int for value in (*counts, about.dimension)) and fits(about.files)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{at(entry, DESCRIPTION)} describes no segment: {str(error)[:100]}") from None
    if not whole or not about.documents or not about.vectors:
        raise StoreError(f"{at(entry, DESCRIPTION)} describes no segment")
    if counts != (entry.documents, entry.vectors, entry.quarantined) or about.dimension != dimension:
        raise StoreError(f"{at(entry, DESCRIPTION)} and the manifest disagree about what the segment holds")
    return about


def fits(files: object) -> bool:
    return (
        isinstance(files, Mapping)
        and set(NEEDED) <= set(files)
        and all(isinstance(f, Mapping) and type(f.get("bytes")) is int and "sha256" in f for f in files.values())
    )


def at(entry: Entry, name: str) -> str:
    return f"segments/{entry.name}/{name}"


def problems(root: Path, entry: Entry, about: Description, *, every: bool, skipped: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with the files: missing, of another size, or with another checksum (large files if `every`)."""
    wrong = []
    for name, noted in about.files.items():
        if name in skipped:
            continue
        path = _disk.plain(root / "segments" / entry.name, name, at(entry, DESCRIPTION))
        size = _disk.regular(path)
        if size is None:
            wrong.append(f"{at(entry, name)} is missing")
        elif size != noted["bytes"]:
            wrong.append(f"{at(entry, name)} has {size} bytes, {noted['bytes']} were written")
        elif (every or size <= SMALL) and sha256(path) != noted["sha256"]:
            wrong.append(f"{at(entry, name)} was changed after it was written")
    return wrong


def tombstones(root: Path, entry: Entry) -> NDArray[np.bool_] | None:
    """Which documents are deleted, (documents,); None if none is. StoreError for a senseless list."""
    if not entry.tombstones:
        return None
    name = f"tombstones/{entry.tombstones}"
    path = _disk.plain(root, name, f"{root}/manifest.json")
    if _disk.regular(path) is None:
        raise StoreError(f"{name} is missing")
    if sha256(path) != entry.tombstones_sha256:
        raise StoreError(f"{name} was changed after it was written")
    positions = mapped(path, (entry.deleted,), "<i4") if entry.deleted else np.zeros(0, np.int32)
    if not entry.deleted or int(positions.min()) < 0 or int(positions.max()) >= entry.documents:
        raise StoreError(f"{name} lists documents that are not there")
    dead = np.zeros(entry.documents, dtype=bool)
    dead[positions] = True
    if int(dead.sum()) != entry.deleted:
        raise StoreError(f"{name} lists a document twice")
    return dead


def kind_of(spec: str, folder: Path) -> Kind:
    """The kind that wrote a segment's search file."""
    try:
        kind: Any = parse(spec)
    except MorganaError as error:
        raise StoreError(f"{folder} names the kind {spec[:80]!r}: {error}; rebuild the index") from None
    if not isinstance(kind, components("index")):
        raise StoreError(f"{folder} names the kind {spec[:80]!r}, which is no kind of index; rebuild the index")
    found: Kind = kind
    return found
