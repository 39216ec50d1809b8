"""From the segments' candidates to documents, best first: exact scores, ties by insertion, one place a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.index.segment import Candidates, Segment, Selection
from morgana.index.vectors import Half, Rows
from morgana.types import Document

NEAR = 1e-5  # FAISS's sums and ours differ by less
PIECE = 1024  # rows scored at a time: few enough for a processor's cache

Found = list[list[tuple[int, float]]]  # for each query (position, cosine), best first
Here: TypeAlias = slice | NDArray[np.bool_]  # which of some places lie in a segment


class Proposed(NamedTuple):
    """Candidates of each query: rows, cosines (-inf: none) and the positions of their documents (-1: none), (B, n)."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    owners: NDArray[np.int64]
    bounds: NDArray[np.float32]  # (B,), what the rest cannot exceed


Propose: TypeAlias = Callable[[Rows, int, bool], Proposed]  # queries, how many, whether exactly


def rank(propose: Propose, queries: Rows, k: int, each: int, size: int, many: int = 0, thorough: bool = False) -> Found:
    """The k best of `size` rows for each query, whoever proposes them; `each` is the most vectors of a document.

    Where a tie may go on beyond the candidates the search is repeated wider, where too few were found also exactly:
    over exact kinds the order is that of a full sort by (-score, row), and over all kinds it is the same every time.
    """
    many = many or k * each
    proposed = propose(queries, many, thorough)
    found = list(order(proposed, k, each))
    tied, short = [], []
    for query, (best, bound) in enumerate(zip(found, proposed.bounds.tolist(), strict=True)):
        if len(best) < k:
            short.append(query)
        elif best[-1][1] <= bound + NEAR:
            tied.append(query)
    for again, exactly in ((tied, thorough), (short, True)):
        if again and not (thorough and many >= size):
            wider = rank(propose, queries[again], k, each, size, min(size, 4 * many), exactly)
            for query, best in zip(again, wider, strict=True):
                found[query] = best
    return found


def order(proposed: Proposed, k: int, each: int) -> Iterator[list[tuple[int, float]]]:
    """The k best documents of each query, each by its best row; of equal scores the earlier row."""
    best = np.lexsort((proposed.rows, -proposed.scores), axis=-1)
    if each == 1:
        best = best[:, :k]
    best += proposed.rows.shape[1] * np.arange(len(best))[:, None]
    for owners, scores in zip(proposed.owners.take(best).tolist(), proposed.scores.take(best).tolist(), strict=True):
        if each == 1 and owners[-1] >= 0:
            yield list(zip(owners, scores, strict=True))
            continue
        first: dict[int, float] = {}
        for owner, score in zip(owners, scores, strict=True):
            if owner not in first:
                if owner < 0 or len(first) == k:
                    break
                first[owner] = score
        yield list(first.items())


class Stack:
    """Segments one after another, as one list of rows and one of documents; positions count deleted ones too."""

    def __init__(self, segments: Sequence[Segment], dimension: int) -> None:
        self.segments, self.dimension = tuple(segments), dimension
        self.first_row = np.cumsum([0, *(s.about.vectors for s in segments)])
        self.first_document = np.cumsum([0, *(s.about.documents for s in segments)])

    @property
    def size(self) -> int:
        """Rows."""
        return int(self.first_row[-1])

    @cached_property
    def each(self) -> int:
        """The most vectors of a document."""
        return 2 if any(s.about.vectors > s.about.documents for s in self.segments) else 1

    @cached_property
    def final(self) -> bool:
        """Every segment's search gives scores that need not be computed again."""
        return all(s.searcher.final for s in self.segments)

    def propose(
        self, queries: Rows, many: int, thorough: bool, only: Sequence[Selection | None] | None = None
    ) -> Proposed:
        """The segments' candidates among `only`."""
        chosen = only or [None] * len(self.segments)
        found = [
            segment.search(queries, many, thorough=thorough, only=selected)
            for segment, selected in zip(self.segments, chosen, strict=True)
        ]
        return self.gather(queries, list(enumerate(found)))

    def gather(self, queries: Rows, found: Sequence[tuple[int, Candidates]]) -> Proposed:
        """The candidates of segments, by their numbers, as one list."""
        return joined([self.placed(queries, number, candidates) for number, candidates in found])

    def placed(self, queries: Rows, number: int, candidates: Candidates) -> Proposed:
        """A segment's candidates in the stack; where scores are not final everywhere, they are all computed again."""
        segment, (scores, rows, bounds, final) = self.segments[number], candidates
        there = np.maximum(rows, 0)
        if not (final and self.final):
            scores = score(queries, there, segment.vectors)
        np.maximum(np.minimum(scores, 1, out=scores), -1, out=scores)  # np.clip takes as long as a small search
        owners = segment.owners.take(there) + self.first_document[number]
        if (nothing := rows < 0).any():
            scores[nothing], owners[nothing] = -np.inf, -1
        return Proposed(rows + self.first_row[number], scores, owners, bounds)

    def split(self, places: NDArray[np.int64], first: NDArray[np.int64]) -> Iterator[tuple[int, Here]]:
        """Which of the places lie in which segment."""
        if len(self.segments) == 1:
            yield 0, slice(None)
            return
        home = np.searchsorted(first, places, side="right") - 1
        for number in np.unique(home):
            yield int(number), home == number

    def take(self, rows: NDArray[np.int64], dtype: type[np.floating] = np.float32) -> NDArray[np.floating]:
        """(*rows.shape, D)"""
        made = np.empty((*rows.shape, self.dimension), dtype=dtype)
        for number, here in self.split(rows, self.first_row):
            made[here] = self.segments[number].vectors.take(rows[here] - self.first_row[number], axis=0)
        return made

    def documents(self, positions: Sequence[int]) -> dict[int, Document]:
        wanted = np.array(sorted(set(positions)), dtype=np.int64)
        found: dict[int, Document] = {}
        for number, here in self.split(wanted, self.first_document):
            base = int(self.first_document[number])
            local = self.segments[number].shelf.documents((wanted[here] - base).tolist())
            found |= local if not base else {position + base: document for position, document in local.items()}
        return found


def score(queries: Rows, rows: NDArray[np.int64], vectors: Half) -> Rows:
    """The cosines of each query's rows (B, n), summed in float64 from what is stored: equals score equally."""
    scores = np.empty(rows.shape, dtype=np.float32)
    wide = queries.astype(np.float64)
    step = max(1, PIECE // max(1, rows.shape[1]))
    for first, start in product(range(0, len(rows), step), range(0, rows.shape[1], PIECE)):
        here = slice(first, first + step), slice(start, start + PIECE)
        exact = vectors.take(rows[here], axis=0).astype(np.float64)
        exact *= wide[here[0], None]
        scores[here] = exact.sum(axis=2)
    return scores


def joined(proposed: Sequence[Proposed]) -> Proposed:
    """What some propose, as if one had."""
    if len(proposed) == 1:
        return proposed[0]
    rows, scores, owners = (np.concatenate(column, axis=1) for column in list(zip(*proposed, strict=True))[:3])
    return Proposed(rows, scores, owners, np.max([p.bounds for p in proposed], axis=0))
