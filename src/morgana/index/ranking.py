"""From the segments' candidates to documents, best first: exact scores, ties by insertion, one place a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.index.segment import Segment, Selection
from morgana.index.vectors import Rows
from morgana.types import Document

SPARE = 8  # candidates beyond k, so that ties at the end rarely need a second search
NEAR = 1e-5  # FAISS's sums and ours differ by less

Found = list[list[tuple[int, float]]]  # for each query (position, cosine), best first


class Scored(NamedTuple):
    """Candidates of one query: rows, their cosines, and the positions of their documents, (n,) each."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    owners: NDArray[np.int64]


Proposed: TypeAlias = tuple[list[Scored], NDArray[np.float32]]  # by query, and what the rest cannot exceed (B,)
Propose: TypeAlias = Callable[[Rows, int, bool], Proposed]  # queries, how many, whether exactly


def rank(propose: Propose, queries: Rows, k: int, each: int, size: int) -> Found:
    """The k best of `size` rows for each query, whoever proposes them; `each` is the most vectors of a document.

    Where a tie may go on beyond the candidates, or too few were found, the search is repeated exactly and wider: over
    exact kinds the order is that of a full sort by (-score, row).
    """
    found: Found = [[] for _ in queries]
    open_, many, thorough = np.arange(len(queries)), k * each + SPARE, False
    while len(open_):
        proposed, bounds = propose(queries[open_], many, thorough)
        again = []
        for query, scored, bound in zip(open_, proposed, bounds, strict=True):
            best = found[query] = order(scored, k)
            if len(best) < k or best[-1][1] <= bound + NEAR:
                again.append(query)
        if thorough and many >= size:
            break
        open_, thorough = np.array(again, dtype=np.int64), True
        many = min(size, many * 4)
    return found


def order(scored: Scored, k: int) -> list[tuple[int, float]]:
    """The k best documents, each by its best row; of equal scores the earlier row."""
    best: dict[int, float] = {}
    for i in np.lexsort((scored.rows, -scored.scores)):
        best.setdefault(int(scored.owners[i]), float(scored.scores[i]))
        if len(best) == k:
            break
    return list(best.items())


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
        rows = [np.where(p.rows < 0, -1, p.rows + b) for p, b in zip(proposed, self.first_row, strict=False)]
        bounds: NDArray[np.float32] = np.max([p.bound for p in proposed], axis=0)
        joined = np.concatenate(rows, axis=1)
        return [self.score(query, row[row >= 0]) for query, row in zip(queries, joined, strict=True)], bounds

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> Scored:
        rows = np.unique(rows)
        exact = (self.take(rows).astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        return Scored(rows, np.clip(exact.astype(np.float32), -1, 1), self.owners(rows))

    def split(self, places: NDArray[np.int64], first: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Which of the places lie in which segment."""
        home = np.searchsorted(first, places, side="right") - 1
        for number in np.unique(home):
            yield int(number), home == number

    def take(self, rows: NDArray[np.int64]) -> Rows:
        made = np.empty((len(rows), self.dimension), dtype=np.float32)
        for number, here in self.split(rows, self.first_row):
            made[here] = self.segments[number].vectors[rows[here] - self.first_row[number]]
        return made

    def owners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position of each row's document."""
        made = np.empty(len(rows), dtype=np.int64)
        for number, here in self.split(rows, self.first_row):
            local = self.segments[number].owners[rows[here] - self.first_row[number]]
            made[here] = local + self.first_document[number]
        return made

    def documents(self, positions: Sequence[int]) -> dict[int, Document]:
        wanted = np.array(sorted(set(positions)), dtype=np.int64)
        found: dict[int, Document] = {}
        for number, here in self.split(wanted, self.first_document):
            base = int(self.first_document[number])
            local = self.segments[number].shelf.documents(int(p) - base for p in wanted[here])
            found |= {position + base: document for position, document in local.items()}
        return found
