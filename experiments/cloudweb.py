"""Clouds that hijack a retrieval, what they cost, and what smoothing does about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from morgana.attacks.cloudweb import CloudWeb
from morgana.attacks.composed import Composed
from morgana.attacks.goals.hijack import Hijack
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.linf import Linf
from morgana.corpus.atlas.corpus import Atlas
from morgana.defenses.smoothed import Smoothed
from morgana.defenses.smoothguard import SmoothGuard
from morgana.eval.experiment import Experiment
from morgana.generation.generators.hf import HF
from morgana.retrieval.encoders.openclip import OpenCLIP

LEVELS = (2, 4, 8)  # L∞, in grey levels
SKIES = ("cumulus", "cirrus")


def cloudweb(
    sites: int = 240,
    limit: int = 200,
    steps: int = 100,
    cover: float = 0.12,
    sigma: float = 0.05,
    copies: int = 10,
    seed: int = 0,
) -> Iterator[Experiment]:
    """Clean, random, fixed, CloudWeb and L∞ PGD × no defense, SmoothGuard, Smoothed × naive and adaptive attackers.

    On cloudless tiles of sites that no model saw in training. Expect the order of CloudWeb's paper (0.7 % of clean
    queries retrieve weather, 43 % under its clouds): clean < random and fixed skies < optimised, at the same mean
    opacity, and L∞ PGD stronger with each doubling of ε. SmoothGuard votes on answers and leaves the retriever alone:
    Weather@5 stays what it was, and an attacker of the retriever gains nothing from knowing of it, so its two rows
    agree by construction. Smoothed guards the retriever: expect it to undo small ε when the attacker does not know of
    it, and to lose most of that to one who does; clouds are large and smooth, so noise hardly touches them.
    Two rows let only the retriever, or only the generator, see the clouds: the damage to answers that need an article
    should come through retrieval.
    """
    encoder, generator = OpenCLIP("atlas"), HF("atlas")
    world = Atlas(sites=sites, seed=seed, weather="clear")
    plain = Experiment(world, encoder, generator, limit=limit, seed=seed)
    clouds = CloudWeb(steps=steps, max_cover=cover)
    norms = [Composed(Hijack("weather"), Linf(level / 255), PGD(steps=steps)) for level in LEVELS]
    systems = (
        plain,
        replace(plain, generator=SmoothGuard(generator, sigma=sigma, n=copies)),
        replace(plain, encoder=Smoothed(encoder, sigma=sigma, n=copies)),
    )
    for system in systems:
        yield system
        yield replace(system, attack=clouds, member="random")
        for sky in SKIES:
            yield replace(system, attack=clouds, member=f"fixed:{sky}")
        for attack in (clouds, *norms):
            hit = replace(system, attack=attack, member="optimised")
            yield hit
            if system is not plain:
                yield replace(hit, knowledge="adaptive")
    for reach in ("retrieval", "generation"):
        yield replace(plain, attack=clouds, member="optimised", reach=reach)
    yield replace(plain, attack=norms[-1], member="random")
