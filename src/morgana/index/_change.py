"""One change of an index: what is added and what is deleted take effect together, with the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from morgana.files import locked, storing
from morgana.index import _disk
from morgana.index._publish import clean
from morgana.index._writer import SegmentWriter
from morgana.index.index import Index, blamed, opened
from morgana.index.kinds._base import Kind
from morgana.index.kinds.flat import Flat
from morgana.index.manifest import Entry, Manifest, read
from morgana.index.segment import Segment, kind_of
from morgana.index.words import SCHEME
from morgana.types import Encoder, StoreError

FEW = 10_000  # vectors; a segment of fewer is searched exactly, until `compact` makes it part of a larger one


class Change:
    """The index as it was, the folder of the next segment, and the documents that are to go."""

    def __init__(self, index: Index) -> None:
        self.index, self.path, self.manifest = index, index.path, index.manifest
        self.generation = index.manifest.generation + 1
        self.gone: dict[int, set[int]] = {}

    @property
    def kind(self) -> Kind:
        return kind_of(self.manifest.kind, self.path)

    def writer(self, *, sparse: bool | None = None) -> SegmentWriter:
        """`sparse` is as the index is, unless it is said."""
        sparse = bool(self.manifest.sparse) if sparse is None else sparse
        with storing(self.path):
            _disk.plain(self.path, "segments", str(self.path)).mkdir(exist_ok=True)
        return SegmentWriter(self.path / "segments" / f"{self.generation:06d}", self.manifest.dimension, sparse=sparse)

    def finish(self, writer: SegmentWriter, aliases: Sequence[tuple[str, str]] = ()) -> Entry:
        """A segment beside others: exact while it is small, for few vectors train no codes."""
        kind = self.kind if writer.count >= FEW else Flat()
        return writer.finish(kind, aliases)[0]

    def bury(self, places: Mapping[str, tuple[int, int]]) -> None:
        """Delete documents by (segment number, position)."""
        for number, position in places.values():
            self.gone.setdefault(number, set()).add(position)

    def commit(self, added: Sequence[Entry] = ()) -> Index:
        """The index after the change."""
        kept = list(self.manifest.segments)
        for number, positions in self.gone.items():
            kept[number] = self.entomb(self.index.segments[number], positions)
        return self.put((*kept, *added))

    def put(
        self, entries: Sequence[Entry], measured: Mapping[str, Any] | None = None, *, sparse: bool | None = None
    ) -> Index:
        """Commit a manifest with these segments, and remove what it no longer names."""
        made = replace(
            self.manifest,
            segments=tuple(entries),
            generation=self.generation,
            documents=sum(e.documents - e.deleted for e in entries),
            vectors=sum(e.vectors - e.deleted_vectors for e in entries),
            quarantined=sum(e.quarantined for e in entries),
            measured=self.manifest.measured if measured is None else measured,
            sparse=self.manifest.sparse if sparse is None else SCHEME if sparse else "",
        )
        made.commit(self.path)
        clean(self.path, made)
        return Index.open(self.path)

    def entomb(self, segment: Segment, positions: set[int]) -> Entry:
        """The segment's entry with these documents deleted too: a new list, the old one stays for its readers."""
        dead = ~segment.alive()
        dead[list(positions)] = True
        return entombed(self.path, segment.entry, dead, int(dead[segment.owners].sum()), self.generation)


def entombed(path: Path, entry: Entry, dead: Any, vectors: int, generation: int) -> Entry:
    content = BytesIO()
    np.save(content, np.flatnonzero(dead).astype("<i4"))
    name = f"{entry.name}-{generation:06d}.npy"
    target = _disk.plain(path, f"tombstones/{name}", str(path))
    _disk.write(target, content.getvalue())
    with storing(path):
        _disk.sync(target.parent)
        _disk.sync(path)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    return replace(entry, deleted=int(dead.sum()), deleted_vectors=vectors, tombstones=name, tombstones_sha256=digest)


@contextmanager
def changing(path: Path | str, encoder: Encoder | None = None, *, searched: bool = True) -> Iterator[Change]:
    """The one writer of an index; StoreError while there is another. What a killed one left is removed."""
    path = Path(path)
    read(path)  # a folder that is no index is not made one
    with locked(path):
        found = read(path)
        clean(path, found)
        yield Change(Index.open(path, encoder) if searched else unsearched(path, found))


def unsearched(path: Path, found: Manifest) -> Index:
    """The index without its search files, which may be damaged."""
    try:
        return Index(path, found, opened(path, found, searched=False))
    except StoreError as error:
        raise blamed(path, found, error) from error
