"""VFlowOpt (Yang et al., ICCV 2025, arXiv 2508.05211): keep what is attended to and rich, and recycle the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.merging import both, means
from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, even, top, weights
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class VFlowOpt:
    """Importance is the attention that a token receives in the last but one layer of the vision tower, scaled to [0,
    1], plus `weight` · its entropy, scaled alike. The best stay; the others are averaged by importance, run by run
    in reading order, into `recycled` of the budget, each at the place of its best member.

    From the paper's abstract: attention and entropy of patches give the importance, what is pruned is recycled, and the
    numbers are tuned per model on the last token's state, in several stages. Ours: one stage, the entropy of the
    embedding's softmax, the weights, and which tokens are averaged; nothing is tuned.
    """

    keep: Keep = 0.25
    recycled: float = 0.125  # of the budget
    weight: float = 0.5
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        weights(weight=self.weight)
        if not 0 <= self.recycled <= 1:
            raise SpecError(f"recycled={self.recycled} is no share in [0, 1]")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        log_p = sight.states.float().log_softmax(-1)
        return even(sight.received(self.layer)) + self.weight * even(-(log_p.exp() * log_p).sum(-1))

    def choose(self, sight: Sight, count: int) -> Choice:
        scores = self.scores(sight)
        groups = round(self.recycled * count)
        kept = top(scores, count - groups)
        if not groups:
            return kept
        rest = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        rest[kept.index] = False
        left = rest.nonzero().flatten()
        run = torch.arange(len(left), device=left.device) * groups // len(left)
        merged = means(sight.states[left], run, scores[left])
        return both(kept, Choice(left[merged.index], merged.states), sight.states)
