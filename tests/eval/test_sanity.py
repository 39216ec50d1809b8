from __future__ import annotations

import pytest
import torch

from morgana.eval.sanity import (
    adaptive_weaker,
    budget_helps_defender,
    noise_beats_gradients,
    unbounded_loses,
    zero_gradients,
)  # fmt: skip
from morgana.types import SpecError

WEAK, STRONG = [0.0] * 40 + [1.0] * 10, [0.0] * 10 + [1.0] * 40


def test_gradients_that_are_there_raise_no_doubt():
    gradients = torch.zeros(3, 3, 4, 4)
    gradients[:, 0, 0, 0] = 1e-20  # one pixel of each image is enough
    assert zero_gradients(gradients) == []


def test_zero_and_broken_gradients_are_counted():
    gradients = torch.ones(4, 3, 2, 2)
    gradients[:2] = 0
    gradients[3, 0, 0, 0] = torch.nan
    zero, broken = zero_gradients(gradients)
    assert "2 of 4 gradients are zero" in zero.message
    assert "1 of 4 gradients are NaN or infinite" in broken.message
    assert zero.sure
    assert str(zero).startswith("zero_gradients: 2 of 4")


def test_a_real_dead_gradient_is_seen():
    pixels = torch.rand(2, 3, 4, 4, requires_grad=True)
    (dead,) = torch.autograd.grad((pixels * 255).round().sum(), pixels)
    (alive,) = torch.autograd.grad(pixels.square().sum(), pixels)
    assert len(zero_gradients(dead)) == 1
    assert zero_gradients(alive) == []


def test_gradients_have_a_row_an_image():
    with pytest.raises(SpecError, match="one row an image"):
        zero_gradients(torch.zeros(3))


@pytest.mark.parametrize("check", [lambda w, s: noise_beats_gradients(gradients=s, noise=w), adaptive_weaker])
def test_the_stronger_attack_should_be_stronger(check):
    assert check(WEAK, STRONG) == []
    assert check(WEAK, WEAK) == []
    (doubt,) = check(STRONG, WEAK)
    assert doubt.sure
    assert "does worse than" in doubt.message
    assert "by 0.600" in doubt.message


def test_one_sample_could_be_luck():
    (doubt,) = adaptive_weaker(naive=[1.0, 0.0, 1.0, 1.0], adaptive=[1.0, 0.0, 0.0, 1.0])
    assert not doubt.sure
    assert str(doubt).endswith("(could be luck)")
    assert doubt.check == "adaptive_weaker"


def test_samples_of_one_tile_make_one_surer_no_less_than_they_should():
    naive, adaptive = [1.0] * 12, [0.0] * 10 + [1.0, 1.0]
    (alone,) = adaptive_weaker(naive, adaptive)
    (clustered,) = adaptive_weaker(naive, adaptive, ["a"] * 10 + ["b", "c"])
    assert (alone.sure, clustered.sure) == (True, False)


def test_more_budget_should_not_help_the_defender():
    assert budget_helps_defender({8 / 255: STRONG, 2 / 255: WEAK, 4 / 255: WEAK}) == []
    (doubt,) = budget_helps_defender({8 / 255: WEAK, 2 / 255: WEAK, 4 / 255: STRONG})
    assert "ε = 0.03137 does worse than ε = 0.01569" in doubt.message
    assert budget_helps_defender({}) == budget_helps_defender({1.0: WEAK}) == []


def test_an_attacker_without_bounds_should_win():
    assert unbounded_loses([1.0] * 20) == []
    (doubt,) = unbounded_loses([1.0] * 19 + [0.0])
    assert "reaches 0.950" in doubt.message
    assert unbounded_loses([1.0] * 19 + [0.0], wanted=0.9) == []
    assert unbounded_loses(WEAK)[0].sure


def test_nothing_measured_nothing_doubted():
    assert unbounded_loses([]) == []
    assert adaptive_weaker([None], [1.0]) == []
