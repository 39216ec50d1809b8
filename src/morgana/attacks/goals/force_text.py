"""Make the generator say a given text."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from morgana.attacks.target import Target
from morgana.spec import part
from morgana.types import Generator, Objective, Pixels, SpecError


@part
class ForceText:
    """Minus the teacher-forced loss of `text` as the answer, with the clean image's hits as context.

    The loss form is Qi et al.'s (2023), without their corpus; targets here are harmless strings.
    """

    text: str
    victim: ClassVar[str] = "generator"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise SpecError("ForceText takes the text to force, and got an empty one")

    def __call__(self, victim: Generator, target: Target) -> Objective:
        hits = target.hits or ((),) * len(target)

        def objective(pixels: Pixels) -> Tensor:
            rows = zip(pixels.unbind(0), target.queries, hits, strict=True)
            losses = [victim.loss(row[None], query, seen, self.text) for row, query, seen in rows]
            return -torch.cat([loss.reshape(1) for loss in losses])

        return objective
