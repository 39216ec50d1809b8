"""Training can be stopped at any moment and goes on as if nothing had happened."""

import pytest
import torch
from torch import nn

from morgana.files import locked
from morgana.models.loop import Recipe, train
from morgana.types import StoreError

RECIPE = Recipe(steps=12, rate=0.05)


def fresh() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def run(model, folder, stop_at=None, recipe=RECIPE, seed=0, report=None):
    def loss_of(step):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 3)  # drawn in the step's own scope
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    train(model, loss_of, recipe, folder, "toy", seed, report, report_every=4)


@pytest.mark.parametrize("muon", [None, 0.01])
def test_a_stopped_run_ends_in_the_weights_of_an_undisturbed_one(tmp_path, muon):
    recipe = Recipe(steps=12, rate=0.05, muon=muon)
    straight, stopped, resumed = fresh(), fresh(), fresh()
    run(straight, tmp_path / "a", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "b", stop_at=7, recipe=recipe)
    run(resumed, tmp_path / "b", recipe=recipe)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("stop_at", [4, 12])
def test_a_run_stopped_during_a_report_goes_on_after_the_step_that_was_made(tmp_path, stop_at):
    def report(step):
        if step == stop_at:
            raise KeyboardInterrupt
        return ""

    straight, stopped, resumed = fresh(), fresh(), fresh()
    run(straight, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "b", report=report)
    run(resumed, tmp_path / "b")
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_step_that_was_cut_short_is_made_again_from_the_last_checkpoint(tmp_path, monkeypatch):
    straight, stopped, resumed = fresh(), fresh(), fresh()
    run(straight, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "b", stop_at=7)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "zero_grad", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(fresh(), tmp_path / "b")
    run(resumed, tmp_path / "b")
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_fewer_steps_than_are_behind_a_folder_are_refused(tmp_path):
    run(fresh(), tmp_path)
    with pytest.raises(StoreError, match="has 12 steps behind it, and 5 were asked for"):
        run(fresh(), tmp_path, recipe=Recipe(steps=5, rate=0.05))


def test_training_lowers_the_loss(tmp_path):
    model = fresh()
    x = torch.randn(256, 3, generator=torch.Generator().manual_seed(1))

    def error():
        return float((model(x).detach() - x.sum(1, keepdim=True)).square().mean())

    before = error()
    run(model, tmp_path, recipe=Recipe(steps=60, rate=0.05))
    assert error() < before / 4


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(fresh(), tmp_path)
    with pytest.raises(StoreError, match="holds another model"):
        run(nn.Linear(3, 1), tmp_path)


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    run(fresh(), tmp_path)
    with pytest.raises(StoreError, match="was begun with seed 0, and this is 1; pass --seed 0, or another --out"):
        run(fresh(), tmp_path, seed=1)


def test_a_loss_that_is_not_finite_stops_the_run_by_name(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(StoreError, match="toy: the loss became nan at step 0"):
        train(model, lambda _: model.weight.sum() * float("nan"), RECIPE, tmp_path, "toy", 0)


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path):
    with locked(tmp_path), pytest.raises(StoreError, match="another process is training in "):
        run(fresh(), tmp_path)
    assert not list(tmp_path.iterdir())
    run(fresh(), tmp_path)
