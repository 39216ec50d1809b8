"""An index folder as a LangChain vector store."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, TypeAlias

import numpy as np
import torch
from langchain_core import documents, embeddings, vectorstores
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from morgana.index import Index, build, delete, upsert
from morgana.index._batches import unkept
from morgana.index.filters import equalities
from morgana.index.kinds._base import Kind
from morgana.interop.langchain._documents import from_langchain, to_langchain
from morgana.interop.langchain._foreign import Foreign, encoder_of
from morgana.interop.langchain.embeddings import Embeddings, numbers
from morgana.spec import parse
from morgana.types import Document, Encoder, Hits, SpecError, StoreError

Scored: TypeAlias = list[tuple[documents.Document, float]]
Filter: TypeAlias = str | Mapping[str, Any] | Callable[[documents.Document], bool] | None
WIDER = 4  # how much further a search that is filtered by a function looks each time


class VectorStore(vectorstores.VectorStore):
    """The index folder `path`, made by the first `add_documents` if it is not there; without a path, a temporary one.

    `embedding` is LangChain's, or an encoder of Morgana's or its spec. Scores are cosines in [-1, 1], higher is better;
    relevance is (1 + cosine) / 2. Every call sees what any process has committed before it; each change is whole or
    not made. `filter` is a text as `morgana.index.filters` reads it or a mapping of metadata that must be equal, either
    is part of the search; or a function of the document, for which the search looks further until k pass. A path in
    `metadata["image"]` is the document's image; `embed` and `kind` are those of `morgana.index.build`.
    """

    def __init__(
        self,
        embedding: embeddings.Embeddings | Encoder | str,
        path: Path | str | None = None,
        *,
        kind: Kind | str | None = None,
        embed: str = "text",
        batch_size: int = 64,
    ) -> None:
        self.encoder = encoder_of(embedding)
        self.kind: Kind | None = parse(kind) if isinstance(kind, str) else kind
        self.embed, self.batch_size = embed, batch_size
        self.path = temporary(self) if path is None else Path(path)
        self._lock = RLock()
        self._seen: tuple[Any, Index] | None = None

    @classmethod
    def open(cls, path: Path | str) -> VectorStore:
        """The store of an index that is there, with the encoder that built it."""
        return cls(Index.open(path).encoder, path)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: embeddings.Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> VectorStore:
        """A store with these texts; `ids`, `path` and what else the store takes by name."""
        ids = kwargs.pop("ids", None)
        made = cls(embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    @property
    def embeddings(self) -> embeddings.Embeddings:
        return self.encoder.inner if isinstance(self.encoder, Foreign) else Embeddings(self.encoder, self.batch_size)

    @property
    def index(self) -> Index | None:
        """The index as it is now; None before the first document."""
        with self._lock:
            try:
                found = (self.path / "manifest.json").stat()
            except FileNotFoundError:
                return None
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._seen is None or self._seen[0] != stamp:
                self._seen = (stamp, Index.open(self.path, self.encoder))
            return self._seen[1]

    def add_documents(self, documents: list[documents.Document], **kwargs: Any) -> list[str]:
        """Add, or replace those whose id is there; ids are made for documents without. Of two with one id, the last.

        All or none, but for images that cannot be read: a StoreError names them, and the others are in. Raises
        SpecError before anything is written for texts that are blank and metadata that JSON cannot hold.
        """
        ids = identified(documents, kwargs.get("ids"))
        chosen = {id: from_langchain(document, id) for id, document in zip(ids, documents, strict=True)}
        for document in chosen.values():
            check(document)
        if chosen:
            with self._lock:
                self._write(list(chosen.values()))
        return ids

    def _write(self, chosen: list[Document]) -> None:
        size = self.batch_size
        if self.index is None:
            made = build(
                chosen,
                self.encoder,
                self.path,
                kind=self.kind,
                embed=self.embed,
                batch_size=size,
                resume=False,
                progress=False,
            )
        else:
            made = upsert(self.path, chosen, self.encoder, batch_size=size)
        there, reasons = made.locate([document.id for document in chosen]), dict(made.quarantine())
        if left := [document.id for document in chosen if document.id not in there]:
            why = reasons.get(left[0], "refused")
            raise StoreError(f"{len(left)} of {len(chosen)} documents were left out, the first {left[0]!r}: {why}")

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete those that are there; all without `ids`. Their space is freed by `morgana index compact`."""
        with self._lock:
            if (index := self.index) is None:
                return True
            wanted = [document.id for document in index.stream()] if ids is None else ids
            if there := list(index.locate(wanted)):
                delete(self.path, there)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[documents.Document]:
        """Those that are there, in the order asked for, each once."""
        if (index := self.index) is None:
            return []
        there = index.locate(list(ids))
        return [to_langchain(index.document(id)) for id in dict.fromkeys(ids) if id in there]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[documents.Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, filter: Filter = None, **kwargs: Any) -> Scored:
        """The k best and their cosines, best first."""
        return self.similarity_search_with_score_by_vector(self.embeddings.embed_query(query), k, filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[documents.Document]:
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter)]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> Scored:
        if (index := self.index) is None:
            return []
        return [(to_langchain(hit.document), hit.score) for hit in nearest(index, embedding, k, filter)]

    def similarity_search_by_image(self, uri: str | Path, k: int = 4, filter: Filter = None) -> Scored:
        """The k best for an image file, and their cosines."""
        (vector,) = Embeddings(self.encoder).embed_image([uri])
        return self.similarity_search_with_score_by_vector(vector, k, filter)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[documents.Document]:
        vector = self.embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter = None,
        **kwargs: Any,
    ) -> list[documents.Document]:
        """k of the `fetch_k` best, by lambda · cosine with the query − (1 − lambda) · the best with those chosen."""
        if (index := self.index) is None:
            return []
        hits = nearest(index, embedding, max(k, fetch_k), filter)
        rows = numbers(index.vectors([hit.document.id for hit in hits]))
        chosen = maximal_marginal_relevance(np.array(embedding, dtype=np.float32), rows, lambda_mult, k)
        return [to_langchain(hits[i].document) for i in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (1 + cosine) / 2


def temporary(owner: object) -> Path:
    """A place for an index, removed with its owner or at the end of the process."""
    folder = tempfile.mkdtemp(prefix="morgana-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "store.index"


def identified(given: Sequence[documents.Document], ids: Sequence[str | None] | None) -> list[str]:
    """An id each: from `ids`, else the document's own, else a new one."""
    if ids is not None and len(ids) != len(given):
        raise SpecError(f"{len(ids)} ids for {len(given)} documents; give one each")
    named = [document.id for document in given] if ids is None else ids
    return [id or document.id or str(uuid.uuid4()) for id, document in zip(named, given, strict=True)]


def check(document: Document) -> None:
    """SpecError for a document that an index does not take."""
    if why := unkept(document):
        raise SpecError(f"the document {document.id!r} cannot be added: {why}; nothing was added")
    if not document.text.strip() and document.image is None:
        raise SpecError(f"the document {document.id!r} has neither text nor image; nothing was added")


def nearest(index: Index, vector: list[float], k: int, filter: Filter) -> Hits:
    """The k best that pass the filter, best first; where it is a function, the search looks further until there are k.

    Raises SpecError for a text or a mapping that is no filter, or names a field that no document has.
    """
    query, wanted = torch.tensor([vector], dtype=torch.float32), k
    if not callable(filter):
        where = equalities(filter) if isinstance(filter, Mapping) else filter
        return index.search(query, k, where=where)[0]
    while True:
        (hits,) = index.search(query, wanted)
        passed = tuple(hit for hit in hits if filter(to_langchain(hit.document)))
        if len(passed) >= k or wanted >= index.manifest.documents:
            return passed[:k]
        wanted *= WIDER
