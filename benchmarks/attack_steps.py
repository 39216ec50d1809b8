"""PGD and CloudWeb, against hand-written loops that do the same forwards and backwards."""

from __future__ import annotations

import torch
from _measure import Result, Setting, batches, fastest, tiles

from morgana.attacks.cloudweb import CloudWeb
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.target import Surroundings, Target, aim
from morgana.attacks.threats.linf import Linf
from morgana.corpus.atlas import Atlas
from morgana.index import build
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.types import Objective, Pixels, Query, Threat

EPSILON = 4 / 255


def bench(setting: Setting) -> list[Result]:
    encoder = OpenCLIP(setting.encoder)
    index = build(Atlas(sites=12), encoder, setting.folder / "attacked", overwrite=True, progress=False)
    count, steps = setting.choose(16, 4), setting.choose(10, 3)
    (clean,) = batches(tiles(count), count)
    target = aim(Surroundings(index), encoder, clean, [Query(f"q{i}") for i in range(count)])
    return [linf(encoder, clean, target, steps, setting), clouds(encoder, clean, target, steps, setting)]


def linf(encoder: OpenCLIP, clean: Pixels, target: Target, steps: int, setting: Setting) -> Result:
    objective, threat = CloudWeb().goal(encoder, target), Linf(EPSILON)

    def bare() -> None:
        moved = (clean + torch.empty_like(clean).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
        for _ in range(steps):
            moved.requires_grad_()
            (grad,) = torch.autograd.grad(objective(moved).sum(), moved)
            moved = (moved.detach() + EPSILON / 4 * grad.sign() - clean).clamp(-EPSILON, EPSILON).add(clean).clamp(0, 1)
        with torch.no_grad():
            objective(moved)

    search = PGD(steps=steps)
    seconds = fastest(setting.choose(3, 1), ours=lambda: search(clean, objective, threat), bare=bare)
    return Result("PGD / hand-written loop", seconds["ours"] / seconds["bare"], 1.15, detail=each(seconds, steps))


def clouds(encoder: OpenCLIP, clean: Pixels, target: Target, steps: int, setting: Setting) -> Result:
    attack = CloudWeb(steps=steps)
    objective, threat = attack.goal(encoder, target), attack.threat
    runs = {
        "ours": lambda: attack.search(clean, objective, threat),
        "bare": lambda: by_hand(clean, objective, threat, steps),
    }
    seconds = fastest(setting.choose(3, 1), **runs)
    return Result("CloudWeb / hand-written loop", seconds["ours"] / seconds["bare"], 1.15, detail=each(seconds, steps))


def by_hand(clean: Pixels, objective: Objective, threat: Threat, steps: int) -> None:
    """torch's Adam on the threat's parameters, projected after each step; one more forward to judge the end."""
    leaves = {name: value.clone().requires_grad_() for name, value in threat.start(clean).items()}
    adam = torch.optim.Adam(leaves.values(), lr=0.05)
    for _ in range(steps):
        adam.zero_grad()
        (threat.penalty(leaves) - objective(threat.render(clean, leaves))).sum().backward()
        adam.step()
        with torch.no_grad():
            for name, value in threat.project(clean, leaves).items():
                leaves[name].copy_(value)
    with torch.no_grad():
        objective(threat.render(clean, leaves))


def each(seconds: dict[str, float], steps: int) -> str:
    return f"{1000 * seconds['ours'] / steps:.0f} ms against {1000 * seconds['bare'] / steps:.0f} ms a step"
