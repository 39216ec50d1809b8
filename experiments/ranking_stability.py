"""Do pruners' rankings survive a little noise? Correlations and kept tokens on Atlas tiles, clean and noisy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import typer

from morgana.corpus.atlas.corpus import Atlas
from morgana.corpus.images import load
from morgana.eval.samples import samples
from morgana.eval.statistics import estimate
from morgana.generation.generators.hf import HF
from morgana.generation.stability import Stability, stability
from morgana.spec import parse
from morgana.types import Pixels, Query

KINDS = ("visual", "presence")
PRUNERS = "FastV({k});FasterVLM({k});HiPrune({k});MMTok({k})"


def pairs(each: int, noise: float) -> Iterator[tuple[Query, Pixels, Pixels]]:
    """One question a tile, with its image and a copy under uniform noise of so many grey levels."""
    first: dict[str, Query] = {}
    for sample in samples(Atlas(sites=each, weather="clear"), kinds=KINDS):
        first.setdefault(sample.tile, sample.query)
    lot = torch.Generator().manual_seed(0)
    for query in first.values():
        assert query.image is not None
        image = load(query.image)
        drawn = (torch.rand(image.shape, generator=lot) * 2 - 1) * noise / 255
        yield query, image, (image + drawn).clamp(0, 1)


def main(
    each: Annotated[int, typer.Option(min=2, help="Tiles.")] = 24,
    noise: Annotated[float, typer.Option(min=0, help="Grey levels.")] = 8,
    pruners: Annotated[str, typer.Option(help="Specs with semicolons between, {k} for the budget.")] = PRUNERS,
    keeps: Annotated[str, typer.Option(help="Budgets, with commas between.")] = "0.25,0.11",
    model: Annotated[str, typer.Option(help="A transformers model or folder.")] = "atlas",
) -> None:
    """Print a line a pruner; correlations are left out where it has no scores."""
    looked = list(pairs(each, noise))
    typer.echo("| pruner | " + " | ".join(Stability._fields) + " |\n|" + "---|" * 5)
    for spec in (pruner.format(k=keep) for pruner in pruners.split(";") for keep in keeps.split(",")):
        generator = HF(model, pruner=parse(spec))
        found = [stability(generator, query, (), image, copy) for query, image, copy in looked]
        columns = (torch.cat(column).tolist() for column in zip(*found, strict=True))
        typer.echo(f"| `{spec}` | " + " | ".join(map(shown, columns)) + " |")


def shown(values: list[float]) -> str:
    made = None if any(value != value for value in values) else estimate(values)
    return "–" if made is None else f"{made.value:.2f} [{made.low:.2f}, {made.high:.2f}]"


if __name__ == "__main__":
    typer.run(main)
