from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.attacks.threats._clouds import basis
from morgana.attacks.threats._natural import statistics, strangeness
from morgana.attacks.threats._skies import SKIES
from morgana.attacks.threats.cloud_overlay import CloudOverlay
from morgana.seeds import seeded
from morgana.spec import parse
from morgana.types import SpecError

SIZE = (40, 36)


@pytest.fixture(scope="module")
def clean():
    with seeded(0, "ground"):
        return torch.randint(0, 140, (3, 3, *SIZE)).float() / 255


def random(threat, clean, seed=0):
    with seeded(seed, "sky"):
        return threat.start(clean)


@pytest.mark.parametrize("cover", [0.02, 0.12, 0.4, 0.85])
def test_the_budget_of_opacity_holds_after_rounding(clean, cover):
    threat = CloudOverlay(max_cover=cover)
    for params in (random(threat, clean), threat.fixed("veil", clean), threat.fixed("front", clean)):
        alpha = threat.alpha(params, SIZE).double()
        assert alpha.mean((1, 2, 3)).max() <= cover
        assert alpha.mean((1, 2, 3)).min() >= min(cover, 0.4) - 0.01  # and it is used, up to what thin clouds can
        assert alpha.max() <= threat.max_opacity + 1e-7
        assert torch.equal((alpha * 255).round(), (alpha * 255).round(decimals=3))
        saved = threat.finish(clean, params)
        assert (threat.excess(clean, saved, params) <= 0).all()
        assert 0 <= saved.min() <= saved.max() <= 1


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), spread=st.floats(0, 30))
def test_whatever_the_parameters_the_projection_is_a_member(seed, spread):
    threat, clean = CloudOverlay(max_cover=0.2), torch.zeros(2, 3, *SIZE)
    with seeded(seed):
        wild = {name: spread * torch.randn(value.shape) for name, value in threat.start(clean).items()}
    once = threat.project(clean, wild)
    twice = threat.project(clean, once)
    for name, value in once.items():
        assert torch.allclose(value, twice[name], atol=1e-6), name
    assert threat.alpha(once, SIZE).double().mean((1, 2, 3)).max() <= 0.2
    assert (threat.excess(clean, threat.finish(clean, once), once) <= 0).all()


def test_every_parameter_has_a_gradient(clean):
    threat = CloudOverlay()
    leaves = {name: value.requires_grad_() for name, value in random(threat, clean).items()}
    weight = torch.linspace(-1, 1, SIZE[0] * SIZE[1]).view(1, 1, *SIZE).square()
    (threat.render(clean, leaves) * weight).sum().backward()
    for name, value in leaves.items():
        assert value.grad.isfinite().all(), name
        assert (value.grad.flatten(1).abs().amax(1) > 0).all(), name


def test_the_gradient_follows_the_budget(clean):
    """Moving a cloud in pushes the others out: the implicit threshold against finite differences."""
    threat = CloudOverlay(max_cover=0.2)
    params = {name: value.double() for name, value in random(threat, clean[:1]).items()}
    ground = clean[:1].double()
    leaf = params["octave0"].clone().requires_grad_()
    left = torch.arange(SIZE[1]) < SIZE[1] // 2
    total = threat.render(ground, params | {"octave0": leaf})[..., left].mean()
    (grad,) = torch.autograd.grad(total, leaf)
    with seeded(2):
        way = torch.randn(leaf.shape, dtype=torch.float64)
    up, down = (
        threat.render(ground, params | {"octave0": params["octave0"] + h * way})[..., left].mean()
        for h in (1e-4, -1e-4)
    )
    assert float((grad * way).sum()) == pytest.approx(float((up - down) / 2e-4), rel=0.02)


def test_colours_are_near_white_and_nearly_grey(clean):
    threat = CloudOverlay()
    wild = threat.project(clean, random(threat, clean) | {"cloud": torch.tensor([[0.0, 0.5, 2.0]] * 3)})
    assert torch.allclose(wild["cloud"], torch.tensor([[0.97, 0.97, 1.0]] * 3))


def test_members_have_the_spectrum_of_random_ones():
    for octave in range(5):
        skies = basis(2.5, octave, 24)
        gram = skies @ skies.T / skies.shape[1]
        assert torch.allclose(gram, torch.eye(len(skies)), atol=1e-4)
    threat = CloudOverlay()
    params = random(threat, torch.zeros(64, 3, 4, 4))
    heights = threat.drift(params)
    assert heights.std() == pytest.approx(1, abs=0.1)
    power = [float((params[f"octave{n}"] @ basis(2.5, n, 24)).square().mean()) for n in range(5)]
    assert power == pytest.approx([1] * 5, abs=1e-3)


def test_blobs_are_stranger_than_random_skies(clean):
    threat = CloudOverlay()
    params = random(threat, torch.zeros(64, 3, 4, 4), seed=5)
    usual = threat.strangeness(params)
    assert usual.mean() == pytest.approx(1, abs=0.3)
    heights = threat.drift(params)
    plateaus = heights + 0.6 * (2 * heights).tanh()  # two levels with walls between them
    smooth = CloudOverlay(octaves=1).drift(params)
    for drawn in (plateaus / plateaus.std(), smooth):
        assert strangeness(statistics(drawn), threat.norm).mean() > 1.5 * usual.mean()
    assert torch.allclose(CloudOverlay(natural=0.2).penalty(params), 0.2 * usual)
    assert CloudOverlay(natural=0.0).penalty(params).abs().max() == 0


@pytest.mark.parametrize("name", SKIES)
def test_a_fixed_sky_is_the_same_on_every_tile(clean, name):
    threat = CloudOverlay()
    alpha = threat.alpha(threat.fixed(name, clean), SIZE)
    assert torch.equal(alpha[0], alpha[1])
    others = [threat.alpha(threat.fixed(other, clean[:1]), SIZE) for other in SKIES if other != name]
    assert min(float((alpha[:1] - other).abs().mean()) for other in others) > 0.01


def test_an_unknown_sky_is_named_with_its_neighbour(clean):
    with pytest.raises(SpecError, match="did you mean cirrus"):
        CloudOverlay().fixed("cirus", clean)


@pytest.mark.parametrize(
    "arguments",
    [
        "max_cover=12",
        "max_cover=0",
        "min_cover=0.5",
        "haze=2",
        "octaves=0",
        "softness=0.2",
        "density=(3, 1)",
        "softness=(0, 1)",
        "max_opacity=0.05",
        "freedom=-1",
    ],
)
def test_impossible_skies_are_refused(arguments):
    with pytest.raises(SpecError, match="CloudOverlay takes"):
        parse(f"CloudOverlay({arguments})")
