"""Be retrieved as one given document."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from morgana.attacks.goals._terms import cosines, surroundings
from morgana.attacks.target import Target
from morgana.spec import part
from morgana.types import Encoder, Objective, Pixels


@part
class Impersonate:
    """The cosine with `document` less the best of all others: positive when it is retrieved first."""

    document: str
    victim: ClassVar[str] = "encoder"

    def __call__(self, victim: Encoder, target: Target) -> Objective:
        around = surroundings(self, target)
        row, score = around.row(self.document), cosines(victim, around)

        def objective(pixels: Pixels) -> Tensor:
            scores = score(pixels)
            others = torch.cat([scores[:, :row], scores[:, row + 1 :]], dim=1)
            rival = others.amax(1) if others.shape[1] else 0
            return scores[:, row] - rival

        return objective
