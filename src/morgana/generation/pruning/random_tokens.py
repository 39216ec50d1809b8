"""Tokens by lot: the floor that every pruner must beat."""

from __future__ import annotations

import torch

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, top
from morgana.generation.sight import Sight
from morgana.seeds import derive
from morgana.spec import part


@part
class RandomTokens:
    """Tokens by lot, the same for equal seeds and sizes, before the language model."""

    keep: Keep = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        checked(self.keep)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched()

    def choose(self, sight: Sight, count: int) -> Choice:
        lot = torch.Generator().manual_seed(derive(self.seed, "pruner", len(sight.tokens), sight.number))
        return top(torch.rand(len(sight.tokens), generator=lot).to(sight.states.device), count)
