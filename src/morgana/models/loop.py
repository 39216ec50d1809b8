"""A training loop that can be stopped at any moment: batches follow from the step, checkpoints are safetensors."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from morgana.files import locked
from morgana.seeds import seeded
from morgana.types import StoreError

SAVE_EVERY = 60.0  # seconds
PLAIN_EVERY = 50  # steps a line where there is no terminal to draw a bar on


@dataclass(frozen=True)
class Recipe:
    """How long and how fast: `warmup` and `cooldown` are fractions of `steps`."""

    steps: int
    rate: float  # of AdamW; hidden matrices take `muon` where it is given
    muon: float | None = None
    warmup: float = 0.02
    cooldown: float = 0.4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)

    def scale(self, step: int) -> float:
        """Trapezoid: linear up, flat, linear down to 0."""
        done = step / self.steps
        return min(1.0, (done + 1 / self.steps) / max(self.warmup, 1 / self.steps), (1 - done) / self.cooldown)


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the towers when the recipe asks for it; AdamW for everything else."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            inner = recipe.muon is not None and parameter.ndim == 2 and "embed" not in name and name != "proj"
            (hidden if inner else rest).append(parameter)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
    ]
    if hidden and recipe.muon is not None:
        found.append(torch.optim.Muon(hidden, lr=recipe.muon, weight_decay=recipe.weight_decay))
    return found


def train(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    recipe: Recipe,
    folder: Path,
    title: str,
    seed: int,
    report: Callable[[int], str] | None = None,
    report_every: int = 200,
) -> None:
    """Minimise `loss_of(step)`; resumes from `folder` and leaves a checkpoint there, also on Ctrl-C.

    Everything random in `loss_of` must follow from the step, so that a resumed run equals an undisturbed one.
    StoreError when another process is training in `folder`.
    """
    with locked(folder, "is training in"), progress() as bar:
        steppers = optimisers(model, recipe)
        rates = [[group["lr"] for group in o.param_groups] for o in steppers]
        done = start = restore(model, steppers, folder, seed)
        if start > recipe.steps:
            raise StoreError(
                f"{folder} has {start} steps behind it, and {recipe.steps} were asked for; ask for as many or more, "
                "or train elsewhere with --out"
            )
        whole = True  # no step is half made
        saved, mean, log = time.monotonic(), None, folder / "log.jsonl"
        task = bar.add_task(title, total=recipe.steps, completed=start)
        try:
            for step in range(start, recipe.steps):
                set_rates(steppers, rates, recipe.scale(step))
                with seeded(seed, title, step):
                    loss = loss_of(step)
                if not torch.isfinite(loss):
                    raise StoreError(f"{title}: the loss became {loss.item()} at step {step}; lower the rate")
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
                whole = False
                for stepper in steppers:
                    stepper.step()
                    stepper.zero_grad()
                done, whole = step + 1, True
                mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
                bar.update(task, completed=step + 1, description=f"{title}  loss {mean:.3f}")
                if not bar.console.is_terminal and (step + 1) % PLAIN_EVERY == 0:
                    bar.console.print(f"{title} step {step + 1}/{recipe.steps}: loss {mean:.3f}")
                last = step + 1 == recipe.steps
                if report and ((step + 1) % report_every == 0 or last):
                    line = {"step": step + 1, "loss": round(mean, 4), "report": report(step + 1)}
                    with log.open("a") as out:
                        out.write(json.dumps(line) + "\n")
                    bar.console.print(f"{title} step {step + 1}/{recipe.steps}: loss {mean:.3f}; {line['report']}")
                if time.monotonic() - saved > SAVE_EVERY or last:
                    keep(model, steppers, folder, step + 1, seed)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if whole:
                keep(model, steppers, folder, done, seed)
            bar.console.print(f"stopped at step {done}; the same command goes on from {folder}")
            raise


def set_rates(steppers: list[torch.optim.Optimizer], rates: list[list[float]], scale: float) -> None:
    for stepper, base in zip(steppers, rates, strict=True):
        for group, rate in zip(stepper.param_groups, base, strict=True):
            group["lr"] = rate * scale


@contextmanager
def progress() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        yield bar


def keep(model: nn.Module, steppers: list[torch.optim.Optimizer], folder: Path, step: int, seed: int) -> None:
    """Write the checkpoint atomically: weights, optimiser states, the step and the seed in one safetensors file."""
    from safetensors.torch import save_file

    tensors = {f"model.{k}": v.detach().cpu().contiguous().clone() for k, v in trained(model).items()}
    for i, stepper in enumerate(steppers):
        for j, state in enumerate(stepper.state[p] for g in stepper.param_groups for p in g["params"]):
            tensors |= {
                f"optimiser.{i}.{j}.{k}": v.detach().cpu().contiguous().clone()
                for k, v in state.items()
                if isinstance(v, Tensor)
            }
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "checkpoint.part"
    save_file(tensors, part, metadata={"step": str(step), "seed": str(seed)})
    os.replace(part, folder / "checkpoint.safetensors")


def restore(model: nn.Module, steppers: list[torch.optim.Optimizer], folder: Path, seed: int) -> int:
    """Load the checkpoint of `folder` into model and optimisers; the step to go on from (0 where there is none).

    StoreError for a checkpoint of another model or seed.
    """
    from safetensors import safe_open

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        about = file.metadata()
    step, then = int(about["step"]), int(about.get("seed", seed))
    if then != seed:
        raise StoreError(f"{path} was begun with seed {then}, and this is {seed}; pass --seed {then}, or another --out")
    mine = trained(model)
    theirs = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in theirs.items()}:
        raise StoreError(f"{path} holds another model; remove {folder} or train elsewhere with --out")
    for key, value in mine.items():
        value.data.copy_(theirs[key])
    for i, stepper in enumerate(steppers):
        for j, parameter in enumerate(p for g in stepper.param_groups for p in g["params"]):
            prefix = f"optimiser.{i}.{j}."
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                stepper.state[parameter] = {k: v.to(parameter.device) if v.ndim else v for k, v in state.items()}
    return step


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn; frozen ones are not part of a checkpoint."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
