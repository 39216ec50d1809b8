"""Are heat maps true? Insertion and deletion curves of every explainer on Atlas, beside maps by lot on their grids."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.records import mend
from morgana.eval.samples import Sample, samples
from morgana.eval.statistics import Estimate, estimate, paired
from morgana.files import json_lines
from morgana.generation.faithfulness import GREY, curves, probability
from morgana.generation.generators.hf import HF
from morgana.seeds import derive
from morgana.spec import components

SIGHT = ("visual", "presence")  # cannot be answered without the image
LEAST = 0.1  # probability that an answer loses with the image, or there is nothing to explain
LOTS = 4  # maps by lot, of which the mean counts
BASELINE = "Rollout"
AREAS = ("inserted", "deleted")
app = typer.Typer(no_args_is_help=True, add_completion=False)


def asked(world: Atlas) -> list[Sample]:
    """Questions of sight, each of another tile, in an order drawn by lot."""
    first: dict[str, Sample] = {}
    for sample in samples(world, world.seed, kinds=SIGHT):
        first.setdefault(sample.tile, sample)
    return list(first.values())


def measured(generator: HF, sample: Sample) -> dict[str, Any]:
    """The answer's probability with the image and without, and areas of its maps if it loses `LEAST`.

    Both areas of every explainer's map of the generator's own answer, and the means of lots on the same grids.
    """
    query = sample.query
    pixels, (answer,) = generator.look(query), generator([query], [()])
    assert pixels is not None
    ends = torch.cat([pixels, torch.full_like(pixels, GREY)])
    whole, blank = probability(generator, ends, query, (), answer.text).tolist()
    about = {"sample": sample.id, "tile": sample.tile, "answer": answer.text, "whole": whole, "blank": blank}
    if whole - blank < LEAST:
        return {**about, "maps": None}

    def areas(heat: torch.Tensor) -> dict[str, float]:
        made = curves(generator, pixels, query, (), answer.text, heat)
        return {"inserted": made.inserted, "deleted": made.deleted}

    found: dict[str, dict[str, float]] = {}
    for cls in components("explainer"):
        begun = time.perf_counter()
        heat = cls()(generator, pixels, query, (), answer.text)
        found[cls.__name__] = {"side": len(heat), "seconds": time.perf_counter() - begun, **areas(heat)}
    for side in sorted({int(row["side"]) for row in found.values()}):
        lots = [areas(lot(side, sample.id, number)) for number in range(LOTS)]
        means = {area: sum(one[area] for one in lots) / LOTS for area in AREAS}
        found[f"lot {side}"] = {"side": side, "seconds": 0.0, **means}
    return {**about, "maps": found}


def lot(side: int, sample: str, number: int) -> torch.Tensor:
    """A map without information: a lot for every cell of a square grid."""
    return torch.rand(side, side, generator=torch.Generator().manual_seed(derive(number, "lot", sample, side)))


def records(out: Path, generator: HF, questions: Sequence[Sample]) -> Iterator[Mapping[str, Any]]:
    """Of each question, from the file or measured and written there."""
    path = out / "records.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        mend(file)
        done = {row["sample"]: row for _, row in json_lines(path)}
        for sample in questions:
            if sample.id not in done:
                done[sample.id] = measured(generator, sample)
                file.write(json.dumps(done[sample.id]).encode() + b"\n")
                file.flush()
            yield done[sample.id]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: areas with their change from a lot on the same grid, paired by question, in hundredths."""
    names = sorted(rows[0]["maps"], key=lambda name: (rows[0]["maps"][name]["side"], name.startswith("lot"), name))
    heads = ("map", "grid", "inserted", "− lot", "deleted", "− lot", "beside the lot", "seconds a map")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in names:
        side, floor = rows[0]["maps"][name]["side"], name.startswith("lot")
        cells = ["by lot" if floor else f"`{name}`", f"{side} × {side}"]
        gaps = [gap(rows, name, f"lot {side}", area) for area in AREAS]
        for area, change in zip(AREAS, gaps, strict=True):
            mean = estimate([row["maps"][name][area] for row in rows])
            cells += [shown(mean, signed=False), "" if floor else shown(change)]
        seconds = sum(row["maps"][name]["seconds"] for row in rows) / len(rows)
        cells += ["", ""] if floor else [verdict(*gaps), f"{seconds:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def gap(rows: Sequence[Mapping[str, Any]], name: str, floor: str, area: str) -> Estimate | None:
    before, after = ([row["maps"][x][area] for row in rows] for x in (floor, name))
    return paired(before, after, [row["tile"] for row in rows], name=f"{name} {floor} {area}")


def verdict(inserted: Estimate | None, deleted: Estimate | None) -> str:
    """Better where the interval leaves 0 out on the good side (inserted above, deleted below)."""
    words = []
    for area, found, good in (("insertion", inserted, 1), ("deletion", deleted, -1)):
        if found is not None and (found.low > 0 or found.high < 0):
            words.append(f"{area} {'better' if found.value * good > 0 else 'worse'}")
    return ", ".join(words) or "not told apart"


def shown(found: Estimate | None, *, signed: bool = True) -> str:
    if found is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * found.value:{sign}.1f} [{100 * found.low:{sign}.1f}, {100 * found.high:{sign}.1f}]"


@app.callback()
def main() -> None:
    """Whether heat maps are true."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The folder; the same command goes on where it stopped.")],
    each: Annotated[int, typer.Option(min=2, help="Questions, each of another tile.")] = 24,
    sites: Annotated[int, typer.Option(min=2, help="Sites of the world.")] = 240,
    model: Annotated[str, typer.Option(help="A transformers model or folder.")] = "atlas",
) -> None:
    """Measure, print, and write table.md. Expect EAGLE above the floor, as it looks for just what curves measure, and
    the others less far, as the tile's ground shows what it is anywhere.
    """
    looked, rows = 0, []
    for row in records(out, HF(model), asked(Atlas(sites=sites, weather="clear"))):
        looked += 1
        rows += [row] if row["maps"] else []
        if len(rows) == each:
            break
    typer.echo(f"{len(rows)} of {looked} answers lose at least {LEAST} without the image")
    for end in ("whole", "blank"):
        typer.echo(f"probability of the answer, {end}: {shown(estimate([row[end] for row in rows]), signed=False)}")
    for name in ("TAM", "MSEA"):
        gaps = ", ".join(f"{area} {shown(gap(rows, name, BASELINE, area))}" for area in AREAS)
        typer.echo(f"{name} against {BASELINE}, on the same grid: {gaps}")
    (out / "table.md").write_text(table(rows), encoding="utf-8")
    typer.echo(table(rows))


if __name__ == "__main__":
    app()
