"""Any retriever of Morgana's, with stages or in a pipeline, as a LangChain retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core import callbacks, documents, retrievers
from pydantic import Field, field_validator

from morgana.interop.langchain._built import built
from morgana.interop.langchain._documents import to_langchain
from morgana.pipeline import Pipeline
from morgana.types import Query


class Retriever(retrievers.BaseRetriever):
    """`retriever` (a part, its spec, or a `Pipeline`, whose stages refine), `k` documents with `metadata["score"]`.

    The question is the text; `invoke(text, image="tile.png")` asks with an image too, `invoke(text, k=3)` for others.
    Of a pipeline as many documents come as its stages leave.
    """

    retriever: Any
    stages: tuple[Any, ...] = ()
    k: int = Field(default=4, ge=1)

    @field_validator("retriever")
    @classmethod
    def _built(cls, given: Any) -> Any:
        return built(given, "retriever")

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: callbacks.CallbackManagerForRetrieverRun,
        k: int | None = None,
        image: str | Path | None = None,
    ) -> list[documents.Document]:
        asked = [Query("question", query, None if image is None else Path(image))]
        (hits,) = refined(self.retriever, self.stages).find(asked, self.k if k is None else k)
        return [to_langchain(hit.document, hit.score) for hit in hits]


class _Refined(Pipeline):
    """A pipeline that retrieves and refines in one step."""

    def find(self, queries: list[Query], k: int) -> Any:
        return self.refine(queries, self.retrieve(queries, k))


def refined(retriever: Any, stages: tuple[Any, ...]) -> _Refined:
    """One pipeline for a retriever or a pipeline, and further stages."""
    if isinstance(retriever, Pipeline):
        return _Refined(retriever.retriever, (*retriever.stages, *stages))
    return _Refined(retriever, stages)
