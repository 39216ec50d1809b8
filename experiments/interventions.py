"""Does steering attention help? Every intervention against none, where articles help, spoil and contradict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from morgana.corpus.atlas.corpus import Atlas
from morgana.eval.experiment import Experiment
from morgana.eval.metrics.recorruption import recorruption
from morgana.eval.metrics.text_preference import TextPreference
from morgana.eval.outcome import Outcome
from morgana.eval.records import Record, load
from morgana.eval.statistics import Estimate, estimate, paired
from morgana.generation.generators.blind import Blind
from morgana.generation.generators.hf import HF
from morgana.generation.interventions.flexac import FlexAC, steering_vectors
from morgana.retrieval.encoders.openclip import OpenCLIP
from morgana.retrieval.stages.oracle import Oracle
from morgana.spec import parse
from morgana.types import SpecError

KINDS = ("visual", "presence", "knowledge", "conflict")
PLACES = ("first", "middle", "last")
METRIC = {"presence": "PresenceAccuracy()"}  # of the others: Contains()
METHODS = (
    *("BAIR()", "BAIR(alpha_v=1.0, alpha_t=0.0)", "MADRAG()", "PositionScaling(first=0)"),
    *("VAR(tau=5.0, first=0, stop=None)", "GIFT(source=1, first=2, stop=None)", "AIF()", "CMAI()"),
    *("DebiasedAttention()", "DropHeads()", "DropLayers()", "NeighbourAware(3)"),
    *("ModalityMutual()", "NAAViT()", "VisualContrast()"),
)
Scores: TypeAlias = Mapping[str, float | None]  # sample -> score
app = typer.Typer(no_args_is_help=True, add_completion=False)


def interventions(
    model: str = "atlas",
    sites: int = 240,
    each: int = 60,
    k: int = 3,
    seed: int = 0,
    steering: str = "",
    methods: str = "",
) -> Iterator[Experiment]:
    """No article, then the right article first, in the middle and last among k, read plainly and with each method.

    `each` is the size: so many questions of every kind. Decoding is greedy, with one budget of tokens, throughout.
    Visual and presence questions need no article: where one spoils them, that is recorruption, which BAIR and MAD-RAG
    should undo; conflict questions set the article against the image, which whatever strengthens the image (BAIR, GIFT,
    VAR) should decide for the image; knowledge needs the article, so it shows what a method costs. Expect small effects
    in either direction: the bundled model has four text layers and short prompts, and most methods were tuned on 32
    layers of 576 visual tokens. Depths and VAR's threshold are scaled to it. `ModalityMutual` and `NAAViT` are masks
    that models are trained with, and blinding half the layers or heads is no cure: those four should harm. `steering`
    names the vectors of FlexAC (none: it is left out), `methods` other specs to try, with semicolons between them. Last
    come the conflict questions without the image: what they are answered then is what the article says, for the
    text preference ratio.
    """
    world, plain = Atlas(sites=sites, seed=seed, weather="clear"), HF(model)
    oracle = Oracle(world, "none")
    alone = Experiment(world, OpenCLIP("atlas"), plain, stages=(oracle,), k=k, kinds=KINDS, each=each, seed=seed)
    yield alone
    parts = [parse(name) for name in (methods.split(";") if methods else METHODS)]
    parts += [FlexAC(steering, first=1, stop=3)] if steering else []
    for part in (None, *parts):
        reader = plain if part is None else replace(plain, interventions=(part,))
        for place in PLACES:
            yield replace(alone, stages=(Oracle(world, place),), generator=reader)
    for place in PLACES:
        yield replace(alone, stages=(Oracle(world, place),), generator=Blind(plain), kinds=("conflict",))


@app.callback()
def main() -> None:
    """Every intervention against none."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on where it stopped.")],
    each: Annotated[int, typer.Option(min=1, help="Questions of every kind.")] = 60,
    sites: Annotated[int, typer.Option(min=2, help="Sites of the world.")] = 240,
    methods: Annotated[str, typer.Option(help="Specs with semicolons between them; none: all.")] = "",
    model: Annotated[str, typer.Option(help="A transformers model or folder.")] = "atlas",
    printed: Annotated[bool, typer.Option("--print", help="Run nothing; print what is there.")] = False,
) -> None:
    """Run the study and print accuracy by kind, its paired change against none, and what was recorrupted and cured."""
    from morgana.eval.studies import run_study, study

    vectors = "" if methods else str(steering(model, out / "steering.safetensors"))
    options = {"model": model, "sites": sites, "each": each, "steering": vectors, "methods": methods}
    made = study("interventions", interventions, options)
    if not printed:
        run_study(made, out)
    for table in tables(made.experiments, out):
        Console(width=400).print(table)


def steering(model: str, path: Path) -> Path:
    """FlexAC's vectors, from 24 training sites."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        world, reader = Atlas(sites=24, split="train", weather="clear"), HF(model)
        asked = [next(q for q in world.queries() if q.image == tile) for tile in world.tiles()]
        pixels = [image for q in asked if (image := reader.look(q)) is not None]
        steering_vectors(reader, pixels, asked, [()] * len(asked), path)
    return path


def tables(experiments: Sequence[Experiment], out: Path) -> Iterator[Table]:
    """Accuracy by kind over the three places, then the same by place for all kinds, and recorruption."""
    records = {e: load(out / "cells" / e.id / "records.jsonl") for e in experiments}
    alone, rest, blind = experiments[0], experiments[1 : -len(PLACES)], experiments[-len(PLACES) :]
    groups = [rest[i : i + len(PLACES)] for i in range(0, len(rest), len(PLACES))]
    groups = [group for group in groups if all(0 < len(records[e]) == len(records[alone]) for e in group)]
    if not groups:
        raise SpecError(f"{out} holds no finished cells of this study yet; run it without --print")
    plain = groups[0]
    first = Table(title="accuracy in %, [95 % interval]; change against no method, paired by site", box=box.MARKDOWN)
    second = Table(
        title="change of accuracy without knowledge by the article's place; recorrupted, cured; text preference ratio",
        box=box.MARKDOWN,
    )
    for table, headings in ((first, KINDS), (second, (*PLACES, "recorrupted", "cured", "follows the text"))):
        for heading in ("method", *headings):
            table.add_column(heading)
    first.add_row("no article", *(percent(right([records[alone]], (kind,))) for kind in KINDS))
    for group in groups:
        mine, base = [records[e] for e in group], [records[e] for e in plain]
        same = group is plain
        cells = [
            "; ".join([percent(right(mine, (kind,))), *([] if same else [signed(change(base, mine, (kind,)))])])
            for kind in KINDS
        ]
        first.add_row(label(group[0]), *cells)
        looks = [k for k in KINDS if k != "knowledge"]
        places = ["" if same else signed(change([b], [m], looks)) for b, m in zip(base, mine, strict=True)]
        told = percent(preference(records[alone], [records[e] for e in blind], mine))
        second.add_row(label(group[0]), *places, *spoilt(records[alone], base, mine, same=same), told)
    yield first
    yield second


def label(experiment: Experiment) -> str:
    parts = getattr(experiment.generator, "interventions", ())
    return (
        type(parts[0]).__name__ + "()" if parts and isinstance(parts[0], FlexAC) else repr(*parts) if parts else "none"
    )


def scored(runs: Sequence[Sequence[Record]], kinds: Sequence[str]) -> list[tuple[Any, str, float | None]]:
    """(place and sample, cluster, score) of these kinds, of all runs one after another."""
    return [
        ((place, r.sample), r.cluster, r.value("answer", METRIC.get(r.kind, "Contains()")))
        for place, run in enumerate(runs)
        for r in run
        if r.kind in kinds
    ]


def right(runs: Sequence[Sequence[Record]], kinds: Sequence[str]) -> Estimate | None:
    rows = scored(runs, kinds)
    return estimate([value for *_, value in rows], [cluster for _, cluster, _ in rows])


def change(before: Sequence[Sequence[Record]], after: Sequence[Sequence[Record]], kinds: Sequence[str]) -> Any:
    was = {key: value for key, _, value in scored(before, kinds)}
    rows = scored(after, kinds)
    return paired([was[key] for key, *_ in rows], [value for *_, value in rows], [cluster for _, cluster, _ in rows])


def spoilt(
    alone: Sequence[Record], base: Sequence[Sequence[Record]], mine: Sequence[Sequence[Record]], *, same: bool
) -> tuple[str, str]:
    """Of visual and presence questions: the share that the article spoilt, and of those that plain articles spoil the
    share that the method brings back."""
    looks = ("visual", "presence")
    known = {key[1]: value for key, _, value in scored([alone], looks)}
    rows, was = scored(mine, looks), {key: value for key, _, value in scored(base, looks)}
    told = recorruption(
        [known[key[1]] for key, *_ in rows],
        [was[key] for key, *_ in rows],
        [value for *_, value in rows],
        [cluster for _, cluster, _ in rows],
    )
    return percent(told.recorrupted), "" if same else percent(told.cured)


def preference(
    alone: Sequence[Record], blind: Sequence[Sequence[Record]], mine: Sequence[Sequence[Record]]
) -> Estimate | None:
    """Of conflict questions answered as from the image alone or as from the text alone: the share of the text."""
    seen = {r.sample: r.answer for r in alone}
    rows = [
        (r.cluster, Outcome(r.sample, answer=r.answer, from_image=seen[r.sample], from_text=read[r.sample]))
        for run, others in zip(mine, blind, strict=True)
        if (read := {r.sample: r.answer for r in others})
        for r in run
        if r.sample in read
    ]
    return estimate(TextPreference()([outcome for _, outcome in rows]), [cluster for cluster, _ in rows])


def percent(found: Estimate | None) -> str:
    return (
        "–" if found is None else f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}] n={found.n}"
    )


def signed(found: Estimate | None) -> str:
    return "–" if found is None else f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


if __name__ == "__main__":
    app()
