"""Retrieve, refine, generate: the whole system, in the order in which data flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morgana.types import Answer, Generator, Hits, Query, Retriever, SpecError, Stage


@dataclass(frozen=True)
class Pipeline:
    """A retriever, the stages that refine its hits, and the generator that reads them and the query's image."""

    retriever: Retriever
    stages: tuple[Stage, ...] = ()
    generator: Generator | None = None

    def __call__(self, queries: Sequence[Query], k: int = 5) -> list[Answer]:
        """Answer every query from its k best documents, as refined."""
        if self.generator is None:
            raise SpecError(
                "this pipeline has no generator, so it cannot answer; retrieve with `pipeline.retrieve(queries, k)`"
            )
        return self.generator(queries, self.refine(queries, self.retrieve(queries, k)))

    def retrieve(self, queries: Sequence[Query], k: int = 5) -> list[Hits]:
        return self.retriever(queries, k)

    def refine(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Hits]:
        refined = list(hits)
        for stage in self.stages:
            refined = stage(queries, refined)
        return refined
