"""Projected gradient ascent (Madry et al., 2018)."""

from __future__ import annotations

from morgana.attacks.searches._climb import (
    Found,
    best_of,
    check_count,
    check_rate,
    check_restarts,
    climb,
    draw,
)
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
        check_count(self, steps=self.steps, restarts=self.restarts, eot=self.eot)
        check_rate(self, self.rate)
        check_restarts(self.restarts, self.random_start)

    def run(self, clean: Pixels, objective: Objective, threat: Threat) -> Found:
        runs = []
        for number in range(self.restarts):
            start = draw(threat, clean, "start", number) if self.random_start else threat.origin(clean)
            runs.append(climb(clean, objective, threat, start, threat.steepest, self.steps, self.rate, self.eot))
        return best_of(runs)

    def __call__(self, clean: Pixels, objective: Objective, threat: Threat) -> Pixels:
        return threat.finish(clean, self.run(clean, objective, threat).params)
