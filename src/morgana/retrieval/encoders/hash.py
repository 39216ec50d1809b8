"""A text encoder without weights: hashed words and character n-grams."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from morgana.spec import part
from morgana.types import Embeddings, Pixels, SpecError

VERSION = 1  # raise it when the vectors change
START, END = "\x02", "\x03"  # so that a text has a first and a last n-gram, and an empty one has any


@part
class HashEncoder:
    """Words and character 3- to 5-grams, log-weighted counts, each added to one signed slot of `dimension`.

    The vector depends on the text alone: no vocabulary, no document frequencies, no batch. So it is
    deterministic, offline and equal on every machine, and sees spelling rather than meaning. Case and spacing
    are ignored; the empty text has a vector of its own. It embeds text only: `encode_image` raises SpecError.
    """

    dimension: int = 1024
    shortest: int = 3  # of the character n-grams
    longest: int = 5

    def __post_init__(self) -> None:
        if self.dimension < 1 or not 1 <= self.shortest <= self.longest:
            raise SpecError(f"{self!r} wants dimension >= 1 and 1 <= shortest <= longest")

    @property
    def image_size(self) -> int:
        """0: there is no image tower."""
        return 0

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(f"{self!r} {VERSION}".encode(), digest_size=16).hexdigest()

    def encode_image(self, pixels: Pixels) -> Embeddings:
        raise SpecError(f"{self!r} embeds text only and got images; use OpenCLIP(...) where images are embedded")

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        """(B, dimension) float32 on the CPU, rows of unit length."""
        vectors = torch.zeros(len(texts), self.dimension)
        for row, text in zip(vectors, texts, strict=True):
            slots: dict[int, float] = {}
            for gram, count in Counter(self.grams(text)).items():
                slot, sign = place(gram, self.dimension)
                slots[slot] = slots.get(slot, 0.0) + sign * (1 + math.log(count))
            row[list(slots)] = torch.tensor(list(slots.values()))
            if not row.any():  # every gram met its opposite, as can happen in few dimensions
                row[place(text, self.dimension)[0]] = 1.0
        return torch.nn.functional.normalize(vectors, dim=1)

    def grams(self, text: str) -> Iterator[str]:
        words = text.lower().split()
        line = START + " ".join(words) + END
        yield from (f"{START}{word}{END}" for word in words)
        yield line[:2]
        for size in range(self.shortest, self.longest + 1):
            yield from (line[i : i + size] for i in range(len(line) - size + 1))


@lru_cache(maxsize=1 << 16)
def place(gram: str, dimension: int) -> tuple[int, int]:
    """The slot of a gram and its sign."""
    number = int.from_bytes(hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return (number >> 1) % dimension, 1 if number & 1 else -1
