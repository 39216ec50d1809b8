"""The door for documents: LangChain's in, Morgana's out, and back."""

from __future__ import annotations

from pathlib import Path

from langchain_core import documents

from morgana.types import Document

IMAGE = "image"  # the entry of LangChain's metadata that holds the path of the document's image
SCORE = "score"  # and its score, where it was retrieved


def to_langchain(document: Document, score: float | None = None) -> documents.Document:
    """The document with its image's path, and its score if there is one, as `metadata["image"]` and `["score"]`."""
    image = {} if document.image is None else {IMAGE: str(document.image)}
    scored = {} if score is None else {SCORE: score}
    return documents.Document(
        page_content=document.text, id=document.id, metadata=image | {**document.metadata} | scored
    )


def from_langchain(document: documents.Document, id: str | None = None) -> Document:
    """The document, its image at the path in `metadata["image"]` unless that is an address; metadata stays whole."""
    named = document.metadata.get(IMAGE)
    image = Path(named) if isinstance(named, (str, Path)) and named and "://" not in str(named) else None
    metadata = {key: str(value) if isinstance(value, Path) else value for key, value in document.metadata.items()}
    return Document(id or document.id or "", document.page_content, image, metadata)
