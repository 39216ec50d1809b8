"""Hide an image from the documents that are right for it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from morgana.attacks.goals._terms import clean_embeddings, source_mask, surroundings
from morgana.attacks.target import Target
from morgana.spec import part
from morgana.types import Encoder, Objective, Pixels


@part
class Hide:
    """Push the embedding away from its source documents and from the clean embedding.

    The clean term alone has no gradient at the clean image, so the sources lead the way out of it.
    """

    victim: ClassVar[str] = "encoder"
    sources: float = 1.0  # weight of the mean cosine with the source documents
    clean: float = 1.0  # weight of the cosine with the clean embedding
    k: int = 5  # of the clean list, where the relevant documents are unknown

    def __call__(self, victim: Encoder, target: Target) -> Objective:
        around = surroundings(self, target)
        mask = source_mask(target, around, torch.zeros(len(around.ids), dtype=torch.bool), self.k).float()
        share, clean = mask / mask.sum(1, keepdim=True), clean_embeddings(target)

        def objective(pixels: Pixels) -> Tensor:
            embedded = victim.encode_image(pixels)
            near = (around.scores(embedded) * share.to(embedded)).sum(1)
            return -self.sources * near - self.clean * (embedded * clean.to(embedded)).sum(1)

        return objective
