"""What an explainer is asked: a heat map over an image's cells, for one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


class Explainer(Protocol):
    """Says which cells of the image an answer rests on."""

    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """(rows, columns), at least 0, larger where `text` rests more; `pixels` is one image (1, 3, H, W)."""
        ...


def square(cells: int) -> tuple[int, int]:
    """The grid of a square image's tokens. SpecError where they are no square."""
    side = round(cells**0.5)
    if side * side != cells:
        raise SpecError(f"{cells} visual tokens are no square grid; explain an image whose tokens are one")
    return side, side
