"""AIM, pruning (Zhong et al., ICCV 2025, arXiv 2412.03248): PageRank among visual tokens, ever fewer of them by
layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Stage, Watched, at, checked, heats, top
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class AIMPrune:
    """Before each layer from `first` to `last` of the depth the number of visual tokens falls evenly to `keep`.
    Importance is PageRank: five steps from the uniform vector through softmax(logits / 0.1) among the image's
    tokens of the layer before, logits being root-mean-square over heads.

    The paper goes down to none over layers 14 to 21 of 28 and hides tokens by a mask; here they are gone. How it
    treats signs in that mean is unclear; we take it of the logits as they are.
    """

    keep: Keep = 0.25
    first: float = 0.5
    last: float = 0.75
    heat: float = 0.1
    steps: int = 5

    def __post_init__(self) -> None:
        checked(self.keep)
        heats(heat=self.heat)
        if self.steps < 1:
            raise SpecError(f"steps={self.steps} must be at least 1")
        if type(self.first) is type(self.last) and not self.first <= self.last:
            raise SpecError(f"first={self.first} comes behind last={self.last}; give the earlier layer first")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        a, z = at(self.first, depth), at(self.last, depth)
        if a > z:
            raise SpecError(f"first={self.first} is layer {a} of {depth}, behind last={self.last}, which is layer {z}")
        return tuple(Stage(i, (i - a + 1) / (z - a + 1)) for i in range(a, z + 1))

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(text=tuple(stage.layer - 1 for stage in self.stages(depth)))

    def scores(self, sight: Sight) -> Tensor:
        logits = sight.logits(sight.layer - 1, sight.tokens, sight.tokens)
        walk = (logits.square().mean(0).clamp(min=1e-12).sqrt() / self.heat).softmax(-1)
        rank = torch.full_like(walk[0], 1 / len(walk))
        for _ in range(self.steps):
            rank = rank @ walk
        return rank

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
