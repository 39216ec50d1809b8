"""CloudWeb: clouds that make the retriever find the weather (arXiv 2605.07273)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from morgana.attacks.composed import Attacked, compose
from morgana.attacks.goals.hijack import Hijack
from morgana.attacks.searches.adam import Adam
from morgana.attacks.target import Target
from morgana.attacks.threats.cloud_overlay import CloudOverlay
from morgana.spec import part
from morgana.types import Pixels


@part
class CloudWeb:
    """Hijack(topic) × CloudOverlay × Adam. The paper's abstract gives the idea; the figures here are ours."""

    topic: str = "weather"
    steps: int = 100
    max_cover: float = 0.12  # mean opacity of clouds and haze together
    rate: float = 0.2  # of the threat's radius
    k: int = 5
    margin: float = 0.05
    pull: float = 1.0
    suppress: float = 0.5
    rank: float = 1.0
    natural: float = 0.1
    restarts: int = 1
    eot: int = 1

    @cached_property
    def goal(self) -> Hijack:
        return Hijack(self.topic, self.pull, self.suppress, self.rank, self.margin, self.k)

    @cached_property
    def threat(self) -> CloudOverlay:
        return CloudOverlay(max_cover=self.max_cover, natural=self.natural)

    @cached_property
    def search(self) -> Adam:
        return Adam(steps=self.steps, rate=self.rate, restarts=self.restarts, eot=self.eot)

    def attack(self, pixels: Pixels, victim: Any, target: Target) -> Attacked:
        return compose(self.goal, self.threat, self.search, pixels, victim, target)
