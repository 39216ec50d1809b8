"""FastV (Chen et al., ECCV 2024, arXiv 2403.06764): inside the model, the tokens that the last token attends to."""

from __future__ import annotations

from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Stage, Watched, at, checked, top
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class FastV:
    """Before layer `layer`, the visual tokens with the most attention of the prompt's last token one layer earlier.

    Mean over heads. Layers before it see every token, so their cache keeps its length.
    """

    keep: Keep = 0.25
    layer: int | float = 2

    def __post_init__(self) -> None:
        checked(self.keep)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return (Stage(at(self.layer, depth), 1.0),)

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(text=(at(self.layer, depth) - 1,))

    def scores(self, sight: Sight) -> Tensor:
        return sight.attention(sight.layer - 1, sight.last, sight.tokens).mean((0, 1))

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
