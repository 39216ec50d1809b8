"""From the segments' candidates to documents, best first: exact scores, ties by insertion, one place a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.index.segment import Segment, Selection
from morgana.index.vectors import Rows
from morgana.types import Document

SPARE = 8  # candidates beyond k, so that ties at the end rarely need a second search
NEAR = 1e-5  # FAISS's sums and ours differ by less
PIECE = 1024  # rows scored at a time: few enough for a processor's cache

Found = list[list[tuple[int, float]]]  # for each query (position, cosine), best first
Here: TypeAlias = slice | NDArray[np.bool_]  # which of some places lie in a segment


class Proposed(NamedTuple):
    """Candidates of each query: rows (-1: none), cosines (-inf: none) and the positions of their documents, (B, n)."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    owners: NDArray[np.int64]
    bounds: NDArray[np.float32]  # (B,), what the rest cannot exceed


Propose: TypeAlias = Callable[[Rows, int, bool], Proposed]  # queries, how many, whether exactly


def rank(propose: Propose, queries: Rows, k: int, each: int, size: int) -> Found:
    """The k best of `size` rows for each query, whoever proposes them; `each` is the most vectors of a document.

    Where a tie may go on beyond the candidates, or too few were found, the search is repeated exactly and wider: over
    exact kinds the order is that of a full sort by (-score, row).
    """
    found: Found = [[] for _ in queries]
    open_, many, thorough = list(range(len(queries))), k * each + SPARE, False
    while open_:
        asked = queries if len(open_) == len(queries) else queries[open_]
        proposed = propose(asked, many, thorough)
        again = []
        for query, best, bound in zip(open_, order(proposed, k), proposed.bounds.tolist(), strict=True):
            found[query] = best
            if len(best) < k or best[-1][1] <= bound + NEAR:
                again.append(query)
        if thorough and many >= size:
            break
        open_, thorough = again, True
        many = min(size, many * 4)
    return found


def order(proposed: Proposed, k: int) -> Iterator[list[tuple[int, float]]]:
    """The k best documents of each query, each by its best row; of equal scores the earlier row."""
    best = np.lexsort((proposed.rows, -proposed.scores), axis=-1)
    best += best.shape[1] * np.arange(len(best))[:, None]
    for owners, scores in zip(proposed.owners.take(best).tolist(), proposed.scores.take(best).tolist(), strict=True):
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

    def propose(
        self, queries: Rows, many: int, thorough: bool, only: Sequence[Selection | None] | None = None
    ) -> Proposed:
        """The segments' candidates among `only`, scored in float64 from the stored rows: equals score equally."""
        chosen = only or [None] * len(self.segments)
        proposed = [
            s.search(queries, many, thorough=thorough, only=selected)
            for s, selected in zip(self.segments, chosen, strict=True)
        ]
        if len(proposed) == 1:
            return self.score(queries, proposed[0].rows, proposed[0].bound)
        rows = [np.where(p.rows < 0, -1, p.rows + b) for p, b in zip(proposed, self.first_row, strict=False)]
        return self.score(queries, np.concatenate(rows, axis=1), np.max([p.bound for p in proposed], axis=0))

    def score(self, queries: Rows, rows: NDArray[np.int64], bounds: NDArray[np.float32]) -> Proposed:
        """The rows (B, n) of each query with their cosines and documents."""
        scores = np.empty(rows.shape, dtype=np.float32)
        wide, there = queries.astype(np.float64), np.maximum(rows, 0)
        step = max(1, PIECE // max(1, rows.shape[1]))
        for first, start in product(range(0, len(rows), step), range(0, rows.shape[1], PIECE)):
            here = slice(first, first + step), slice(start, start + PIECE)
            exact = self.take(there[here], np.float64)
            exact *= wide[here[0], None]
            scores[here] = exact.sum(axis=2)
        np.clip(scores, -1, 1, out=scores)
        owners = self.owners(there)
        if (nothing := rows < 0).any():
            scores[nothing], owners[nothing] = -np.inf, -1
        return Proposed(rows, scores, owners, bounds)

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

    def owners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position of each row's document, as `rows`."""
        made = np.empty(rows.shape, dtype=np.int64)
        for number, here in self.split(rows, self.first_row):
            local = self.segments[number].owners.take(rows[here] - self.first_row[number])
            made[here] = local + self.first_document[number]
        return made

    def documents(self, positions: Sequence[int]) -> dict[int, Document]:
        wanted = np.array(sorted(set(positions)), dtype=np.int64)
        found: dict[int, Document] = {}
        for number, here in self.split(wanted, self.first_document):
            base = int(self.first_document[number])
            local = self.segments[number].shelf.documents((wanted[here] - base).tolist())
            found |= local if not base else {position + base: document for position, document in local.items()}
        return found
