from __future__ import annotations

from collections.abc import Sequence

import pytest

from morgana.pipeline import Pipeline
from morgana.types import Answer, Document, Hit, Hits, Query, SpecError

SHELF = tuple(Hit(Document(name), score) for name, score in (("a", 0.9), ("b", 0.5), ("c", 0.1)))


def retrieve(queries: Sequence[Query], k: int) -> list[Hits]:
    return [SHELF[:k] for _ in queries]


def reverse(queries: Sequence[Query], hits: Sequence[Hits]) -> list[Hits]:
    return [row[::-1] for row in hits]


def shorten(queries: Sequence[Query], hits: Sequence[Hits]) -> list[Hits]:
    return [row[:1] for row in hits]


class Echo:
    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        return [Answer(f"{q.text}: {h[0].document.id}", h) for q, h in zip(queries, hits, strict=True)]


def test_hits_pass_the_stages_in_order_and_reach_the_generator() -> None:
    pipeline = Pipeline(retrieve, (reverse, shorten), Echo())  # type: ignore[arg-type]
    assert [a.text for a in pipeline([Query("1", "one"), Query("2", "two")], k=2)] == ["one: b", "two: b"]


def test_without_a_generator_it_retrieves_and_says_that_it_cannot_answer() -> None:
    pipeline = Pipeline(retrieve)
    assert pipeline.retrieve([Query("1")], 1) == [SHELF[:1]]
    with pytest.raises(SpecError, match="no generator, so it cannot answer"):
        pipeline([Query("1")])
