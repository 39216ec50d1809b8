"""The published order on a toy world: clean < random < optimised, at the same cover."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from morgana.attacks.cloudweb import CloudWeb
from morgana.attacks.composed import Composed
from morgana.attacks.goals.hijack import Hijack
from morgana.attacks.searches.adam import Adam
from morgana.attacks.searches.noise import Noise
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.cloud_overlay import CloudOverlay
from morgana.attacks.threats.linf import Linf
from morgana.seeds import seeded
from morgana.spec import parse
from morgana.types import SpecError

COVER = 0.28


def attacked(world, attack, seed=0, rows=slice(None)):
    with seeded(seed, "cloudweb"):
        return attack.attack(world.tiles[rows], world.encoder, world.target(rows))


def test_optimised_beats_random_beats_clean_over_twenty_seeds(world):
    """Four tiles a seed; weather as a share of the five places."""
    noise = Composed(Hijack("weather"), CloudOverlay(max_cover=COVER), Noise())
    cloudweb = CloudWeb(max_cover=COVER, steps=8, rate=0.5)
    random, optimised = [], []
    for seed in range(20):
        rows = slice(4 * (seed % 5), 4 * (seed % 5) + 4)
        random.append(world.weather(attacked(world, noise, seed, rows).pixels))
        made = attacked(world, cloudweb, seed, rows)
        optimised.append(world.weather(made.pixels))
        assert made.alpha.double().mean((1, 2, 3)).max() <= COVER
    clean = world.weather(world.tiles)
    assert clean + 0.02 < sum(random) / 20 < sum(optimised) / 20 - 0.2


def test_without_the_rank_term_less_weather_is_retrieved(world):
    whole = CloudWeb(max_cover=0.2, steps=15, rate=0.3, pull=0.2)
    shares = [world.weather(attacked(world, replace(whole, rank=rank)).pixels) for rank in (0.0, 1.0)]
    assert shares[0] < shares[1]


def test_the_same_seed_gives_the_same_image(world):
    attack, rows = CloudWeb(steps=3), slice(0, 2)
    first, again, other = (attacked(world, attack, seed, rows) for seed in (0, 0, 1))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.alpha, again.alpha)
    assert not torch.equal(first.pixels, other.pixels)
    assert first.trace.shape == (4, 2)


def test_cloudweb_is_its_composition(world):
    whole = attacked(world, CloudWeb(steps=3, max_cover=0.2), rows=slice(0, 3))
    parts = Composed(Hijack("weather"), CloudOverlay(max_cover=0.2), Adam(steps=3, rate=0.2))
    assert torch.equal(whole.pixels, attacked(world, parts, rows=slice(0, 3)).pixels)
    assert parse(repr(parts)) == parts
    assert repr(CloudWeb()) == "CloudWeb()"


def test_an_attack_without_a_cover_has_no_map(world):
    made = attacked(world, Composed(Hijack("weather"), Linf(), PGD(steps=1)), rows=slice(0, 2))
    assert made.alpha is None
    assert (Linf().excess(world.tiles[:2], made.pixels, made.params) <= 0).all()


def test_a_target_of_another_length_is_refused(world):
    with pytest.raises(SpecError, match="one target a batch"):
        CloudWeb().attack(world.tiles[:2], world.encoder, world.target(slice(0, 3)))
