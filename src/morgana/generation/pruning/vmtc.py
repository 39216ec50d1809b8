"""VMTC (2024, arXiv 2411.15453): the foreground as it is, the rest in weighted clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.merging import both, clusters, means
from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, top
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class VMTC:
    """`foreground` of the budget goes to the tokens that CLS attends to most. The others are clustered by cosine
    k-means and each cluster becomes the mean of its members, weighted by that attention, at the place of the
    heaviest.

    The share of the foreground and the clusters' start are not published; we start farthest-first. Needs a CLS token.
    """

    keep: Keep = 0.25
    foreground: float = 0.5  # of the budget
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        if not 0 <= self.foreground <= 1:
            raise SpecError(f"foreground={self.foreground} is no share in [0, 1]")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        return sight.cls(self.layer)

    def choose(self, sight: Sight, count: int) -> Choice:
        scores = self.scores(sight)
        kept = top(scores, round(self.foreground * count))
        if len(kept.index) == count:
            return kept
        rest = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        rest[kept.index] = False
        left = rest.nonzero().flatten()
        merged = means(sight.states[left], clusters(sight.states[left], count - len(kept.index)), scores[left])
        return both(kept, Choice(left[merged.index], merged.states), sight.states)
