"""VTC-CLS (Wang et al., 2024, arXiv 2412.05819): attention of CLS, summed over layers of the vision tower."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, top
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class VTCCLS:
    """Σ over layers `first` … -2 of the attention of CLS to each patch, mean over heads; the best stay in order.

    The paper's code takes the first layer as an argument; we start in the middle of the tower. Needs a CLS token.
    """

    keep: Keep = 0.25
    first: float = 0.5  # of the vision tower's depth

    def __post_init__(self) -> None:
        checked(self.keep)
        if not 0 <= self.first < 1:
            raise SpecError(f"first={self.first} is no share of the depth in [0, 1)")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=self.layers(eyes))

    def layers(self, eyes: int) -> tuple[int, ...]:
        return tuple(range(min(int(self.first * eyes), max(0, eyes - 2)), max(1, eyes - 1)))

    def scores(self, sight: Sight) -> Tensor:
        return torch.stack([sight.cls(i) for i in self.layers(sight.eye.depth)]).sum(0)

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
