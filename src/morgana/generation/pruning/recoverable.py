"""Recoverable Compression (Chen et al., AAAI 2025, arXiv 2409.01179): what CLS sees, what the text asks for, and the
rest in clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.merging import both, means, peaks
from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, asked, checked, top
from morgana.generation.selecting import cosine
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class Recoverable:
    """Half of the budget goes to the tokens that CLS attends to most, a quarter recovers those of the rest that are
    most like a word of the question, and the remaining tokens are merged around density peaks into the last
    quarter.

    From the paper's abstract and reviews: the three steps. It finds the first two numbers by a threshold per image; a
    fixed budget needs fixed shares, so we set them. Ours too: attention where it takes products with CLS, the largest
    cosine with the question's embeddings, density peaks, and the weights of the mean. Needs a CLS token.
    """

    keep: Keep = 0.25
    seen: float = 0.5  # of the budget
    recovered: float = 0.25
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        if not (self.seen >= 0 and self.recovered >= 0 and self.seen + self.recovered <= 1):
            raise SpecError(f"seen={self.seen} and recovered={self.recovered} are no shares of one budget")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        return sight.cls(self.layer)

    def choose(self, sight: Sight, count: int) -> Choice:
        first = min(count, round(self.seen * count))
        second = min(count - first, round(self.recovered * count))
        chosen = top(self.scores(sight), first).index
        alike = cosine(sight.states, sight.of(asked(sight))).amax(1).detach().clone()
        alike[chosen] = float("-inf")
        chosen = torch.cat([chosen, top(alike, second).index]).sort().values
        if not (groups := count - first - second):
            return Choice(chosen)
        rest = torch.ones(len(sight.tokens), dtype=torch.bool, device=chosen.device)
        rest[chosen] = False
        left = rest.nonzero().flatten()
        merged = means(sight.states[left], peaks(sight.states[left], groups), self.scores(sight)[left])
        return both(Choice(chosen), Choice(left[merged.index], merged.states), sight.states)
