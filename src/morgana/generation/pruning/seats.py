"""SEATS, its image part (2026, arXiv 2605.20035): diverse before, relevant inside, and none late in the model."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Stage, Watched, asked, at, checked, even, top
from morgana.generation.selecting import cosine, grown
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class SEATS:
    """Before the model, greedy max-sum diversity weighted by the attention that tokens receive in the vision tower,
    until 70 % of what goes is gone; before 1/4 and 1/2 of the depth, the tokens that the question attends to most,
    down to `keep`; before 7/8, every visual token goes.

    Written for video and sound, and known to us second-hand; this is what concerns one image. The three steps are the
    paper's; weights and schedule are our choice: gain is attention, scaled to [0, 1], · (1 − mean cosine to those
    chosen).
    """

    keep: Keep = 0.25
    layer: int = -2  # of the vision tower
    late: float = 0.875  # of the language model's depth

    def __post_init__(self) -> None:
        checked(self.keep)
        if isinstance(self.late, float) and not 0.5 < self.late < 1:
            raise SpecError(f"late={self.late} is not in (0.5, 1): `keep` tokens are left from half the depth to there")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        middle = [at(layer, depth) for layer in (0.25, 0.5)]
        last = at(self.late, depth)
        if last <= middle[-1]:
            raise SpecError(
                f"late={self.late} is layer {last} of {depth}, and `keep` tokens are left from layer {middle[-1]} on; "
                "give a later one, or no layer sees them"
            )
        return Stage(0, 0.7), Stage(middle[0], 0.85), Stage(middle[1], 1.0), Stage(last, 2.0)

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,), text=tuple(stage.layer - 1 for stage in self.stages(depth)[1:3]))

    def scores(self, sight: Sight) -> Tensor:
        if not sight.layer:
            return even(sight.received(self.layer))
        return sight.attention(sight.layer - 1, asked(sight), sight.tokens).mean((0, 1))

    def choose(self, sight: Sight, count: int) -> Choice:
        scores = self.scores(sight)
        if sight.layer:
            return top(scores, count)
        value = scores.detach().cpu().numpy()
        return Choice(
            grown(cosine(sight.states), count, int(value.argmax()), np.add, lambda total, n: value * (1 - total / n))
        )
