"""One step to the border (Goodfellow et al., 2015)."""

from __future__ import annotations

from morgana.attacks.searches._climb import Found, check_count, climb
from morgana.spec import part
from morgana.types import Objective, Pixels, Threat


@part
class FGSM:
    """One steepest step of the threat's whole radius from its origin, kept where it is the better one."""

    eot: int = 1

    def __post_init__(self) -> None:
        check_count(self, eot=self.eot)

    def run(self, clean: Pixels, objective: Objective, threat: Threat) -> Found:
        start = threat.origin(clean)
        return climb(clean, objective, threat, start, threat.steepest, steps=1, rate=1.0, eot=self.eot)

    def __call__(self, clean: Pixels, objective: Objective, threat: Threat) -> Pixels:
        return threat.finish(clean, self.run(clean, objective, threat).params)
