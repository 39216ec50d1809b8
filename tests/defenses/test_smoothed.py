from __future__ import annotations

import pytest
import torch
from fakes import ConvEncoder

from morgana.defenses import smoothed
from morgana.defenses.smoothed import Smoothed
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.seeds import seeded
from morgana.spec import parse
from morgana.types import Encoder, SpecError


@pytest.fixture
def images():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_it_is_an_encoder_and_spells_itself():
    encoder: Encoder = Smoothed(HashEncoder(), sigma=8 / 255)
    assert repr(encoder) == "Smoothed(HashEncoder(), sigma=8/255)"
    assert parse(repr(encoder)) == encoder
    assert encoder.dimension == 1024
    assert Smoothed(ConvEncoder()).image_size == 8


def test_texts_pass_through():
    inner = HashEncoder()
    assert torch.equal(Smoothed(inner).encode_text(["fog", ""]), inner.encode_text(["fog", ""]))


def test_fingerprints_tell_everything_that_changes_a_vector():
    made = [
        Smoothed(ConvEncoder()), Smoothed(ConvEncoder(seed=1)), Smoothed(ConvEncoder(), sigma=0.2),
        Smoothed(ConvEncoder(), n=3), Smoothed(ConvEncoder(), seed=1), ConvEncoder(),
    ]  # fmt: skip
    assert len({encoder.fingerprint for encoder in made}) == len(made)
    assert Smoothed(ConvEncoder()).fingerprint == Smoothed(ConvEncoder(), sigma=0.1, n=10).fingerprint


def test_vectors_have_unit_length_and_are_not_the_inner_ones(images):
    vectors = Smoothed(ConvEncoder(), sigma=0.3).encode_image(images)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    assert not torch.allclose(vectors, ConvEncoder().encode_image(images), atol=1e-3)


def test_judging_is_reproducible_whatever_ran_before_and_whatever_else_is_in_the_batch(images):
    encoder = Smoothed(ConvEncoder(), sigma=0.3, n=7)
    vectors = encoder.encode_image(images)
    torch.manual_seed(99)
    assert torch.equal(encoder.encode_image(images), vectors)
    torch.testing.assert_close(encoder.encode_image(images[[3]])[0], vectors[3])
    torch.testing.assert_close(encoder.encode_image(images.flip(0)).flip(0), vectors)
    state = torch.get_rng_state()
    encoder.encode_image(images)
    assert torch.equal(torch.get_rng_state(), state)  # it takes nothing from the scope


def test_different_images_get_different_noise():
    images = torch.full((2, 3, 8, 8), 128 / 255)
    images[1, 0, 0, 0] += 1 / 255
    first, second = Smoothed(ConvEncoder(), n=1).fixed(images).unbind(0)
    assert float((first - second).abs().mean()) > 0.05


def test_less_than_half_a_grey_level_does_not_change_the_noise():
    image = torch.full((1, 3, 8, 8), 128 / 255)
    encoder = Smoothed(ConvEncoder(), n=2)
    torch.testing.assert_close(encoder.fixed(image + 0.4 / 255), encoder.fixed(image) + 0.4 / 255)


def test_whoever_differentiates_gets_fresh_noise_from_the_scope(images):
    encoder = Smoothed(ConvEncoder(), sigma=0.3)
    pixels = images.clone().requires_grad_()
    with seeded(0, "attack"):
        first, second = encoder.encode_image(pixels), encoder.encode_image(pixels)
    with seeded(0, "attack"):
        again = encoder.encode_image(pixels)
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=1e-3)
    with torch.no_grad():
        assert torch.equal(encoder.encode_image(pixels), encoder.encode_image(images))


def test_gradients_reach_every_image_and_point_as_those_of_the_mean_do(images):
    inner, pixels = ConvEncoder(), images.clone().requires_grad_()
    with seeded(0, "attack"):
        (got,) = torch.autograd.grad(Smoothed(inner, sigma=0.1, n=3).encode_image(pixels)[:, 0].sum(), pixels)
    with seeded(0, "attack"):
        copies = (pixels[:, None] + 0.1 * torch.randn(5, 3, 3, 16, 16)).clamp(0, 1)
    mean = sum(inner.encode_image(copies[:, i]) for i in range(3)) / 3
    (wanted,) = torch.autograd.grad(torch.nn.functional.normalize(mean, dim=1)[:, 0].sum(), pixels)
    torch.testing.assert_close(got, wanted)
    assert (got.abs().sum(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("sigma", "n"), [(0.0, 10), (0.1, 0)])
def test_without_noise_it_is_the_inner_encoder(images, sigma, n):
    assert torch.equal(Smoothed(ConvEncoder(), sigma, n).encode_image(images), ConvEncoder().encode_image(images))


def test_large_batches_are_cut_without_a_trace(images, monkeypatch):
    encoder = Smoothed(ConvEncoder(), n=3)
    whole = encoder.encode_image(images)
    monkeypatch.setattr(smoothed, "AT_ONCE", 2)
    torch.testing.assert_close(encoder.encode_image(images), whole)


def test_an_empty_batch_is_an_empty_batch():
    assert Smoothed(ConvEncoder()).encode_image(torch.zeros(0, 3, 8, 8)).shape == (0, 8)


def test_more_copies_vary_less(images):
    few, many = (
        torch.stack([Smoothed(ConvEncoder(), 0.3, n, seed=s).encode_image(images) for s in range(8)]).var(0).mean()
        for n in (2, 32)
    )
    assert many < few / 4


@pytest.mark.parametrize("sigma", [-1, 2, float("inf"), "0.1"])
def test_bad_noise_is_refused(sigma):
    with pytest.raises(SpecError, match="pixel units"):
        Smoothed(ConvEncoder(), sigma=sigma)
