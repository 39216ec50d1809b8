"""AIM, merging (Zhong et al., ICCV 2025, arXiv 2412.03248): similar tokens become one, before the model."""

from __future__ import annotations

from morgana.generation.merging import bipartite
from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class AIMMerge:
    """Bipartite merging by cosine, again and again (ToMe), until the budget is met: a token is the mean of what it
    joined.

    A merged token stands at the place, and so has the position, of the odd one of the last pair.
    """

    keep: Keep = 0.25

    def __post_init__(self) -> None:
        checked(self.keep)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched()

    def choose(self, sight: Sight, count: int) -> Choice:
        return bipartite(sight.states, count)
