"""ZOO-Prune (Kim et al., CVPR 2026, arXiv 2509.24837): tokens whose projection moves most, none twice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, even, heats
from morgana.generation.selecting import cosine, grown
from morgana.generation.sight import Sight
from morgana.seeds import derive
from morgana.spec import part
from morgana.types import SpecError


@part
class ZerothOrder:
    """Sensitivity is the mean over `samples` random unit directions u of |f(x + h u) − f(x − h u)| / 2h, f the
    projector, found with forward passes only. Greedily, the token with the largest sensitivity · (1 − cosine to
    the nearest chosen), sensitivity scaled to [0, 1].

    The directions are the same for every image of a size, so equal pixels give equal choices. The paper is known to us
    second-hand: differences through the projector and greedy diversity are its; h, relative to the root-mean-square of
    the input, the number of directions and the product are our choice.
    """

    keep: Keep = 0.25
    samples: int = 6
    step: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        checked(self.keep)
        heats(step=self.step)
        if self.samples < 1:
            raise SpecError(f"samples={self.samples} must be at least 1")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(projector=True)

    def scores(self, sight: Sight) -> Tensor:
        given = sight.eye.projected
        if given is None:
            raise SpecError("nothing went into the projector that could be moved; use another pruner")
        own = (weight.dtype for weight in sight.eye.project.parameters() if weight.is_floating_point())
        given = given.to(next(own, given.dtype))  # under autocast it came in another
        lot = torch.Generator().manual_seed(derive(self.seed, "directions", *given.shape[-2:]))
        size = self.step * given.detach().float().square().mean().sqrt()
        tokens = sight.eye.full or sight.eye.tokens
        moved = torch.zeros(tokens, device=given.device)
        for _ in range(self.samples):
            way = torch.nn.functional.normalize(torch.randn(given.shape, generator=lot), dim=-1)
            step = (size * way.to(given.device)).to(given.dtype)
            up, down = (sight.eye.project.forward(given + sign * step) for sign in (1, -1))  # past its hooks
            moved = moved + (up - down).reshape(tokens, -1).float().norm(dim=-1) / (2 * size)
        return sight.here(sight.eye.pick(moved / self.samples))

    def choose(self, sight: Sight, count: int) -> Choice:
        value = even(self.scores(sight).detach()).cpu().numpy()
        return Choice(
            grown(
                cosine(sight.states), count, int(value.argmax()), np.maximum, lambda nearest, _: value * (1 - nearest)
            )
        )
