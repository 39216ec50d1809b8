"""An index cut into shards that are searched apart and give, joined, what one search gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from morgana.index.index import Index
from morgana.index.kinds._base import spare
from morgana.index.kinds.flat import Flat
from morgana.index.manifest import checksum
from morgana.index.ranking import Proposed, Stack
from morgana.index.segment import Candidates, Segment, nothing
from morgana.index.vectors import Rows
from morgana.types import StoreError


class Cut(NamedTuple):
    """Rows `start` to `end` of a segment, by its number."""

    segment: int
    start: int
    end: int


def divide(segments: Sequence[Segment], shards: int) -> list[list[Cut]]:
    """At most `shards` lists of cuts with about equal numbers of rows.

    Segments of an exact kind are cut, between documents; the others go whole, as their search files are.
    """
    most = -(-sum(s.about.vectors for s in segments) // max(1, shards))
    cuts = [cut for number, segment in enumerate(segments) for cut in pieces(number, segment, most)]
    found: list[list[Cut]] = [[] for _ in range(min(shards, len(cuts)))]
    for cut in sorted(cuts, key=lambda c: c.start - c.end):
        min(found, key=lambda held: sum(c.end - c.start for c in held)).append(cut)
    return found


def pieces(number: int, segment: Segment, most: int) -> list[Cut]:
    count = segment.about.vectors
    if not segment.kind.exact or count <= most:
        return [Cut(number, 0, count)]
    asked = np.arange(most, count, most)
    inner = np.searchsorted(segment.owners, segment.owners[asked])  # where the document of that row begins
    ends = [0, *sorted({int(place) for place in inner if place}), count]
    return [Cut(number, start, end) for start, end in pairwise(ends)]


class Slice:
    """Some rows of a segment, searched alone, exactly where they are not all of it."""

    def __init__(self, segment: Segment, cut: Cut) -> None:
        self.segment, self.start, self.whole = segment, cut.start, cut.end - cut.start == segment.about.vectors
        rows = segment.vectors[cut.start : cut.end]
        self.searcher = Flat().open(segment.folder, rows)
        dead = np.zeros(len(rows), bool) if segment.dead is None else segment.dead[segment.owners[cut.start : cut.end]]
        self.dead, self.living = dead, int((~dead).sum())

    def search(self, queries: Rows, many: int, thorough: bool) -> Candidates:
        """As `Segment.search`, with rows of the segment."""
        if self.whole:
            return self.segment.search(queries, many, thorough=thorough)
        count = len(self.dead)
        asked = min(count, (many + spare(self.searcher)) * count // max(1, self.living) + 1)
        scores, rows = self.searcher.search(queries, asked)
        last = scores[:, -1] if asked < count else nothing(scores)
        rows = np.where((rows < 0) | self.dead[np.maximum(rows, 0)], -1, rows + self.start)
        return Candidates(scores, rows, last)


class Shard:
    """Opens an index as it was when it was divided, and proposes from its cuts; lives in a worker."""

    def __init__(self, path: str, mark: str, cuts: Sequence[Cut]) -> None:
        index = Index.open(Path(path))
        if marked(index) != mark:
            raise StoreError(f"{path} was changed after it was divided; open it again")
        self.stack = Stack(index.segments, index.manifest.dimension)
        self.slices = [(cut.segment, Slice(index.segments[cut.segment], cut)) for cut in cuts]

    def propose(self, queries: Rows, many: int, thorough: bool) -> Proposed:
        found = [(number, part.search(queries, many, thorough)) for number, part in self.slices]
        return self.stack.gather(queries, found)


def marked(index: Index) -> str:
    """A mark of the index's state: other after every change."""
    return checksum({"generation": index.manifest.generation, "parts": [s.entry.sha256 for s in index.segments]})
