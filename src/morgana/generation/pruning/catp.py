"""CATP, stage 1 (AAAI 2026, arXiv 2508.07871): diverse tokens that are also close to the text, for prompts of many
images.
"""

from __future__ import annotations

from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, asked, checked, weights
from morgana.generation.selecting import cosine, cover
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class CATP:
    """Greedy maximum of Σ_i max_{j chosen} s_ij + weight · Σ_{j chosen} t_j: facility location over the image's tokens,
    cosines scaled to [0, 1], and t_j the cosine of a token with the mean word of the question, scaled alike.

    Each image is covered by itself, as the paper does it over several images in context. Pair it with CATPLate.
    """

    keep: Keep = 0.25
    weight: float = 0.7

    def __post_init__(self) -> None:
        checked(self.keep)
        weights(weight=self.weight)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched()

    def scores(self, sight: Sight) -> Tensor:
        """(n,) how close each token is to the text, in [0, 1]."""
        return (1 + cosine(sight.states, sight.of(asked(sight)).mean(0, keepdim=True))[:, 0]) / 2

    def choose(self, sight: Sight, count: int) -> Choice:
        return Choice(cover((1 + cosine(sight.states)) / 2, count, self.weight * self.scores(sight)))
