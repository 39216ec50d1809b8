"""IDPruner (2026): importance and diversity by maximal marginal relevance."""

from __future__ import annotations

from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, even
from morgana.generation.selecting import cosine, marginal
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class IDPruner:
    """Greedily balance · importance − (1 − balance) · cosine to the nearest chosen; the first is the most important.

    The paper's importance is a *trained* scorer. This one is training-free: attention that a token receives in the last
    but one layer of the vision tower, scaled to [0, 1]. Do not compare it with the paper's figures.
    """

    keep: Keep = 0.25
    balance: float = 0.5
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        if not 0 <= self.balance <= 1:
            raise SpecError(f"balance={self.balance} is not in [0, 1]")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        return even(sight.received(self.layer))

    def choose(self, sight: Sight, count: int) -> Choice:
        return Choice(marginal(self.scores(sight), cosine(sight.states), count, self.balance))
