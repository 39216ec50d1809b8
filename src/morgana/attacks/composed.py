"""Any goal × threat × search as one attack."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from morgana.attacks.searches._climb import Found
from morgana.attacks.target import Target
from morgana.seeds import seeded
from morgana.spec import part
from morgana.types import Goal, Objective, Params, Pixels, SpecError, Threat


class Search(Protocol):
    """How to find the image; `run` keeps what rounding to 8 bits hides."""

    def run(self, clean: Pixels, objective: Objective, threat: Threat) -> Found: ...


@runtime_checkable
class Covering(Protocol):
    """A threat that lays something over the image, and can say where."""

    def alpha(self, params: Params, size: tuple[int, int]) -> Tensor: ...


class Attacked(NamedTuple):
    """The images as a file will hold them, and how they came about."""

    pixels: Pixels  # (B, 3, H, W) on the 8-bit grid, inside the threat
    params: Params  # the member of the threat
    score: Tensor  # (B,) objective less penalty, before rounding to 8 bits
    trace: Tensor  # (evaluations, B)
    alpha: Tensor | None  # (B, 1, H, W) opacity on the 8-bit grid, for threats that cover


def compose(goal: Goal, threat: Threat, search: Search, pixels: Pixels, victim: Any, target: Target) -> Attacked:
    """Attack one batch, (B, 3, H, W): build the objective, search inside the threat, round to 8 bits.

    Random starts depend on the current seeded scope and on each image, not on the rest of the batch.
    """
    if len(pixels) != len(target):
        raise SpecError(f"{len(pixels)} images with a target of {len(target)} rows; build one target a batch")
    with seeded(torch.initial_seed(), "attack"):
        found = search.run(pixels, goal(victim, target), threat)
    with torch.no_grad():
        saved = threat.finish(pixels, found.params)
        alpha = (
            threat.alpha(found.params, (pixels.shape[-2], pixels.shape[-1])) if isinstance(threat, Covering) else None
        )
    return Attacked(saved, found.params, found.score, found.trace, alpha)


@part
class Composed:
    """An attack from its three parts: `Composed(Hide(), Linf(8/255), PGD())`."""

    goal: Any
    threat: Any
    search: Any

    def __post_init__(self) -> None:
        for name, marks in (("goal", ("__call__",)), ("threat", ("project", "finish")), ("search", ("run",))):
            value = getattr(self, name)
            if isinstance(value, type) or not all(callable(getattr(value, mark, None)) for mark in marks):
                raise SpecError(
                    f"Composed(goal, threat, search): {value!r} is no {name}; `morgana list {name}` shows some"
                )

    def attack(self, pixels: Pixels, victim: Any, target: Target) -> Attacked:
        """`victim` is an Encoder, or a Generator where the goal's `victim` says so."""
        return compose(self.goal, self.threat, self.search, pixels, victim, target)
