from __future__ import annotations

import pytest
import torch
from fakes import FakeGenerator, brittle, checkerboard, wavering

from morgana.corpus.images import save
from morgana.defenses.smoothguard import SmoothGuard
from morgana.seeds import seeded
from morgana.types import Generator, Query, SpecError


@pytest.fixture
def image():
    return torch.linspace(0.1, 0.9, 3 * 8 * 8).reshape(1, 3, 8, 8)


def ask(guard, *pixels):
    queries = [Query(f"q{i}", "what is it?") for i in range(len(pixels))]
    return guard.explain(list(pixels), queries, [()] * len(pixels))


def test_it_is_a_generator_and_spells_itself():
    guard: Generator = SmoothGuard(FakeGenerator(brittle), sigma=8 / 255, n=5)
    assert repr(guard).endswith("sigma=8/255, n=5)")
    assert "encoder" not in repr(guard)


@pytest.mark.parametrize("probability", [0.7, 0.85])
def test_the_majority_wins_when_most_copies_answer_right(image, probability):
    answer = wavering("a harbour with two red boats", "heavy fog everywhere", probability)
    chosen = [ask(SmoothGuard(FakeGenerator(answer), n=40, seed=s), image)[0].chosen for s in range(20)]
    assert chosen.count("a harbour with two red boats") >= 19


def test_the_minority_does_not_win(image):
    answer = wavering("a harbour with two red boats", "heavy fog everywhere", 0.2)
    assert ask(SmoothGuard(FakeGenerator(answer), n=40), image)[0].chosen == "heavy fog everywhere"


def test_a_pattern_smaller_than_the_noise_loses_its_effect(image):
    levels = (image * 255).round()
    attacked = (levels - levels % 2 + checkerboard(image)) / 255  # at most one grey level away
    inner = FakeGenerator(brittle)
    assert inner.generate([attacked], [Query("q")], [()]) == ["obeyed"]
    (audit,) = ask(SmoothGuard(inner, sigma=0.05), attacked)
    assert audit.chosen == "a harbour"
    assert audit.candidates[-1] == "obeyed"  # the image itself is the last candidate
    assert audit.sizes == (10, 1)
    assert audit.agreement == pytest.approx(10 / 11)


def test_all_copies_of_all_queries_go_in_one_inner_call(image):
    inner = FakeGenerator(brittle)
    ask(SmoothGuard(inner, n=4), image, None, image)
    assert inner.calls == [5 + 1 + 5]


def test_what_a_query_is_answered_does_not_depend_on_the_batch_or_on_what_ran_before(image):
    guard = SmoothGuard(FakeGenerator(wavering("left", "right", 0.5)), n=9)
    queries = [Query(f"q{i}") for i in range(4)]
    together = guard.explain([image] * 4, queries, [()] * 4)
    torch.manual_seed(7)
    assert [guard.explain([image], [q], [()])[0] for q in queries] == together
    assert len({audit.candidates for audit in together}) > 1  # each query has noise of its own


def test_another_seed_is_other_noise(image):
    inner = FakeGenerator(lambda p: str(float(p.sum())))
    a, b = (ask(SmoothGuard(inner, seed=s), image)[0].candidates for s in (0, 1))
    assert a[-1] == b[-1]
    assert not set(a[:-1]) & set(b[:-1])


def test_noise_has_the_asked_size_and_stays_in_range():
    seen = []
    inner = FakeGenerator(lambda p: str(seen.append(p)))
    ask(SmoothGuard(inner, sigma=0.1, n=20), torch.full((1, 3, 32, 32), 0.5), torch.ones(1, 3, 32, 32))
    grey, white = torch.cat(seen[:20]), torch.cat(seen[21:41])
    assert float(grey.std()) == pytest.approx(0.1, rel=0.02)
    assert float(white.max()) == 1
    assert float(white.min()) > 0
    assert torch.equal(seen[20], torch.full((1, 3, 32, 32), 0.5))


@pytest.mark.parametrize(("sigma", "n"), [(0.0, 10), (0.1, 0), (0.0, 0)])
def test_without_noise_or_copies_the_inner_generator_answers_alone(image, sigma, n):
    inner = FakeGenerator(brittle)
    (audit,) = ask(SmoothGuard(inner, sigma=sigma, n=n), image)
    assert audit.candidates == ("a harbour",)
    assert (audit.labels, audit.sizes, audit.agreement) == ((0,), (1, 0), 1.0)
    assert inner.calls == [1]


def test_the_call_reads_the_files_and_keeps_the_hits(image, tmp_path):
    save(image, tmp_path / "tile.png")
    inner = FakeGenerator(brittle)
    queries = [Query("q", "what?", tmp_path / "tile.png"), Query("text only")]
    first, second = SmoothGuard(inner, n=3)(queries, [(), ()])
    assert first.text == "a harbour"
    assert second.text == "no image"
    assert inner.calls == [4 + 1]


def test_no_queries_no_answers():
    assert SmoothGuard(FakeGenerator(brittle)).generate([], [], []) == []


def test_its_loss_is_the_mean_over_fresh_noise_and_the_image_itself(image):
    batch = torch.cat([image, 1 - image]).requires_grad_()
    inner = FakeGenerator(brittle)
    guard = SmoothGuard(inner, sigma=0.1, n=4)
    with seeded(0, "attack"):
        first = guard.loss(batch, Query("q"), (), "fog")
        second = guard.loss(batch, Query("q"), (), "fog")
    with seeded(0, "attack"):
        again = guard.loss(batch, Query("q"), (), "fog")
    assert first.shape == (2,)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    with seeded(0, "attack"):
        copies = (batch[:, None] + 0.1 * torch.randn(2, 4, 3, 8, 8)).clamp(0, 1)
    by_hand = [torch.cat([copies[i], batch[i : i + 1]]).square().mean(dim=(1, 2, 3)).mean() + 3 for i in (0, 1)]
    torch.testing.assert_close(first, torch.stack(by_hand))
    (gradient,) = torch.autograd.grad(first.sum(), batch)
    assert float(gradient.abs().sum()) > 0


def test_without_copies_its_loss_is_the_inner_loss(image):
    inner = FakeGenerator(brittle)
    got = SmoothGuard(inner, n=0).loss(image, Query("q"), (), "fog")
    assert torch.equal(got, inner.loss(image, Query("q"), (), "fog"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": -0.1}, "pixel units from 0 to 1"),
        ({"sigma": 25.5}, "8 grey levels are 8/255"),
        ({"sigma": float("nan")}, "pixel units"),
        ({"n": -1}, "whole number of noisy copies"),
        ({"n": 2.5}, "whole number of noisy copies"),
        ({"n": True}, "whole number of noisy copies"),
    ],
)
def test_bad_parameters_are_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        SmoothGuard(FakeGenerator(brittle), **arguments)
