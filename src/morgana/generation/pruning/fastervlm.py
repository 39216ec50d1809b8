"""FasterVLM (Zhang et al., 2024, arXiv 2412.01818): the tokens that CLS attends to."""

from __future__ import annotations

from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, top
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class FasterVLM:
    """Attention of CLS to each patch in the last but one layer of the ViT, mean over heads; the best stay in order.

    Needs a vision tower with a CLS token.
    """

    keep: Keep = 0.25
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        return sight.cls(self.layer)

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
