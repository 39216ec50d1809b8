"""Honest toys: small real parts with the protocols of the big ones, on torch, offline and in milliseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from morgana.generation.pruner import Choice, Stage, Watched
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.spec import part
from morgana.types import Answer, Embeddings, Hits, Pixels, Query


@part
class ConvEncoder:
    """An encoder with a real convolution and a real linear layer on random, fixed weights; hashed text."""

    dimension: int = 8
    image_size: int = 8
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        return repr(self)

    @cached_property
    def tower(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            layers = nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.LazyLinear(self.dimension)
            )
            layers(torch.zeros(1, 3, self.image_size, self.image_size))
        return layers.eval()

    def encode_image(self, pixels: Pixels) -> Embeddings:
        size = (self.image_size, self.image_size)
        resized = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        return nn.functional.normalize(self.tower(resized - 0.5), dim=1)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        return HashEncoder(self.dimension).encode_text(texts)


@dataclass(frozen=True)
class FakeGenerator:
    """A generator that answers each image by a function of its pixels, and remembers how many it got per call."""

    answer: Callable[[Pixels], str]
    calls: list[int] = field(default_factory=list)

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        pixels: list[Pixels | None] = [None] * len(queries)
        return [Answer(t, h) for t, h in zip(self.generate(pixels, queries, hits), hits, strict=True)]

    def generate(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        self.calls.append(len(pixels))
        assert all(p is None or p.shape[:2] == (1, 3) for p in pixels)
        assert len(pixels) == len(queries) == len(hits)
        return ["no image" if p is None else self.answer(p) for p in pixels]

    def loss(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """A bent function of the pixels, so that the mean over noise is not the value at the mean."""
        return pixels.square().mean(dim=(1, 2, 3)) + len(text)


def wavering(right: str, wrong: str, probability: float) -> Callable[[Pixels], str]:
    """Answers `right` to a share `probability` of all images, drawn by a hash of the pixels."""

    def answer(pixels: Pixels) -> str:
        digest = hashlib.blake2b(pixels.detach().numpy().tobytes(), digest_size=8).digest()
        return right if int.from_bytes(digest, "big") / 2**64 < probability else wrong

    return answer


def brittle(pixels: Pixels) -> str:
    """Obeys a pattern hidden in the lowest bit of nine pixels in ten: a checkerboard one grey level high."""
    levels = (pixels * 255).round()
    found = float((levels % 2 == checkerboard(pixels)).float().mean())
    return "obeyed" if found > 0.9 else "a harbour"


def checkerboard(pixels: Pixels) -> Tensor:
    height, width = pixels.shape[-2:]
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2


@dataclass(frozen=True)
class Kept:
    """A pruner that keeps the named tokens, of those that are left, from a layer on."""

    index: tuple[int, ...]
    layer: int = 0
    keep: int = 0

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return (Stage(self.layer, 1.0),)

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched()

    def choose(self, sight: object, count: int) -> Choice:
        return Choice(torch.tensor(self.index))
