from __future__ import annotations

import pytest
import torch

from morgana.attacks.searches._climb import draw
from morgana.attacks.searches.adam import Adam
from morgana.attacks.searches.fgsm import FGSM
from morgana.attacks.searches.noise import Noise
from morgana.attacks.searches.pgd import PGD
from morgana.attacks.threats.cloud_overlay import CloudOverlay
from morgana.attacks.threats.l2 import L2
from morgana.attacks.threats.linf import Linf
from morgana.corpus.images import load, save
from morgana.seeds import seeded
from morgana.spec import components, parse
from morgana.types import SpecError

SEARCHES = (Noise(draws=2), FGSM(), PGD(steps=3), PGD(steps=2, restarts=2), Adam(steps=3, rate=0.2))
THREATS = (Linf(8 / 255), Linf(0.01), L2(0.7), CloudOverlay(max_cover=0.15))


@pytest.fixture(scope="module")
def clean():
    with seeded(0, "photo"):
        return torch.randint(0, 256, (3, 3, 20, 24)).float() / 255


def pull(clean):
    """A bent objective with a different optimum for each row."""
    with seeded(0, "pull"):
        wanted = torch.rand(clean.shape)
    return lambda pixels: -((pixels - wanted[: len(pixels)]) ** 2).mean((1, 2, 3)) * 10


def test_every_search_and_threat_of_this_package_is_in_the_matrix():
    assert {type(s) for s in SEARCHES} == set(components("search"))
    assert {type(t) for t in THREATS} == set(components("threat"))


@pytest.mark.parametrize("threat", THREATS, ids=repr)
@pytest.mark.parametrize("search", SEARCHES, ids=repr)
def test_the_saved_file_stays_in_the_threat(search, threat, clean, tmp_path):
    with seeded(0, "search"):
        found = search.run(clean, pull(clean), threat)
    saved = threat.finish(clean, found.params)
    for row in range(len(clean)):
        save(saved[row : row + 1], tmp_path / f"{row}.png")
    read = torch.cat([load(tmp_path / f"{row}.png") for row in range(len(clean))])
    assert torch.equal(read, saved)
    assert (threat.excess(clean, read, found.params) <= 0).all()
    assert parse(repr(search)) == search
    assert parse(repr(threat)) == threat
    with seeded(0, "search"):
        assert torch.equal(search(clean, pull(clean), threat), saved)  # the same seed, the same image


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_gradients_beat_noise(threat, clean):
    if threat == Linf(0.01):
        threat = Linf(0.02)
    with seeded(0):
        noise = Noise(draws=3).run(clean, pull(clean), threat).score
        climbed = PGD(steps=6).run(clean, pull(clean), threat)
        adam = Adam(steps=12, rate=0.2).run(clean, pull(clean), threat)
    assert (climbed.score > noise).all()
    assert (adam.score > noise).all()
    assert torch.equal(climbed.score, climbed.trace.amax(0))  # larger is better, and the best is kept


def test_samples_do_not_influence_each_other(clean):
    for search in (PGD(steps=3), Adam(steps=3), Noise()):
        for threat in (Linf(), L2(1.0)):
            with seeded(0, "apart"):
                together = search.run(clean, lambda p: p.square().sum((1, 2, 3)), threat).params["pixels"]
                alone = search.run(clean[1:2], lambda p: p.square().sum((1, 2, 3)), threat).params["pixels"]
            assert torch.equal(together[1:2], alone)


def test_starts_depend_on_seed_scope_and_image(clean):
    with seeded(0):
        first, again, other = (draw(Linf(), clean, scope)["pixels"] for scope in (0, 0, 1))
    with seeded(1):
        reseeded = draw(Linf(), clean, 0)["pixels"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, reseeded)
    assert not torch.equal(first[0] - clean[0], first[1] - clean[1])


def test_restarts_can_only_help(clean):
    def jagged(pixels):
        return (40 * pixels).sin().mean((1, 2, 3))

    with seeded(0):
        one = PGD(steps=2).run(clean, jagged, Linf()).score
        four = PGD(steps=2, restarts=4).run(clean, jagged, Linf()).score
    assert (four >= one).all()
    assert (four > one).any()


def test_the_best_iterate_is_kept_not_the_last(clean):
    peak = (clean.mean((1, 2, 3)) + 3 / 255).detach()

    def narrow(pixels):
        return -(pixels.mean((1, 2, 3)) - peak).abs()

    found = PGD(steps=5, rate=1.0, random_start=False).run(clean, narrow, Linf())
    assert found.score.tolist() == found.trace.amax(0).tolist()
    assert (found.score > found.trace[-1]).any()


def test_eot_averages_a_randomised_victim(clean):
    calls = []

    def shaky(pixels):
        calls.append(len(pixels))
        return (pixels * torch.randn(pixels.shape)).mean((1, 2, 3)) + pixels.mean((1, 2, 3))

    with seeded(0):
        PGD(steps=2, eot=5).run(clean, shaky, Linf())
    assert len(calls) == 15  # two steps and the judging of the last iterate
    with seeded(0):
        spread = [PGD(steps=1, eot=eot).run(clean, shaky, Linf()).trace[0].std() for eot in (1, 200)]
    assert spread[1] < spread[0]


def test_a_victim_with_nan_is_told_from_a_failed_attack(clean):
    with pytest.raises(SpecError, match=r"NaN for rows \[1\]"):
        PGD(steps=2).run(clean, lambda p: p.mean((1, 2, 3)) * torch.tensor([1, float("nan"), 1]), Linf())


def test_an_objective_without_gradient_is_refused(clean):
    with pytest.raises(SpecError, match="Noise needs none"):
        PGD(steps=2).run(clean, lambda p: p.detach().mean((1, 2, 3)), Linf())
    Noise().run(clean, lambda p: p.detach().mean((1, 2, 3)), Linf())


@pytest.mark.parametrize(
    "spec",
    [
        "PGD(steps=0)",
        "PGD(steps=True)",
        "PGD(rate=0)",
        "PGD(restarts=2, random_start=False)",
        "Adam(steps=2.5)",
        "Adam(rate='fast')",
        "Noise(draws=0)",
        "FGSM(eot=0)",
    ],
)
def test_impossible_searches_are_refused(spec):
    with pytest.raises(SpecError, match=r"takes|all the same"):
        parse(spec)
