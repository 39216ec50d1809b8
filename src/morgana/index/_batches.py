"""What of each document is embedded, and the vectors of one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from morgana.corpus._stream import Spoiled, Streamed
from morgana.corpus.images import load
from morgana.files import LONGEST_TEXT, ill_formed, unfit
from morgana.index._sieve import Group
from morgana.index.shelf import described
from morgana.index.vectors import Half, Rows, not_unit
from morgana.types import Corpus, Document, Encoder, Pixels, SpecError, StoreError

EMBED = ("text", "image", "both")
EXACT = 1e-3  # how far from unit length an encoder's vectors may be
TOGETHER = 1 << 22  # characters that are looked at all at once
AHEAD = 2  # batches that are decoded while one is encoded


@dataclass(frozen=True)
class Batch:
    """A group of documents, with their images on the way: pixels, or why there are none."""

    group: Group
    images: Mapping[int, Future[Pixels | str]]


@dataclass
class Made:
    """What became of a batch: kept documents with the sources of their vectors, and the others with the reason."""

    kept: list[tuple[Document, tuple[str, ...]]] = field(default_factory=list)
    vectors: list[Rows | Half] = field(default_factory=list)  # one row a source, in the order of `kept`
    refused: list[tuple[Document, str]] = field(default_factory=list)


def documents(source: Corpus | Iterable[Document]) -> Iterable[Document]:
    """The documents of a corpus, as a stream where it has one."""
    if isinstance(source, Streamed):
        return source.stream()
    return source if isinstance(source, Iterable) else source.documents()


def sources(document: Document, embed: str) -> tuple[str, ...]:
    """What is embedded: `embed` where the document has it, else what it has; nothing for an empty document."""
    has = tuple(s for s, there in (("text", document.text.strip()), ("image", document.image)) if there)
    return (embed,) if embed in has else has


def ahead(groups: Iterable[Group], embed: str, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """Batches in order, their images decoded by the pool while earlier batches are worked on."""
    waiting: deque[Batch] = deque()
    for group in groups:
        wanted = {i: d.image for i, d in enumerate(group.kept) if "image" in sources(d, embed) and not unkept(d)}
        waiting.append(Batch(group, {i: pool.submit(attempt, path) for i, path in wanted.items() if path}))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def unkept(document: Document) -> str | None:
    """Why a document cannot be stored; None if it can."""
    if isinstance(document, Spoiled):
        return document.why
    if not writable(document.id):
        return "its id is empty or cannot be written in UTF-8; give it another"
    if not isinstance(document.text, str):
        return f"its text is a {type(document.text).__name__}; give a string"
    if why := unfit(document.text):
        return why
    if document.image is not None and not (isinstance(document.image, Path) and writable(str(document.image))):
        return f"its image is {document.image!r:.60}; give a path that can be written in UTF-8"
    if not document.metadata:
        return None
    try:
        metadata = described(document)
    except (TypeError, ValueError) as error:
        return f"its metadata cannot be written as JSON: {error}; use strings"
    return f"metadata: {why}" if (why := unfit(metadata)) else None


def first_unkept(documents: Sequence[Document]) -> tuple[Document, str] | None:
    """The first that cannot be stored, and why; texts with neither image nor metadata are looked at all at once."""
    ids, texts = [d.id for d in documents], [d.text for d in documents]
    if {*map(type, documents)} == {Document} and {*map(type, ids), *map(type, texts)} == {str} and all(ids):
        short = max(map(len, ids + texts)) <= LONGEST_TEXT and sum(map(len, texts)) <= TOGETHER
        bare = not any(d.metadata or d.image is not None for d in documents)
        if short and bare and not ill_formed("".join(ids) + "".join(texts)):
            return None
    return next(((d, why) for d in documents if (why := unkept(d))), None)


def writable(id: object) -> bool:
    return isinstance(id, str) and bool(id) and not unfit(id)


def attempt(path: Path) -> Pixels | str:
    try:
        return load(path)
    except StoreError as error:
        return str(error)


def embed(batch: Batch, encoder: Encoder, what: str) -> Made:
    """Encode a batch: its texts in one call, its images in one call a size."""
    made, texts, images = Made(), dict[int, Document](), dict[int, Pixels]()
    loaded = {i: future.result() for i, future in batch.images.items()}
    for i, document in enumerate(batch.group.kept):
        chosen, pixels = sources(document, what), loaded.get(i)
        if why := unkept(document) or (pixels if isinstance(pixels, str) else None):
            made.refused.append((document, why))
        elif not chosen:
            made.refused.append((document, "it has neither text nor image; give it one"))
        else:
            made.kept.append((document, chosen))
            if "text" in chosen:
                texts[i] = document
            if "image" in chosen and isinstance(pixels, Tensor):
                images[i] = pixels
    by_text = encode_texts(encoder, texts)
    by_image = encode_images(encoder, dict(enumerate(batch.group.kept)), images)
    for i in sorted(set(texts) | set(images)):
        made.vectors += [rows[i] for rows in (by_text, by_image) if i in rows]
    return made


def encode_texts(encoder: Encoder, documents: Mapping[int, Document]) -> dict[int, Rows]:
    if not documents:
        return {}
    with torch.no_grad():
        return numbered(documents, encoder.encode_text([d.text for d in documents.values()]), encoder)


def encode_images(encoder: Encoder, documents: Mapping[int, Document], images: Mapping[int, Pixels]) -> dict[int, Rows]:
    """Images of one size share a call: resizing them here would part them from the way that queries go."""
    by_size: dict[tuple[int, ...], dict[int, Pixels]] = {}
    for i, pixels in images.items():
        by_size.setdefault(tuple(pixels.shape), {})[i] = pixels
    found: dict[int, Rows] = {}
    for same in by_size.values():
        with torch.no_grad():
            rows = encoder.encode_image(torch.cat(list(same.values())))
        found |= numbered({i: documents[i] for i in same}, rows, encoder)
    return found


def numbered(documents: Mapping[int, Document], rows: Tensor, encoder: Encoder) -> dict[int, Rows]:
    """The rows as float32 on the CPU, by number; SpecError unless they have the shape and unit length."""
    wanted = (len(documents), encoder.dimension)
    if tuple(rows.shape) != wanted:
        raise SpecError(f"{encoder!r} gave vectors of shape {tuple(rows.shape)}, not {wanted}; its dimension is wrong")
    made: Rows = rows.detach().to("cpu", torch.float32).numpy()
    if bad := not_unit(made, EXACT):
        document = list(documents.values())[bad[0]]
        raise SpecError(
            f"{encoder!r} gave a vector for {document.id!r} that {bad[1]}; check its weights, and that it normalises"
        )
    return dict(zip(documents, made, strict=True))
