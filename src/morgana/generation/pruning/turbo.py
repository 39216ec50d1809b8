"""Turbo (Ju et al., ECCV 2024, arXiv 2407.11717): merge what is redundant and says little."""

from __future__ import annotations

from torch import Tensor

from morgana.generation.merging import bipartite
from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, even, weights
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class Turbo:
    """Bipartite merging as in AIMMerge, of the pairs with the largest E = R − alpha · A: R their cosine (mutual
    redundancy), A the semantic value of the token that would go, attention of CLS scaled to [0, 1].

    The paper, known to us second-hand, merges inside the vision tower, a few pairs a layer; here it merges what the
    tower made, to a budget. R and A are its two terms; `alpha`, the scaling and the layer are our choice.
    Needs a CLS token.
    """

    keep: Keep = 0.25
    alpha: float = 1.0
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        weights(alpha=self.alpha)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        return even(sight.cls(self.layer))

    def choose(self, sight: Sight, count: int) -> Choice:
        return bipartite(sight.states, count, self.alpha * self.scores(sight))
