"""Which documents and rows of a segment a search may find: a filter by metadata, and what the rows embed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from morgana.index._writer import SOURCES
from morgana.index.filters import Where
from morgana.index.segment import Segment, Selection
from morgana.spec import nearest
from morgana.types import SpecError

KEPT = 16  # selections that an index remembers


class Selector:
    """Makes the selections of an index's segments, and keeps the last ones."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.kept: dict[tuple[Where | None, str | None], tuple[Selection, ...]] = {}

    def __call__(self, where: Where | str | None, source: str | None = None) -> tuple[Selection, ...]:
        """Raises SpecError for a filter that cannot be read or names a field that no document has."""
        if source not in (None, *SOURCES):
            raise SpecError(f"source={source!r}; say which vectors to search: {' or '.join(map(repr, SOURCES))}")
        if not isinstance(where, (Where, str, type(None))):
            raise SpecError(f"where={where!r}; write a filter such as 'year >= 1980 and topic == \"x\"'")
        key = (Where(where) if isinstance(where, str) else where, source)
        if key not in self.kept:
            made = tuple(selection(segment, *key) for segment in self.segments)
            self.check(key[0])
            for old in list(self.kept)[: max(0, len(self.kept) - KEPT + 1)]:
                self.kept.pop(old, None)
            self.kept[key] = made
        return self.kept[key]

    def check(self, where: Where | None) -> None:
        known: set[str] = set().union(*(segment.columns.known for segment in self.segments))
        for name in where.fields if where and self.segments else ():
            if name not in known:
                have = f"they have {', '.join(sorted(known)[:20])}" if known else "they have none"
                raise SpecError(f"no document has the field {name!r}{nearest(name, sorted(known))}; {have}")


def selection(segment: Segment, where: Where | None, source: str | None) -> Selection:
    documents = segment.alive()
    if where is not None:
        documents &= where.mask(segment.columns.take(where.fields), len(documents))
    rows = documents[segment.owners]
    if source is not None:
        rows &= segment.rows[1] == SOURCES.index(source)
    matching = np.count_nonzero(documents) if source is None else len(np.unique(segment.owners[rows]))
    return Selection(documents, rows, int(matching))
