"""Any stage as a LangChain document compressor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core import callbacks, documents
from langchain_core.documents.compressor import BaseDocumentCompressor
from pydantic import ConfigDict, field_validator

from morgana.interop.langchain._built import built
from morgana.interop.langchain._documents import SCORE, from_langchain, to_langchain
from morgana.types import Hit, Query


class Compressor(BaseDocumentCompressor):
    """A stage, or its spec, reranks, drops or changes the documents of a LangChain retriever.

    Scores are read from `metadata["score"]`, as Morgana's own retriever writes them; if any document lacks one, all
    are scored by their place, 1, 1/2, 1/3 … (our choice). What comes back has the stage's score there.
    """

    stage: Any
    image: Path | None = None  # of every query, for stages that look at it
    model_config = ConfigDict(arbitrary_types_allowed=True)

    @field_validator("stage")
    @classmethod
    def _built(cls, given: Any) -> Any:
        return built(given, "stage")

    def compress_documents(
        self,
        documents: Sequence[documents.Document],
        query: str,
        callbacks: callbacks.Callbacks | None = None,
    ) -> Sequence[documents.Document]:
        asked = Query("question", query, self.image)
        given = tuple(
            Hit(from_langchain(document, document.id or f"#{place}"), score)
            for place, (document, score) in enumerate(zip(documents, scores(documents), strict=True))
        )
        (left,) = self.stage([asked], [given])
        known = {id(hit.document): document for hit, document in zip(given, documents, strict=True)}
        return [restored(hit, known.get(id(hit.document))) for hit in left]


def scores(found: Sequence[documents.Document]) -> list[float]:
    given = [document.metadata.get(SCORE) for document in found]
    known = [float(score) for score in given if isinstance(score, (int, float)) and not isinstance(score, bool)]
    return known if len(known) == len(found) else [1 / place for place in range(1, len(found) + 1)]


def restored(hit: Hit, original: documents.Document | None) -> documents.Document:
    """The document that came in, with its new score; one that the stage made or changed, as it is."""
    if original is None:
        return to_langchain(hit.document, hit.score)
    return original.model_copy(update={"metadata": {**original.metadata, SCORE: hit.score}})
