"""AdaptInfer (2025, arXiv 2508.06084): words that words attend to say which visual tokens matter."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Stage, Watched, asked, at, checked, top
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class AdaptInfer:
    """Score of a visual token: Σ_t w_t A(t → v) one layer earlier, w_t the attention that word t of the question
    receives from the words after the image, scaled to sum 1; mean over heads.

    The paper prunes where cross-modal attention shifts, found offline for each model; we take 1/16, 5/16 and 5/8 of
    the depth, and 60, 90 and 100 % of what goes is gone by then. The paper is known to us second-hand: the weights are
    its idea, the formula is our reading.
    """

    keep: Keep = 0.25
    layers: tuple[float, ...] = (0.0625, 0.3125, 0.625)  # of the language model's depth
    done: tuple[float, ...] = (0.6, 0.9, 1.0)

    def __post_init__(self) -> None:
        checked(self.keep)
        rising = all(before <= after for before, after in pairwise((0.0, *self.done)))
        if len(self.layers) != len(self.done) or not self.done or not rising or self.done[-1] != 1:
            raise SpecError(f"layers={self.layers} and done={self.done} must be as long, and done must rise to 1")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return tuple(Stage(at(layer, depth), done) for layer, done in zip(self.layers, self.done, strict=True))

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(text=tuple(stage.layer - 1 for stage in self.stages(depth)))

    def scores(self, sight: Sight) -> Tensor:
        question = asked(sight)
        weight = sight.attention(sight.layer - 1, sight.behind, question).mean(0).sum(0)
        weight = weight / weight.sum().clamp(min=1e-12)
        return weight @ sight.attention(sight.layer - 1, question, sight.tokens).mean(0)

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
