"""`morgana train`: the bundled reference models, made again from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from morgana.cli import inputs
from morgana.cli.inputs import Device, Seed
from morgana.cli.output import resumable, say

app = typer.Typer()
train = typer.Typer(no_args_is_help=True, help="Train the bundled reference models on Atlas.")
app.add_typer(train, name="train")

Out = Annotated[Path, typer.Option("--out", help="The model folder to write; a run that was stopped goes on there.")]
Steps = Annotated[
    int, typer.Option("--steps", min=1, help="Optimiser steps in all, those of a checkpoint in --out included.")
]
Init = Annotated[Path | None, typer.Option("--init", help="The folder of an earlier one to begin from.")]
SAME = "the same command goes on where it was"


@train.command()
def retriever(
    out: Out,
    steps: Steps = 1000,
    eye_steps: Annotated[int, typer.Option("--eye-steps", min=1, help="Steps of the image tower alone, first.")] = 2500,
    init: Init = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Train the retriever, an open_clip model, from scratch; Ctrl-C leaves a checkpoint.

    \b
    Example:
      morgana train retriever --out my-clip
      morgana index build 'Atlas(sites=240)' --encoder 'OpenCLIP("my-clip")' --out my.index
    """
    with resumable(SAME):
        from morgana.models.retriever import train_retriever

        train_retriever(out, steps, seed, place(device), eye_steps, init)
    say(f"the retriever is in {out}")


@train.command()
def generator(
    out: Out,
    retriever: Annotated[
        Path | None, typer.Option("--retriever", help="The folder whose image tower it sees with [default: bundled].")
    ] = None,
    language_steps: Annotated[int, typer.Option("--language-steps", min=1, help="Steps on text alone, first.")] = 2000,
    steps: Steps = 2000,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the decoder: faster after a slow start.")
    ] = False,
    init: Init = None,
    look_first: Annotated[
        float,
        typer.Option("--look-first", min=0, max=1, help="Share of the steps with an image that come before articles."),
    ] = 0.6,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Train the generator, a LLaVA of a few million parameters, from scratch; Ctrl-C leaves a checkpoint.

    \b
    Example:
      morgana train generator --out my-mllm --retriever my-clip --device cuda
    """
    with resumable(SAME):
        from morgana.models.generator import train_generator
        from morgana.retrieval.encoders.openclip import BUNDLED

        folder, where = retriever or BUNDLED, place(device)
        sizes = (language_steps, steps)
        train_generator(out, folder, *sizes, seed, where, compiled=compiled, init=init, look_first=look_first)
    say(f"the generator is in {out}")


def place(device: str | None) -> str:
    import torch

    inputs.settle(device)

    return device or ("cuda" if torch.cuda.is_available() else "cpu")
