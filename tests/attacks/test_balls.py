from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.attacks.threats.l2 import L2
from morgana.attacks.threats.linf import Linf
from morgana.seeds import seeded
from morgana.spec import parse
from morgana.types import SpecError

BALLS = (Linf(8 / 255), Linf(0.01), Linf(0.0), L2(0.5), L2(3.0))


def photo(seed: int = 0, side: int = 12) -> torch.Tensor:
    with seeded(seed, "photo"):
        return torch.randint(0, 256, (2, 3, side, side)).float() / 255


@pytest.mark.parametrize(("spec", "advice"), [("Linf(8)", "Linf(8/255)"), ("Linf(epsilon=16)", "Linf(16/255)")])
def test_grey_levels_are_refused_with_the_right_spelling(spec, advice):
    with pytest.raises(SpecError, match="pixel units") as caught:
        parse(spec)
    assert advice in str(caught.value)


@pytest.mark.parametrize("epsilon", [-0.1, float("nan"), float("inf"), True, "8/255", None])
@pytest.mark.parametrize("ball", [Linf, L2])
def test_a_radius_is_a_number_from_zero(ball, epsilon):
    with pytest.raises(SpecError, match=f"write|say {ball.__name__}"):
        ball(epsilon)


def test_the_radius_keeps_its_spelling():
    assert repr(Linf(8 / 255)) == "Linf()"
    assert repr(Linf(4 / 255)) == "Linf(epsilon=4/255)"
    assert parse(repr(L2(0.5))) == L2(0.5)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), spread=st.floats(0, 3))
@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_projection_is_idempotent_and_inside(ball, seed, spread):
    clean = photo(seed % 5)
    with seeded(seed):
        once = ball.project(clean, {"pixels": clean + spread * torch.randn(clean.shape)})
    twice = ball.project(clean, once)
    assert torch.allclose(once["pixels"], twice["pixels"], atol=1e-6)
    assert 0 <= once["pixels"].min() <= once["pixels"].max() <= 1
    moved = (once["pixels"] - clean).double().flatten(1)
    size = moved.abs().amax(1) if isinstance(ball, Linf) else moved.norm(dim=1)
    assert (size <= ball.epsilon + 1e-6).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_what_is_finished_is_on_the_grid_and_inside(ball, seed):
    clean = photo(seed % 5)
    with seeded(seed):
        params = ball.project(clean, ball.start(clean))
    saved = ball.finish(clean, params)
    assert torch.equal((saved * 255).round() / 255, saved)
    assert (ball.excess(clean, saved, params) <= 0).all()


def test_linf_members_on_the_border_survive_saving_exactly():
    clean, ball = photo(), Linf(8 / 255)
    border = ball.project(clean, {"pixels": clean + 1})
    saved = ball.finish(clean, border)
    assert torch.allclose(saved, border["pixels"], atol=1e-6)
    assert ball.excess(clean, saved, border).max() == 0
    assert (ball.excess(clean, saved, border) <= 0).all()


def test_l2_spends_its_radius_where_plain_rounding_would_lose_or_leave_it():
    clean = torch.full((1, 3, 64, 64), 128 / 255)
    for epsilon in (0.1, 0.5, 2.0):
        ball = L2(epsilon)
        with seeded(3):
            direction = ball.project(clean, {"pixels": clean + torch.randn(clean.shape)})
        saved = ball.finish(clean, direction)
        moved, wanted = (saved - clean).double(), (direction["pixels"] - clean).double()
        assert float(moved.norm()) <= epsilon
        assert float(moved.norm()) >= 0.98 * epsilon
        assert float((moved * wanted).sum() / moved.norm() / wanted.norm()) > 0.5


def test_l2_rows_do_not_share_a_radius():
    clean, ball = photo(), L2(1.0)
    with seeded(1):
        params = ball.project(
            clean, {"pixels": clean + torch.randn(clean.shape) * torch.tensor([0.1, 3]).view(2, 1, 1, 1)}
        )
    both = ball.finish(clean, params)
    alone = torch.cat([ball.finish(clean[i : i + 1], {"pixels": params["pixels"][i : i + 1]}) for i in range(2)])
    assert torch.equal(both, alone)


def test_outside_is_told():
    clean = photo()
    moved = (clean + torch.where(clean < 0.5, 9, -9) / 255).clamp(0, 1)
    assert Linf(8 / 255).excess(clean, moved, {}).tolist() == pytest.approx([1 / 255] * 2)
    assert (L2(0.1).excess(clean, moved, {}) > 0).all()


def test_steps_are_of_the_radius():
    ball, grad = L2(2.0), {"pixels": torch.randn(2, 3, 6, 6)}
    moved = ball.step({"pixels": torch.zeros(2, 3, 6, 6)}, ball.steepest(grad), 0.25)["pixels"]
    assert moved.flatten(1).norm(dim=1).tolist() == pytest.approx([0.5, 0.5])
    ball = Linf(8 / 255)
    moved = ball.step({"pixels": torch.zeros(2, 3, 6, 6)}, ball.steepest(grad), 0.25)["pixels"]
    assert torch.equal(moved.abs(), torch.full_like(moved, 2 / 255))
