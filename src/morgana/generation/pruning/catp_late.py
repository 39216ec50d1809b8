"""CATP, stage 2 (AAAI 2026, arXiv 2508.07871): tokens that the question comes to look at, one budget for all images."""

from __future__ import annotations

from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Stage, Watched, asked, at, checked, top, weights
from morgana.generation.selecting import cosine
from morgana.generation.sharing import together
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class CATPLate:
    """Before layer `layer` + 1: relu(A_K − A_{K−1}) of the prompt's last token, mean over heads and scaled to sum 1,
    plus `weight` · cosine of the token's state with the mean state of the question, scaled to [0, 1].

    The budget goes to the best tokens of all images together. The paper's K is 6 of 32 layers; ours a share. Left out
    is its last step, pruning the query image by cosine with the mean of the pruned context: a prompt of ours does not
    say which of its images are context.
    """

    keep: Keep = 0.25
    layer: float = 0.1875  # K, of the language model's depth
    weight: float = 0.6

    def __post_init__(self) -> None:
        checked(self.keep)
        weights(weight=self.weight)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return (Stage(max(2, at(self.layer, depth) + 1), 1.0),)

    def watched(self, depth: int, eyes: int) -> Watched:
        last = max(2, at(self.layer, depth) + 1)
        return Watched(text=(last - 2, last - 1))

    def scores(self, sight: Sight) -> Tensor:
        now, before = (sight.attention(sight.layer - i, sight.last, sight.tokens).mean((0, 1)) for i in (1, 2))
        risen = (now - before).relu()
        close = cosine(sight.states, sight.of(asked(sight)).mean(0, keepdim=True))[:, 0]
        return risen / risen.sum().clamp(min=1e-12) + self.weight * (1 + close) / 2

    def share(self, sights: tuple[Sight, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
        return together([self.scores(sight) for sight in sights], sum(counts))

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
