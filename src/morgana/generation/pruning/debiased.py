"""Attention debiasing (2025, arXiv 2508.17807): a pruner that scores by attention, without its lean to late tokens."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from morgana.generation.pruner import (
    Choice,
    Conditional,
    Keep,
    Narrowing,
    Pruner,
    Scored,
    Sharing,
    Stage,
    Watched,
    known,
)
from morgana.generation.pruning.fastv import FastV
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError

DEEP = 1000  # layers: no layer that a pruner names lies outside


@part
class Debiased:
    """Scores times w_j, which falls from 1 at an image's first token to `last` at its last: late tokens get attention
    for standing late. In all else it is the pruner that it wraps, which must score tokens by attention.

    What a pruner reads beside its scores is not weighted: HiPrune's anchors, the shares of HiRED and GlobalCom, what
    FlowCut closes. The paper fits w as a spline per method and data set, and names 0.36 for FastV at the last of 576;
    we fall exponentially. Its mask of padded patches, and its cap at the others, are left out, as processors crop.
    """

    pruner: Pruner = FastV()
    last: float = 0.36

    def __post_init__(self) -> None:
        read = known(self.pruner).watched(DEEP, DEEP)
        if not isinstance(self.pruner, Scored) or not (read.vision or read.text):
            raise SpecError(
                f"{self.pruner!r} ranks by no score of attention, so there is nothing to debias; use one that does "
                "(FastV, FasterVLM, FoPru, VisionDrop)"
            )
        if not 0 < self.last <= 1:
            raise SpecError(f"last={self.last} is no weight in (0, 1]")
        if isinstance(self.pruner, Narrowing):  # only then does the seam act inside the vision tower
            object.__setattr__(self, "narrow", self.pruner.narrow)

    @property
    def keep(self) -> Keep:
        return self.pruner.keep

    @property
    def host(self) -> Pruner:
        """The pruner, with weighted scores wherever it asks itself for them."""
        made = copy(self.pruner)
        object.__setattr__(made, "scores", self.scores)
        return made

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return self.pruner.stages(depth)

    def watched(self, depth: int, eyes: int) -> Watched:
        return self.pruner.watched(depth, eyes)

    def scores(self, sight: Sight) -> Tensor:
        assert isinstance(self.pruner, Scored)
        found = self.pruner.scores(sight)
        return found * torch.as_tensor(self.last, device=found.device) ** (sight.places / max(1, sight.eye.tokens - 1))

    def due(self, sights: tuple[Sight, ...]) -> bool:
        host = self.host
        return not isinstance(host, Conditional) or host.due(sights)

    def share(self, sights: tuple[Sight, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
        host = self.host
        return host.share(sights, counts) if isinstance(host, Sharing) else counts

    def choose(self, sight: Sight, count: int) -> Choice:
        return self.host.choose(sight, count)
