"""Is a heat map true? Insertion and deletion curves: what the answer's probability does as its cells come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF

GREY = 127 / 255  # what is hidden; at 0.5, which normalises to 0, Idefics3 takes a tile for padding and drops it


class Curves(NamedTuple):
    """Probabilities of the answer, (steps + 1,) each, and the areas under them in [0, 1].

    Insertion begins with the blank image and shows the hottest cells first: a true map rises early. Deletion begins
    with the whole image and blanks them first: a true map falls early.
    """

    insertion: Tensor
    deletion: Tensor

    @property
    def inserted(self) -> float:
        return area(self.insertion)

    @property
    def deleted(self) -> float:
        return area(self.deletion)


def area(curve: Tensor) -> float:
    """Under a curve over [0, 1], by trapezia.

    >>> area(torch.tensor([0.0, 1.0]))
    0.5
    """
    return float(torch.trapezoid(curve.double(), dx=1 / (len(curve) - 1)))


@torch.no_grad()
def probability(generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str, batch: int = 16) -> Tensor:
    """(B,) probability of `text` as the answer, the geometric mean over its tokens."""
    return torch.cat([(-generator.loss(part, query, hits, text)).exp().cpu() for part in torch.split(pixels, batch)])


def shown(pixels: Pixels, cells: Tensor, blank: float) -> Pixels:
    """The image (1, 3, H, W) with only some cells, masks (B, rows, columns) of bool; the rest is grey `blank`."""
    mask = torch.nn.functional.interpolate(cells[:, None].to(pixels), size=pixels.shape[-2:], mode="nearest")
    return pixels * mask + blank * (1 - mask)


def curves(
    generator: HF,
    pixels: Pixels,
    query: Query,
    hits: Hits,
    text: str,
    heat: Tensor,
    steps: int = 12,
    blank: float = GREY,
) -> Curves:
    """Both curves of a heat map (rows, columns); cells of equal heat go in reading order."""
    if heat.ndim != 2 or not torch.isfinite(heat).all():
        raise SpecError(f"a heat map of shape {tuple(heat.shape)}; wanted (rows, columns) of finite numbers")
    steps = min(steps, heat.numel())
    rank = torch.empty(heat.numel(), dtype=torch.long)
    rank[heat.flatten().cpu().argsort(descending=True, stable=True)] = torch.arange(heat.numel())
    counts = torch.linspace(0, heat.numel(), steps + 1).round()
    first = (rank[None] < counts[:, None]).reshape(-1, *heat.shape)
    found = probability(
        generator, torch.cat([shown(pixels, first, blank), shown(pixels, ~first, blank)]), query, hits, text
    )
    return Curves(*torch.split(found, steps + 1))
