"""Everything that can be wrong with an index folder, found and said with what mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from morgana.index import manifest as manifests
from morgana.index._sieve import Seen
from morgana.index.kinds._base import FILE
from morgana.index.manifest import Entry, Manifest
from morgana.index.segment import Segment, described, kind_of, problems, tombstones
from morgana.index.vectors import CHUNK, not_unit
from morgana.index.words import LENGTHS, Words, cut
from morgana.types import MorganaError, StoreError


def verify(path: Path | str) -> list[str]:
    """What is wrong with the index `path`, every byte checked; empty if nothing is. Raises StoreError for no index."""
    path = Path(path)
    found = manifests.read(path)
    wrong = [line for entry in found.segments for line in of_files(path, entry, found.dimension)]
    return wrong or list(of_content(path, found))


def mend(path: Path | str, wrong: list[str]) -> str:
    """What to do about an index that `verify` found something wrong with."""
    path = Path(path)
    if wrong and all(f"/{FILE}" in line or "/sparse." in line for line in wrong):
        again = f"morgana index compact {shlex.quote(str(path))}"
        return f"vectors and documents are whole; write the search files again: {again}"
    found = manifests.read(path)
    return f"restore the file from a copy, or rebuild it: {found.rebuild(path)}{found.overwrite}"


def of_files(path: Path, entry: Entry, dimension: int) -> list[str]:
    """Files of a segment that are missing or were changed."""
    try:
        wrong = problems(path, entry, described(path, entry, dimension), every=True)
        tombstones(path, entry)
    except (MorganaError, OSError) as error:
        return [str(error)]
    return wrong


def of_content(path: Path, found: Manifest) -> Iterator[str]:
    """Whether files whose checksums are right agree with each other."""
    try:
        kind_of(found.kind, path)
    except StoreError as error:
        yield str(error)
    segments = []
    for entry in found.segments:
        try:
            segments.append(segment := Segment(path, entry, found.dimension))
            if found.sparse and segment.words is None:
                yield f"segments/{entry.name} lacks the words of its documents, which manifest.json promises"
            yield from of_segment(segment)
        except (MorganaError, OSError) as error:
            yield str(error)
    if len(segments) == len(found.segments):
        yield from of_ids(segments)
    held = {
        "documents": (sum(e.documents - e.deleted for e in found.segments), found.documents),
        "vectors": (sum(e.vectors - e.deleted_vectors for e in found.segments), found.vectors),
        "refused documents": (sum(e.quarantined for e in found.segments), found.quarantined),
    }
    for name, (has, says) in held.items():
        if has != says:
            yield f"the segments hold {has} {name}, manifest.json says {says}"


def of_segment(segment: Segment) -> Iterator[str]:
    name, about = f"segments/{segment.entry.name}", segment.about
    for start in range(0, about.vectors, CHUNK):
        if bad := not_unit(np.asarray(segment.vectors[start : start + CHUNK])):
            yield f"{name}/vectors.npy: row {start + bad[0]} {bad[1]}"
    if (shelved := segment.shelf.count()) != about.documents:
        yield f"{name}/documents.sqlite holds {shelved} documents, {about.documents} were written"
    steps = np.diff(segment.owners)
    owned = segment.owners[0] == 0 and segment.owners[-1] == about.documents - 1
    if not owned or not np.isin(steps, (0, 1)).all():
        yield f"{name}/rows.npy leaves documents without a vector, or out of order"
    if segment.searcher.size != segment.vectors.shape:
        yield f"{name}/{FILE} holds {segment.searcher.size}, the vectors are {segment.vectors.shape}"
    if segment.words is not None:
        yield from of_words(segment, segment.words)
    if (refused := sum(1 for _ in segment.quarantine())) != about.quarantined:
        yield f"{name}/quarantine.jsonl lists {refused} documents, {about.quarantined} were written"
    if segment.dead is not None:
        gone = int(segment.dead[segment.owners].sum())
        if gone != segment.entry.deleted_vectors:
            yield f"tombstones/{segment.entry.tombstones}: {gone} vectors go with it, manifest.json says otherwise"


def of_words(segment: Segment, words: Words) -> Iterator[str]:
    """Whether the words that are kept are those of the documents."""
    name = f"segments/{segment.entry.name}"
    if why := words.wrong():
        yield f"{name}: {why}"
        return
    for document, length in zip(segment.shelf.all(), words.lengths.tolist(), strict=False):
        if len(cut(document.text)) != length:
            yield f"{name}/{LENGTHS} counts {length} words of {document.id!r}, it has others"
            return


def of_ids(segments: list[Segment]) -> Iterator[str]:
    """An id belongs to one living document."""
    seen = Seen()
    for segment in segments:
        alive = segment.alive()
        others = (id for id, position in segment.shelf.aliases() if alive[position])
        for ids in ((id for id, there in zip(segment.shelf.ids(), alive, strict=False) if there), others):
            for id in ids:
                if (first := seen.add(id, segment.entry.name)) is not None:
                    yield f"{id!r} is in segments/{first} and in segments/{segment.entry.name}"
