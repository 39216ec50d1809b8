"""LangChain's embeddings as an encoder of Morgana's, so that an index can be built by them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from langchain_core import embeddings
from torch import nn

from morgana.interop.langchain.embeddings import Embeddings
from morgana.spec import parse
from morgana.types import Embeddings as Vectors
from morgana.types import Encoder, Pixels, SpecError

PROBE = "A harbour with 3 red boats, seen under thin cloud."


@dataclass(frozen=True, repr=False)
class Foreign:
    """Texts only, in the way that documents are embedded; rows are made unit length.

    Its name holds the class alone, as settings may hold secrets; what tells two apart is the vector of a probe text.
    """

    inner: embeddings.Embeddings

    def __repr__(self) -> str:
        return f"Foreign({type(self.inner).__module__}.{type(self.inner).__qualname__})"

    @cached_property
    def _probe(self) -> list[float]:
        return self.inner.embed_documents([PROBE])[0]

    @property
    def dimension(self) -> int:
        return len(self._probe)

    @property
    def image_size(self) -> int:
        """0: there is no image tower."""
        return 0

    @property
    def fingerprint(self) -> str:
        rounded = [round(value, 3) for value in self._probe]  # a service's last digits may waver
        return hashlib.blake2b(repr((repr(self), rounded)).encode(), digest_size=16).hexdigest()

    def encode_image(self, pixels: Pixels) -> Vectors:
        raise SpecError(f"{self!r} embeds text only and got images; use Embeddings(encoder) with an encoder of images")

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        rows = torch.tensor(self.inner.embed_documents(list(texts)), dtype=torch.float32)
        return nn.functional.normalize(rows.reshape(len(texts), self.dimension), dim=1)


def encoder_of(given: Any) -> Encoder:
    """The encoder that embeddings stand for: Morgana's own, its spec, or one around LangChain's embeddings."""
    if isinstance(given, Embeddings):
        return given.encoder
    if isinstance(given, embeddings.Embeddings):
        return Foreign(given)
    found: Encoder = parse(given) if isinstance(given, str) else given
    if not hasattr(found, "encode_text"):
        raise SpecError(f"{given!r} embeds nothing; give an encoder, its spec, or LangChain embeddings")
    return found
