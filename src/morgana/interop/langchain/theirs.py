"""Any LangChain vector store or retriever as a retriever of Morgana's, to be attacked, defended and measured."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

from langchain_core import documents, retrievers, vectorstores

from morgana.interop.langchain._documents import from_langchain, to_langchain
from morgana.interop.langchain.embeddings import Embeddings
from morgana.types import Corpus, Document, Encoder, Hit, Hits, Query, SpecError

ID = "id"  # the entry of the metadata that holds Morgana's id, as many stores want UUIDs for theirs
SPACE = uuid.UUID("6d6f7267-616e-4100-8000-000000000000")  # our own name space for such UUIDs
SLACK = 1e-3  # how far beyond 1 a cosine may be rounded


def same(score: float) -> float:
    return score


@dataclass(frozen=True)
class Theirs:
    """The k best of a vector store or retriever, best first.

    A query with an image is embedded by `encoder` and searched by vector, which a plain retriever cannot do; others
    are searched by their text. `cosine` makes a cosine of the store's score: as it is by default, `lambda d: 1 - d`
    for cosine distances, `lambda d: 1 - d / 2` for squared Euclidean ones. Where a retriever gives no scores they are
    1, 1/2, 1/3 … (our choice). Raises SpecError for scores that are no cosines or grow towards the end of the list.
    """

    inner: vectorstores.VectorStore | retrievers.BaseRetriever
    encoder: Encoder | None = None
    cosine: Callable[[float], float] = same

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]:
        if k < 1:
            raise SpecError(f"k={k}; ask for at least 1 document")
        return [self.find(query, k) for query in queries]

    def find(self, query: Query, k: int) -> Hits:
        inner = self.inner
        if isinstance(inner, vectorstores.VectorStore):
            found = self.by_image(inner, query, k) if query.image else by_text(inner, asked(query), k)
        elif query.image is not None:
            raise SpecError(f"{type(inner).__name__} finds by text only; give its vector store to ask with images")
        else:
            found = ranked(inner.invoke(asked(query), None, **several(inner, k)))
        return self.judged(found[:k])

    def by_image(
        self, store: vectorstores.VectorStore, query: Query, k: int
    ) -> list[tuple[documents.Document, float | None]]:
        if self.encoder is None or query.image is None:
            raise SpecError(f"the query {query.id!r} has an image; say what embeds it: Theirs(store, encoder)")
        (vector,) = Embeddings(self.encoder).embed_image([query.image])
        scored: Any = getattr(store, "similarity_search_with_score_by_vector", None)
        if scored is None:
            return ranked(store.similarity_search_by_vector(vector, k=k))
        return list(scored(vector, k=k))

    def judged(self, found: Sequence[tuple[documents.Document, float | None]]) -> Hits:
        hits = tuple(
            Hit(named(document), 1 / place if score is None else self.cosine(float(score)))
            for place, (document, score) in enumerate(found, 1)
        )
        scores = [hit.score for hit in hits]
        falling = all(a >= b - SLACK for a, b in pairwise(scores))
        if not falling or any(not -1 - SLACK <= score <= 1 + SLACK for score in scores):
            raise SpecError(
                f"{type(self.inner).__name__} scores {', '.join(f'{s:.3g}' for s in scores[:5])}, which are "
                "no cosines, best first; say how to read them: Theirs(store, cosine=lambda d: 1 - d) for distances"
            )
        return tuple(hit._replace(score=min(1.0, max(-1.0, hit.score))) for hit in hits)


def by_text(store: vectorstores.VectorStore, text: str, k: int) -> list[tuple[documents.Document, float | None]]:
    try:
        return list(store.similarity_search_with_score(text, k=k))
    except NotImplementedError:
        return ranked(store.similarity_search(text, k=k))


def ranked(found: Sequence[documents.Document]) -> list[tuple[documents.Document, float | None]]:
    return [(document, None) for document in found]


def asked(query: Query) -> str:
    if not query.text.strip():
        raise SpecError(f"the query {query.id!r} has neither an image nor a text; give it one")
    return query.text


def several(retriever: retrievers.BaseRetriever, k: int) -> dict[str, Any]:
    """k as an argument, if the retriever takes it at a call."""
    taken = inspect.signature(retriever._get_relevant_documents).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    return {"k": k} if "k" in taken or open_ended else {}


def named(found: documents.Document) -> Document:
    """Morgana's document: its id is `metadata["id"]`, else the store's, else made from the text."""
    own = found.metadata.get(ID)
    id = own if isinstance(own, str) and own else found.id or str(uuid.uuid5(SPACE, found.page_content))
    return from_langchain(found, id)


def fill(store: vectorstores.VectorStore, source: Corpus | Iterable[Document], batch_size: int = 256) -> int:
    """Add Morgana's documents to any vector store, their ids as `metadata["id"]` and as UUIDs made from them: how many.

    The store embeds their texts; documents without text are refused with a SpecError.
    """
    rows, count = iter(source if isinstance(source, Iterable) else source.documents()), 0
    while some := list(islice(rows, batch_size)):
        for document in some:
            if not document.text.strip():
                raise SpecError(f"{document.id!r} has no text; LangChain's stores embed texts only")
        made = [to_langchain(replace(d, metadata={**d.metadata, ID: d.id})) for d in some]
        store.add_documents(made, ids=[str(uuid.uuid5(SPACE, d.id)) for d in some])
        count += len(some)
    return count
