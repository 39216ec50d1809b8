"""Any encoder as LangChain embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from langchain_core import embeddings
from torch import Tensor

from morgana.corpus.images import load
from morgana.spec import parse
from morgana.types import Encoder, SpecError


class Embeddings(embeddings.Embeddings):
    """An encoder or its spec, `Embeddings("OpenCLIP('atlas')")`; unit vectors, `batch_size` texts at a time."""

    def __init__(self, encoder: Encoder | str, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise SpecError(f"batch_size={batch_size}; it must be at least 1")
        self.encoder: Encoder = parse(encoder) if isinstance(encoder, str) else encoder
        self.batch_size = batch_size
        if not hasattr(self.encoder, "encode_text"):
            raise SpecError(f"{encoder!r} is no encoder; `morgana list encoder` shows those there are")

    def __repr__(self) -> str:
        return f"Embeddings({self.encoder!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of `encoder.dimension` numbers a text."""
        found: list[list[float]] = []
        for start in range(0, len(texts), self.batch_size):
            with torch.no_grad():
                found += numbers(self.encoder.encode_text(texts[start : start + self.batch_size]))
        return found

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed_image(self, uris: Sequence[str | Path]) -> list[list[float]]:
        """One vector an image file, in the space of the texts'."""
        with torch.no_grad():
            return [numbers(self.encoder.encode_image(load(Path(uri))))[0] for uri in uris]


def numbers(rows: Tensor) -> list[list[float]]:
    found: list[list[float]] = rows.detach().to("cpu", torch.float32).tolist()
    return found
