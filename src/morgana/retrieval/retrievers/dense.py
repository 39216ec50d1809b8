"""Dense retrieval: the query's embedding against an index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from morgana.corpus.images import load_ahead
from morgana.files import unfit
from morgana.index import Index, Where
from morgana.spec import part
from morgana.types import Embeddings, Encoder, Hits, Pixels, Query, SpecError


@part
class Dense:
    """The k best documents of the index folder `index` by cosine.

    A query with an image is embedded by its image, else by its text. Without an `encoder`, the one that built the index
    is built from its name. Queries are taken `batch_size` at a time, images of one size together, and the next images
    are decoded while the encoder works. `where` is a filter by metadata, `year >= 1980 and operator != "x"`; `source`
    searches the vectors of `text` or of `image` only.
    """

    index: str
    encoder: Encoder | None = None
    batch_size: int = 64
    where: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.where:
            Where(self.where)  # or a SpecError
        if self.source not in ("", "text", "image"):
            raise SpecError(f"source={self.source!r}; search the vectors of 'text' or 'image', or all with ''")
        if self.batch_size < 1:
            raise SpecError(f"batch_size={self.batch_size}; it must be at least 1")

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]:
        found: list[Hits] = []
        for start in range(0, len(queries), self.batch_size):
            vectors = self.embed(queries[start : start + self.batch_size])
            found += self.opened.search(vectors, k, where=self.where or None, source=self.source or None)
        return found

    def embed(self, queries: Sequence[Query]) -> Embeddings:
        """(B, D) unit rows, without gradients."""
        rows: dict[int, Tensor] = {}
        images = {i: query.image for i, query in enumerate(queries) if query.image is not None}
        texts = {i: asked(query) for i, query in enumerate(queries) if i not in images}
        places = iter(images)
        with torch.no_grad():
            for part in load_ahead(list(images.values())):
                by_size: dict[torch.Size, dict[int, Pixels]] = {}
                for pixels in part:
                    by_size.setdefault(pixels.shape, {})[next(places)] = pixels
                for same in by_size.values():
                    rows |= dict(zip(same, self.by.encode_image(torch.cat(list(same.values()))), strict=True))
            if texts:
                rows |= dict(zip(texts, self.by.encode_text(list(texts.values())), strict=True))
        return torch.stack([rows[i] for i in range(len(queries))])

    @cached_property
    def opened(self) -> Index:
        """The index, checked against the encoder."""
        return Index.open(Path(self.index), self.encoder)

    @cached_property
    def by(self) -> Encoder:
        return self.opened.encoder if self.encoder is None else self.encoder


def asked(query: Query) -> str:
    """The text of a query without an image; SpecError if it is empty or cannot be asked."""
    if not query.text.strip():
        raise SpecError(f"the query {query.id!r} has neither an image nor a text; give it one")
    if why := unfit(query.text):
        raise SpecError(f"the query {query.id!r}: {why}")
    return query.text
