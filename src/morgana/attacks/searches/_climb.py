"""What the searches share: starts that belong to an image, one gradient, and the ascent loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from morgana.attacks.threats._grid import per_row
from morgana.seeds import seeded
from morgana.types import Objective, Params, Pixels, SpecError, Threat


class Found(NamedTuple):
    """What a search found, before rounding to 8 bits."""

    params: Params  # the best member seen, sample by sample
    score: Tensor  # (B,) objective less the threat's penalty, at the best member
    last: Params  # the final iterate
    trace: Tensor  # (evaluations, B) the score of every iterate


class Climbs(Protocol):
    """What every search along gradients is set by."""

    @property
    def steps(self) -> int: ...
    @property
    def rate(self) -> float: ...  # of the threat's radius
    @property
    def restarts(self) -> int: ...
    @property
    def random_start(self) -> bool: ...
    @property
    def eot(self) -> int: ...  # evaluations averaged at each step, for randomised victims


def check(search: Climbs) -> None:
    check_count(search, steps=search.steps, restarts=search.restarts, eot=search.eot)
    check_rate(search, search.rate)
    check_restarts(search.restarts, search.random_start)


def climbs(
    search: Climbs, clean: Pixels, objective: Objective, threat: Threat, way: Callable[[], Callable[[Params], Params]]
) -> Found:
    """The best of the search's restarts; `way` makes a fresh map from gradients to directions for each."""
    runs = []
    for number in range(search.restarts):
        start = draw(threat, clean, "start", number) if search.random_start else threat.origin(clean)
        runs.append(climb(clean, objective, threat, start, way(), search.steps, search.rate, search.eot))
    return best_of(runs)


def check_count(part: object, **counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"{type(part).__name__} takes {name} = 1, 2, …, and got {value!r}")


def check_restarts(restarts: int, random_start: bool) -> None:
    if restarts > 1 and not random_start:
        raise SpecError(f"{restarts} restarts without a random start are all the same; set random_start=True")


def check_rate(part: object, rate: float) -> None:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
        name = type(part).__name__
        raise SpecError(f"{name} takes a rate above 0, a fraction of the threat's radius, and got {rate!r}")


def draw(threat: Threat, clean: Pixels, *scope: object) -> Params:
    """A random member for each row, drawn in a scope named after the image.

    So an image starts at the same place whatever else is in the batch, and a fresh start needs a fresh scope.
    """
    rows = []
    for row in clean:
        digest = hashlib.blake2b(row.detach().cpu().contiguous().numpy().tobytes(), digest_size=8).hexdigest()
        with seeded(torch.initial_seed(), digest, *scope):
            rows.append(threat.start(row[None]))
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def worth(clean: Pixels, objective: Objective, threat: Threat, params: Params, eot: int = 1) -> Tensor:
    """(B,) what a member is worth to the attacker: mean objective over `eot` evaluations, less its penalty.

    A randomised victim draws fresh noise at each (expectation over transformation, Athalye et al. 2018).
    """
    total = objective(threat.render(clean, params))
    for _ in range(eot - 1):
        total = total + objective(threat.render(clean, params))
    return total / eot - threat.penalty(params)


def slope(clean: Pixels, objective: Objective, threat: Threat, params: Params, eot: int) -> tuple[Tensor, Params]:
    """The worth of each row, (B,), and its gradient in every parameter; rows do not influence each other."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        score = worth(clean, objective, threat, leaves, eot)
        if not score.requires_grad:
            raise SpecError("the objective has no gradient in the pixels; the search Noise needs none")
        inputs = list(leaves.values())
        grads = torch.autograd.grad(score.sum(), inputs, allow_unused=True, materialize_grads=True)
    return score.detach(), dict(zip(leaves, grads, strict=True))


def climb(
    clean: Pixels,
    objective: Objective,
    threat: Threat,
    start: Params,
    direction: Callable[[Params], Params],
    steps: int,
    rate: float,
    eot: int = 1,
) -> Found:
    """Ascend from `start` by projected steps and keep the best iterate of every sample."""
    params = threat.project(clean, start)
    best, top = params, torch.full((len(clean),), -torch.inf, device=clean.device)
    trace = []
    for _ in range(steps):
        score, grads = slope(clean, objective, threat, params, eot)
        best, top = better(best, top, params, score)
        trace.append(score)
        with torch.no_grad():
            params = threat.project(clean, threat.step(params, direction(grads), rate))
    with torch.no_grad():
        score = worth(clean, objective, threat, params, eot)
    best, top = better(best, top, params, score)
    return Found(best, top, params, refuse_nan(torch.stack([*trace, score])))


def better(best: Params, top: Tensor, params: Params, score: Tensor) -> tuple[Params, Tensor]:
    """Row by row the one with the higher score; the earlier on a tie."""
    wins = score > top
    kept = {name: torch.where(per_row(wins, value), value, best[name]) for name, value in params.items()}
    return kept, torch.where(wins, score, top)


def best_of(runs: list[Found]) -> Found:
    """Row by row the best of several runs; their traces one after another."""
    params, score = runs[0].params, runs[0].score
    for run in runs[1:]:
        params, score = better(params, score, run.params, run.score)
    return Found(params, score, runs[-1].last, torch.cat([run.trace for run in runs]))


def refuse_nan(trace: Tensor) -> Tensor:
    broken = trace.isnan().any(0)
    if broken.any():
        rows = broken.nonzero().flatten().tolist()
        raise SpecError(f"the objective is NaN for rows {rows[:8]}; look for NaN in the victim's weights")
    return trace
