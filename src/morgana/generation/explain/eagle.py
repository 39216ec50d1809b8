"""EAGLE (CVPR 2026): which regions are enough for the answer, and which it cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morgana.generation.faithfulness import GREY, probability, shown
from morgana.spec import part
from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


@part
class EAGLE:
    """Greedily adds the region with the largest enough · P(answer | kept) + need · (1 − P(answer | the rest)).

    The heat of a region falls with its turn, from 1 to 0. Regions are cells of a grid, where the paper cuts superpixels
    (SLICO, 64). Two passes for every candidate of every turn: dear, and blind to gradients.
    """

    side: int = 4  # regions a side
    enough: float = 1.0
    need: float = 1.0
    blank: float = GREY  # of what is hidden

    def __post_init__(self) -> None:
        if self.side < 1 or self.enough < 0 or self.need < 0:
            raise SpecError(f"{self!r}: side is at least 1, and enough and need at least 0")

    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        count = self.side**2
        kept, heat = torch.zeros(count, dtype=torch.bool), torch.zeros(count)
        for turn in range(count):
            left = (~kept).nonzero().flatten()
            trial = kept.repeat(len(left), 1)
            trial[torch.arange(len(left)), left] = True
            trial = trial.reshape(-1, self.side, self.side)
            images = torch.cat([shown(pixels, trial, self.blank), shown(pixels, ~trial, self.blank)])
            here, rest = torch.split(probability(generator, images, query, hits, text), len(left))
            best = left[int((self.enough * here + self.need * (1 - rest)).argmax())]
            kept[best] = True
            heat[best] = 1 - turn / count
        return heat.reshape(self.side, self.side)
