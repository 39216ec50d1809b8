"""A reader that is shown no image: what a system says from the text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from morgana.spec import part
from morgana.types import Answer, Generator, Hits, Pixels, Query, SpecError


@part
class Blind:
    """The generator without any image: its answers are guesses and what it reads, one side of `TextPreference`."""

    generator: Generator

    @property
    def fingerprint(self) -> str | None:
        """That of the generator's weights, if it has one."""
        return getattr(self.generator, "fingerprint", None)

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        return self.generator([replace(query, image=None) for query in queries], hits)

    def generate(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        return self.generator.generate([None] * len(pixels), queries, hits)

    def loss(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        raise SpecError(f"{self!r} sees no image, so nothing in an image moves its answer; attack what it wraps")
