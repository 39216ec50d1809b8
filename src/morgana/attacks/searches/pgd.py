"""Projected gradient ascent (Madry et al., 2018)."""

from __future__ import annotations

from morgana.attacks.searches._climb import Found, check, climbs
from morgana.spec import part
from morgana.types import Objective, Pixels, Threat


@part
class PGD:
    """Steepest steps of a fixed size, each projected back; the best iterate of every sample is kept.

    Without a random start, `run(...).last` equals torchattacks' and foolbox's L∞ PGD bit for bit.
    """

    steps: int = 40
    rate: float = 0.25  # of the threat's radius: 2/255 at 8/255, the field's default
    restarts: int = 1
    random_start: bool = True
    eot: int = 1  # evaluations averaged at each step, for randomised victims

    def __post_init__(self) -> None:
        check(self)

    def run(self, clean: Pixels, objective: Objective, threat: Threat) -> Found:
        return climbs(self, clean, objective, threat, lambda: threat.steepest)

    def __call__(self, clean: Pixels, objective: Objective, threat: Threat) -> Pixels:
        return threat.finish(clean, self.run(clean, objective, threat).params)
