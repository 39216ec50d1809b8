"""Cosines between attacked images and an index, and the documents that are a row's sources."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.attacks.target import Surroundings, Target
from morgana.types import Encoder, Objective, SpecError


def surroundings(goal: object, target: Target) -> Surroundings:
    if target.around is None or target.clean is None:
        raise SpecError(f"{goal!r} attacks a retrieval and needs an index; build its target with `aim(...)`")
    return target.around


def clean_embeddings(target: Target) -> Tensor:
    if target.clean is None:
        raise SpecError("the target has no clean embeddings; build it with `aim(...)`")
    return target.clean


def source_mask(target: Target, around: Surroundings, never: Tensor, k: int) -> Tensor:
    """(B, N) bool: a row's relevant documents or, if none is known, its k best clean ones; `never` is out."""
    scores = around.scores(clean_embeddings(target).float().cpu())
    scores[:, never] = -torch.inf
    mask = torch.zeros(len(target), len(around.ids), dtype=torch.bool)
    for number in range(len(target)):
        known = [around.row(id) for id in target.sources[number]] if target.sources else []
        best = scores[number].topk(min(k, int((~never).sum()))).indices.tolist()
        mask[number, known or best] = True
    return mask & ~never


def cosines(victim: Encoder, around: Surroundings) -> Objective:
    """Pixels to (B, N) cosines with every document of the index."""
    return lambda pixels: around.scores(victim.encode_image(pixels))
