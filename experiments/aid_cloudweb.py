"""Clouds over real aerial photographs: does a few per cent of cloud make a retriever find the weather?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WEIGHTS = Path.home() / ".cache" / "morgana" / "aid-clip"
app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Train a retriever on AID, and attack it with clouds."""


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="The model folder, outside the repository; resumes.")] = WEIGHTS,
    steps: Annotated[int, typer.Option(min=1, help="Batches of 128 images.")] = 1400,
    seed: int = 0,
    device: str = "cpu",
    limit: Annotated[int | None, typer.Option(help="At most so many tiles, for a quick look.")] = None,
) -> None:
    """Train the retriever: 25 minutes of one core at 1,400 steps."""
    from morgana.corpus._real import real_data
    from morgana.models.aid import train_aid

    train_aid(real_data("aid"), real_data("clouds"), out, steps, seed, device, limit)


if __name__ == "__main__":
    app()
