from __future__ import annotations

import pytest
import torch

from morgana.defenses.smoothguard import SmoothGuard
from morgana.generation.generators.hf import HF
from morgana.seeds import seeded
from morgana.spec import parse
from morgana.types import Query

QUERY = Query("q", "Who operates the harbour?")


@pytest.fixture(scope="module")
def model(tiny_llava_folder) -> HF:
    return HF(str(tiny_llava_folder), max_new_tokens=4, device="cpu")


@pytest.fixture
def image():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_every_candidate_is_what_the_model_says_to_that_copy_alone(model, image):
    guard = SmoothGuard(model, sigma=0.3, n=3)
    (audit,) = guard.explain([image], [QUERY], [()])
    alone = [model.generate([copy], [QUERY], [()])[0] for copy in guard.candidates(image, QUERY)]
    assert audit.candidates == tuple(alone)
    assert audit.chosen in alone


def test_the_adaptive_attack_has_gradients_and_fresh_noise(model, image):
    guard, pixels = SmoothGuard(model, sigma=0.1, n=2), image.repeat(2, 1, 1, 1).requires_grad_()
    with seeded(0, "attack"):
        first, second = (guard.loss(pixels, QUERY, (), "fog") for _ in range(2))
    assert first.shape == (2,)
    assert not torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), pixels)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_a_guarded_model_is_parsed_from_its_name(model):
    guard = SmoothGuard(model, sigma=8 / 255, n=5)
    assert parse(repr(guard)) == guard
