"""From the segments' candidates to documents, best first: exact scores, ties by insertion, one place a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from morgana.index.segment import Segment, Selection
from morgana.index.vectors import Rows
from morgana.types import Document

SPARE = 8  # candidates beyond k, so that ties at the end rarely need a second search
NEAR = 1e-5  # FAISS's sums and ours differ by less

Found = list[list[tuple[int, float]]]  # for each query (position, cosine), best first


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

    def rank(self, queries: Rows, k: int, each: int, only: Sequence[Selection | None] | None = None) -> Found:
        """The k best documents of each query; `each` is the most vectors of a document, `only` rows are selected.

        The segments propose; scores are then summed in float64 from the stored rows, so that equal vectors have equal
        scores wherever they stand. Where a tie may go on beyond the candidates, or a kind found too few, the search is
        repeated exactly and wider: over exact kinds the order is that of a full sort by (-score, row).
        """
        found: Found = [[] for _ in queries]
        chosen = only or [None] * len(self.segments)
        open_, many, thorough = np.arange(len(queries)), k * each + SPARE, False
        while len(open_):
            proposed = [
                s.search(queries[open_], many, thorough=thorough, only=selected)
                for s, selected in zip(self.segments, chosen, strict=True)
            ]
            rows = [np.where(p.rows < 0, -1, p.rows + b) for p, b in zip(proposed, self.first_row, strict=False)]
            bounds = np.max([p.bound for p in proposed], axis=0)
            joined, again = np.concatenate(rows, axis=1), []
            for query, row, bound in zip(open_, joined, bounds, strict=True):
                best = found[query] = self.order(queries[query], row[row >= 0], k)
                if len(best) < k or best[-1][1] <= bound + NEAR:
                    again.append(query)
            if thorough and many >= self.size:
                break
            open_, thorough = np.array(again, dtype=np.int64), True
            many = min(self.size, many * 4)
        return found

    def order(self, query: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> list[tuple[int, float]]:
        rows = np.unique(rows)
        exact = (self.take(rows).astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        scores = np.clip(exact.astype(np.float32), -1, 1)
        owners = self.owners(rows)
        best: dict[int, float] = {}
        for i in np.argsort(-scores, kind="stable"):
            best.setdefault(int(owners[i]), float(scores[i]))
            if len(best) == k:
                break
        return list(best.items())

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
