"""Adam on the threat's parameters (Kingma and Ba, 2015), projected after every step."""

from __future__ import annotations

from morgana.attacks.searches._climb import Found, check, climbs
from morgana.spec import part
from morgana.types import Objective, Params, Pixels, Threat

DECAY, SQUARE_DECAY, TINY = 0.9, 0.999, 1e-12  # β₁, β₂; cosines have small gradients, so ε is small too


@part
class Adam:
    """Each entry's step is scaled by the history of its gradients; suits smooth threats of few parameters."""

    steps: int = 100
    rate: float = 0.05  # of the threat's radius
    restarts: int = 1
    random_start: bool = True
    eot: int = 1  # evaluations averaged at each step, for randomised victims

    def __post_init__(self) -> None:
        check(self)

    def run(self, clean: Pixels, objective: Objective, threat: Threat) -> Found:
        return climbs(self, clean, objective, threat, Moments)

    def __call__(self, clean: Pixels, objective: Objective, threat: Threat) -> Pixels:
        return threat.finish(clean, self.run(clean, objective, threat).params)


class Moments:
    """Gradients in, bias-corrected Adam directions out; entry by entry, so rows stay apart."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Params = {}
        self.second: Params = {}

    def __call__(self, grads: Params) -> Params:
        self.count += 1
        direction = {}
        for name, grad in grads.items():
            old = self.first.get(name, grad * 0), self.second.get(name, grad * 0)
            self.first[name] = first = DECAY * old[0] + (1 - DECAY) * grad
            self.second[name] = second = SQUARE_DECAY * old[1] + (1 - SQUARE_DECAY) * grad * grad
            unbiased = (second / (1 - SQUARE_DECAY**self.count)).sqrt()
            direction[name] = first / (1 - DECAY**self.count) / (unbiased + TINY)
        return direction
