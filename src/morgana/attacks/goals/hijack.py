"""Fill the retrieved list with documents of another topic (after CloudWeb, arXiv 2605.07273)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from morgana.attacks.goals._terms import cosines, source_mask, surroundings
from morgana.attacks.target import Target
from morgana.spec import part
from morgana.types import Encoder, Objective, Pixels, SpecError


@part
class Hijack:
    """Pull to the documents of a topic, suppress the sources, and rank the topic above everything else.

    With cosines z·d, targets T (metadata["topic"] == topic) and sources S (the relevant documents, or if they
    are unknown the clean top k outside T):

        pull      τ log mean_{t∈T} exp(z·t / τ)
        suppress  mean_{s∈S} relu(z·s − floor)
        rank      τ softplus((max_{d∉T} z·d − kth-largest_{t∈T} z·t + margin) / τ)

    The objective is pull − suppress − rank, weighted, all in units of cosine. The paper's abstract names the
    terms; their form, weights and τ are our choice.
    """

    topic: str
    victim: ClassVar[str] = "encoder"
    pull: float = 1.0
    suppress: float = 0.5
    rank: float = 1.0
    margin: float = 0.05  # cosine by which the k-th target should lead
    k: int = 5  # places to fill; fewer where the topic has fewer documents
    temperature: float = 0.05  # τ, in units of cosine
    floor: float = 0.0  # cosine below which a source no longer matters

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise SpecError(f"Hijack takes k ≥ 1 and temperature > 0, and got {self.k} and {self.temperature}")

    def __call__(self, victim: Encoder, target: Target) -> Objective:
        around = surroundings(self, target)
        wanted = around.about(self.topic)
        sources = source_mask(target, around, wanted, self.k)
        score = cosines(victim, around)

        def objective(pixels: Pixels) -> Tensor:
            scores = score(pixels)
            return self.value(scores, wanted.to(scores.device), sources.to(scores.device))

        return objective

    def value(self, scores: Tensor, wanted: Tensor, sources: Tensor) -> Tensor:
        """The objective from cosines (B, N), the topic's mask (N,) and the sources' mask (B, N); (B,)."""
        heat, targets, others = self.temperature, scores[:, wanted], scores[:, ~wanted]
        value = self.pull * heat * (torch.logsumexp(targets / heat, 1) - torch.tensor(targets.shape[1]).log())
        over = functional.relu(scores - self.floor) * sources
        value = value - self.suppress * over.sum(1) / sources.sum(1).clamp_min(1)
        if self.rank and others.shape[1]:
            last = targets.topk(min(self.k, targets.shape[1]), dim=1).values[:, -1]
            gap = others.amax(1) - last + self.margin
            value = value - self.rank * heat * functional.softplus(gap / heat)
        return value
