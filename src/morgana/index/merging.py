"""Joining what lies apart: another index into this one, and all segments of an index into one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from morgana.index._change import changing
from morgana.index._writer import SOURCES, SegmentWriter
from morgana.index.index import Index
from morgana.index.segment import Segment
from morgana.index.shelf import Piece
from morgana.types import StoreError

PIECE = 4096  # documents in memory at a time
SHOWN = 5  # ids in an error


def merge(path: Path | str, other: Path | str, *, replace: bool = False) -> Index:
    """Add every document of the index `other`, with its vectors as they are, to the index `path`, in one step.

    `other` stays as it is. Raises StoreError for an index of another encoder, and for ids that both have unless
    `replace`, when those of `other` take their place.
    """
    if Path(other).resolve() == Path(path).resolve():
        raise StoreError(f"{other} cannot be merged into itself; name another index")
    with changing(path) as change:
        came = Index.open(other)
        agree(change.index, came)
        for ids in batched(came):
            known = change.index.locate(ids)
            if known and not replace:
                named = ", ".join(map(repr, list(known)[:SHOWN]))
                raise StoreError(
                    f"{path} and {other} both hold {named}; nothing was merged: replace them, or delete them"
                )
            change.bury(known)
        if not came.manifest.documents:
            return change.index
        with change.writer() as writer:
            entry = change.finish(writer, copy(came.segments, writer))
        return change.commit([entry])


def agree(index: Index, other: Index) -> None:
    """StoreError unless the vectors of both lie in one space."""
    ours, theirs = index.manifest, other.manifest
    if (ours.fingerprint, ours.dimension) != (theirs.fingerprint, theirs.dimension):
        built = f"{index.path} was built with {ours.encoder}, {other.path} with {theirs.encoder}"
        weights = "" if ours.encoder != theirs.encoder else " of other weights"
        raise StoreError(f"{built}{weights}; their vectors cannot be compared: rebuild one of them")


def batched(index: Index) -> Iterator[list[str]]:
    """Ids of the living documents, aliases too."""
    for segment in index.segments:
        alive = segment.alive()
        ids = (id for id, there in zip(segment.shelf.ids(), alive, strict=True) if there)
        others = (id for id, position in segment.shelf.aliases() if alive[position])
        for some in (ids, others):
            while batch := list(islice(some, PIECE)):
                yield batch


def compact(path: Path | str, *, sparse: bool | None = None) -> Index:
    """Write all that can be found as one segment of the index's kind, and free what was deleted.

    Readers that are open keep what they see; the search files are made anew, so that a damaged one is mended. It needs
    free space for a second copy of the living documents and vectors. `sparse` adds the words of the texts, for search
    by BM25, or leaves them out; None keeps the index as it is.
    """
    with changing(path, searched=False) as change:
        if not change.manifest.documents:
            return change.put((), sparse=sparse)
        with change.writer(sparse=sparse) as writer:
            aliases = copy(change.index.segments, writer)
            for id, reason in change.index.quarantine():
                writer.refuse(id, reason)
            entry, measured = writer.finish(change.kind, aliases)
        return change.put([entry], measured, sparse=sparse)


def copy(segments: tuple[Segment, ...], writer: SegmentWriter) -> list[tuple[str, str]]:
    """The living documents of segments with their vectors, bit for bit; their other ids (id, of) come back."""
    aliases: list[tuple[str, str]] = []
    for segment in segments:
        for piece in pieces(segment):
            writer.add(*piece)
        others = [(id, p) for id, p in segment.shelf.aliases() if segment.dead is None or not segment.dead[p]]
        named = segment.shelf.documents(p for _, p in others)
        aliases += [(id, named[p].id) for id, p in others]
    return aliases


def pieces(segment: Segment) -> Iterator[Piece]:
    """The living documents of a segment with their vectors, some thousand at a time."""
    alive, documents = segment.alive(), enumerate(segment.shelf.all())
    end = 0
    while some := list(islice(documents, PIECE)):
        start, end = end, int(np.searchsorted(segment.owners, np.int32(some[-1][0]), side="right"))
        owners, sources = segment.owners[start:end], segment.rows[1, start:end]
        by_document: dict[int, list[str]] = {}
        for owner, source in zip(owners.tolist(), sources.tolist(), strict=True):
            by_document.setdefault(owner, []).append(SOURCES[source])
        kept = [(document, by_document[position]) for position, document in some if alive[position]]
        if kept:
            yield kept, segment.vectors[start:end][alive[owners]]
