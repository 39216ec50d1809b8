"""Sparse retrieval: the words of a query against those of an index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from morgana.index import Index, Where
from morgana.spec import part
from morgana.types import Hits, Query, SpecError


@part
class Sparse:
    """The best documents of the index folder `index` by BM25 of the query's text, as bm25s and Lucene score it.

    The index must keep words (`build(…, sparse=True)`). Only documents with a word of the query are found, which may be
    fewer than k; a query without a text finds none. Scores are BM25's, not cosines. `where` filters by metadata.
    """

    index: str
    k1: float = 1.5  # how soon a word that comes again counts no more
    b: float = 0.75  # how much long documents are held back, 0 to 1
    where: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.k1 < float("inf") and 0 <= self.b <= 1):
            raise SpecError(f"k1={self.k1}, b={self.b}; k1 is at least 0, and b from 0 to 1")
        if self.where:
            Where(self.where)  # or a SpecError

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]:
        texts = [query.text for query in queries]
        return self.opened.match(texts, k, k1=self.k1, b=self.b, where=self.where or None)

    @cached_property
    def opened(self) -> Index:
        return Index.open(Path(self.index))
