"""Random members of the threat: the baseline that every gradient has to beat."""

from __future__ import annotations

import torch

from morgana.attacks.searches._climb import Found, best_of, check_count, draw, refuse_nan, worth
from morgana.spec import part
from morgana.types import Objective, Pixels, Threat


@part
class Noise:
    """The best of `draws` random members; with one draw the objective plays no part."""

    draws: int = 1

    def __post_init__(self) -> None:
        check_count(self, draws=self.draws)

    def run(self, clean: Pixels, objective: Objective, threat: Threat) -> Found:
        runs = []
        for number in range(self.draws):
            params = threat.project(clean, draw(threat, clean, "noise", number))
            with torch.no_grad():
                score = worth(clean, objective, threat, params)
            runs.append(Found(params, score, params, refuse_nan(score[None])))
        return best_of(runs)

    def __call__(self, clean: Pixels, objective: Objective, threat: Threat) -> Pixels:
        return threat.finish(clean, self.run(clean, objective, threat).params)
