"""Attention debiasing (2025, arXiv 2508.17807): a pruner that scores by attention, without its lean to late tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Pruner, Scored, Stage, Watched, top
from morgana.generation.pruning.fastv import FastV
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class Debiased:
    """Scores times w_j, which falls from 1 at an image's first token to `last` at its last: late tokens get attention
    for standing late.

    The paper fits w as a spline per method and data set, and names 0.36 for FastV at the last of 576; we fall
    exponentially. Its mask of padded patches has no use here, as processors crop.
    """

    pruner: Pruner = FastV()
    last: float = 0.36

    def __post_init__(self) -> None:
        if not isinstance(self.pruner, Scored):
            raise SpecError(f"{self.pruner!r} ranks by no score, so there is nothing to debias; use FastV or FasterVLM")
        if not 0 < self.last <= 1:
            raise SpecError(f"last={self.last} is no weight in (0, 1]")

    @property
    def keep(self) -> Keep:
        return self.pruner.keep

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return self.pruner.stages(depth)

    def watched(self, depth: int, eyes: int) -> Watched:
        return self.pruner.watched(depth, eyes)

    def scores(self, sight: Sight) -> Tensor:
        if not isinstance(self.pruner, Scored):
            raise SpecError(f"{self.pruner!r} ranks by no score")
        found = self.pruner.scores(sight)
        return found * torch.as_tensor(self.last, device=found.device) ** (sight.places / max(1, sight.eye.tokens - 1))

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
