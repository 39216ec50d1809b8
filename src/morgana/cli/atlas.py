"""`morgana atlas`: a look at the bundled world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from morgana.cli.inputs import Seed
from morgana.cli.output import say

app = typer.Typer()
atlas = typer.Typer(no_args_is_help=True, help="Look at Atlas, the bundled world.")
app.add_typer(atlas, name="atlas")


@atlas.command()
def preview(
    out: Annotated[Path, typer.Option("--out", help="The PNG file to write.")] = Path("atlas.png"),
    seed: Seed = 0,
) -> None:
    """Draw a contact sheet of the world: its kinds of scene, seasons, weathers and things.

    \b
    Example:
      morgana atlas preview --out atlas.png
    """
    from morgana.corpus.atlas.preview import write_preview

    say(f"the contact sheet is {write_preview(out, seed)}")
