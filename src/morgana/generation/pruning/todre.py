"""ToDRE, stage 1 (2025, arXiv 2505.18757): the most diverse tokens."""

from __future__ import annotations

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked
from morgana.generation.selecting import cosine, farthest_first, max_sum
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class ToDRE:
    """`kcenter`: greedy k-center, always the token farthest from those chosen (version 1 of the paper). `maxsum`:
    from the token that CLS attends to most, always the one with the least summed cosine to those chosen (version
    2; needs CLS).

    Where version 1 begins is not published; we begin with the token least like the mean of all.
    """

    keep: Keep = 0.25
    spread: str = "kcenter"
    layer: int = -2  # of the vision tower, for the pivot of maxsum

    def __post_init__(self) -> None:
        checked(self.keep)
        if self.spread not in ("kcenter", "maxsum"):
            raise SpecError(f"spread={self.spread!r} is neither 'kcenter' nor 'maxsum'")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,) if self.spread == "maxsum" else ())

    def choose(self, sight: Sight, count: int) -> Choice:
        similarity = cosine(sight.states)
        if self.spread == "maxsum":
            return Choice(max_sum(similarity, count, int(sight.cls(self.layer).argmax())))
        return Choice(farthest_first(similarity, count, int(similarity.mean(1).argmin())))
