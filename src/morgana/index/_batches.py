"""What of each document is embedded, and the vectors of one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from morgana.corpus.images import load
from morgana.files import unfit
from morgana.index.kinds import Rows
from morgana.types import Document, Encoder, Pixels, SpecError, StoreError

EMBED = ("text", "image", "both")
AHEAD = 2  # batches that are decoded while one is encoded


@dataclass(frozen=True)
class Batch:
    """Some documents, with their images on the way: pixels, or why there are none."""

    documents: tuple[Document, ...]
    images: Mapping[int, Future[Pixels | str]]


@dataclass
class Made:
    """What became of a batch: kept documents with the sources of their vectors, and the others with the reason."""

    kept: list[tuple[Document, tuple[str, ...]]] = field(default_factory=list)
    vectors: list[Rows] = field(default_factory=list)  # one row a source, in the order of `kept`
    refused: list[tuple[Document, str]] = field(default_factory=list)


def sources(document: Document, embed: str) -> tuple[str, ...]:
    """What is embedded: `embed` where the document has it, else what it has; nothing for an empty document."""
    has = tuple(s for s, there in (("text", document.text.strip()), ("image", document.image)) if there)
    return (embed,) if embed in has else has


def groups(documents: Iterable[Document], size: int) -> Iterator[tuple[Document, ...]]:
    rest = iter(documents)
    while group := tuple(islice(rest, size)):
        yield group


def ahead(groups: Iterable[tuple[Document, ...]], embed: str, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """Batches in order, their images decoded by the pool while earlier batches are worked on."""
    waiting: deque[Batch] = deque()
    for group in groups:
        wanted = {i: d.image for i, d in enumerate(group) if "image" in sources(d, embed) and not unfit(d.text)}
        waiting.append(Batch(group, {i: pool.submit(attempt, path) for i, path in wanted.items() if path}))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def attempt(path: Path) -> Pixels | str:
    try:
        return load(path)
    except StoreError as error:
        return str(error)


def embed(batch: Batch, encoder: Encoder, what: str) -> Made:
    """Encode a batch: its texts in one call, its images in one call a size."""
    made, texts, images = Made(), {}, {}
    loaded = {i: future.result() for i, future in batch.images.items()}
    for i, document in enumerate(batch.documents):
        chosen, pixels = sources(document, what), loaded.get(i)
        if why := unfit(document.text) or (pixels if isinstance(pixels, str) else None):
            made.refused.append((document, why))
        elif not chosen:
            made.refused.append((document, "it has neither text nor image; give it one"))
        else:
            made.kept.append((document, chosen))
            if "text" in chosen:
                texts[i] = document.text
            if "image" in chosen and isinstance(pixels, Tensor):
                images[i] = pixels
    by_text, by_image = encode_texts(encoder, texts), encode_images(encoder, images)
    for i in sorted(set(texts) | set(images)):
        made.vectors += [rows[i] for rows in (by_text, by_image) if i in rows]
    return made


def encode_texts(encoder: Encoder, texts: Mapping[int, str]) -> dict[int, Rows]:
    if not texts:
        return {}
    with torch.no_grad():
        return numbered(texts, encoder.encode_text(list(texts.values())), encoder)


def encode_images(encoder: Encoder, images: Mapping[int, Pixels]) -> dict[int, Rows]:
    """Images of one size share a call: resizing them here would part them from the way that queries go."""
    by_size: dict[tuple[int, ...], dict[int, Pixels]] = {}
    for i, pixels in images.items():
        by_size.setdefault(tuple(pixels.shape), {})[i] = pixels
    found: dict[int, Rows] = {}
    for same in by_size.values():
        with torch.no_grad():
            found |= numbered(same, encoder.encode_image(torch.cat(list(same.values()))), encoder)
    return found


def numbered(keys: Iterable[int], rows: Tensor, encoder: Encoder) -> dict[int, Rows]:
    keys = list(keys)
    return dict(zip(keys, units(rows, (len(keys), encoder.dimension), encoder), strict=True))


def units(rows: Tensor, shape: Sequence[int], encoder: Encoder) -> Rows:
    """The rows as float32 on the CPU; SpecError unless they have the shape and unit length."""
    if tuple(rows.shape) != tuple(shape):
        raise SpecError(
            f"{encoder!r} gave vectors of shape {tuple(rows.shape)}, not {tuple(shape)}; its dimension is wrong"
        )
    made: Rows = rows.detach().to("cpu", torch.float32).numpy()
    if why := not_unit(made):
        raise SpecError(f"{encoder!r} gave vectors that {why}; check its weights, and that it normalises")
    return made


def not_unit(rows: Rows) -> str | None:
    """Why rows are no unit vectors (NaN, infinite, other lengths); None if they are."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    if not np.isfinite(lengths).all():
        return f"hold NaN or infinity, first in row {int(np.flatnonzero(~np.isfinite(lengths))[0])}"
    off = np.flatnonzero(np.abs(lengths - 1) > 1e-3)
    return (
        f"are not of unit length, first row {int(off[0])} of length {float(lengths[off[0]]):.4g}" if len(off) else None
    )
