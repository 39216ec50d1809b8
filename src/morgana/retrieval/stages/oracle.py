"""The right article at a chosen place of the list: how position alone changes an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from morgana.spec import part
from morgana.types import Corpus, Document, Hit, Hits, Query, SpecError

PLACES = ("none", "first", "middle", "last")


@part
class Oracle:
    """Put the query's relevant documents first, in the middle or last among the best others; "none" empties the list.

    The list keeps its length. For studies only: it looks up the answers' sources in the corpus's qrels. A document that
    was not retrieved comes with the score of the hit whose place it takes. Queries without a relevant document keep
    their hits.
    """

    corpus: Corpus
    at: str = "first"

    def __post_init__(self) -> None:
        if self.at not in PLACES:
            raise SpecError(f"Oracle(at={self.at!r}); choose one of {', '.join(PLACES)}")

    @cached_property
    def _documents(self) -> dict[str, Document]:
        return {document.id: document for document in self.corpus.documents()}

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Hits]:
        if self.at == "none":
            return [() for _ in queries]
        qrels = self.corpus.qrels()
        return [self.placed(found, list(qrels.get(q.id, ()))) for q, found in zip(queries, hits, strict=True)]

    def placed(self, hits: Hits, relevant: Sequence[str]) -> Hits:
        right = [self._documents[id] for id in relevant][: len(hits)]
        if not right:
            return hits
        others = [hit.document for hit in hits if hit.document.id not in relevant][: len(hits) - len(right)]
        start = {"first": 0, "middle": (len(others) + 1) // 2, "last": len(others)}[self.at]
        ordered = [*others[:start], *right, *others[start:]]
        return tuple(Hit(document, hit.score) for document, hit in zip(ordered, hits, strict=False))
