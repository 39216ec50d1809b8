"""`morgana demo`: the main job on the bundled world, from an empty folder to a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from morgana.cli import inputs
from morgana.cli.evaluating import show, write_page
from morgana.cli.inputs import AsJSON, Device, Seed
from morgana.cli.output import headline, one_line, resumable, say, tell

if TYPE_CHECKING:
    from morgana.corpus.atlas.corpus import Atlas
    from morgana.eval.experiment import Experiment
    from morgana.types import Encoder, Generator

app = typer.Typer()


class Size(NamedTuple):
    """How much of the world is looked at."""

    sites: int
    samples: int  # questions that are judged
    steps: int  # of each attack
    copies: int  # that each defense draws


FULL = Size(sites=120, samples=32, steps=30, copies=5)  # five sites of a kind: enough to fill a list of five
QUICK = Size(sites=96, samples=6, steps=8, copies=2)


@app.command("demo", short_help="Index, ask, attack, defend, report, on the bundled world.")
def demo(
    out: Annotated[Path, typer.Option("--out", help="The folder to write; a demo that was stopped goes on there.")] = (
        Path("demo")
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A minute's worth: few samples, wide intervals.")] = False,
    samples: Annotated[int | None, typer.Option("--samples", min=2, help="Questions to judge.")] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="The retriever to attack.")] = 'OpenCLIP("atlas")',
    generator: Annotated[str, typer.Option("--generator", help="The model that answers.")] = 'HF("atlas")',
    seed: Seed = 0,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Run the whole story on the bundled world: index, ask, attack, defend, report.

    No network, no GPU, no other data: the world and both models come with the package.

    \b
    Examples:
      morgana demo
      morgana demo --out demo --quick
    """
    with resumable("the same command goes on where it was"):
        from morgana.eval.studies import Study, run_study

        size = QUICK if quick else FULL
        size = size._replace(samples=samples or size.samples)
        parts = inputs.encoder(encoder, device), inputs.generator(generator, device)
        tile, question = story(out, *parts, world(size.sites, seed), quiet=json)
        study = Study("demo", ABOUT, tuple(experiments(*parts, size, seed)))
        summary = run_study(study, out)
        page = write_page(out)
    show(summary, out, page, json)
    if not json:
        say(NEXT.format(morgana=program(), out=out, tile=tile, question=question))


ABOUT = """\
Expect: on clean tiles weather is hardly ever found and most questions are answered; random and handcrafted clouds of
the same mean opacity bring weather articles in, for the retriever knows clouds when it sees them, but drive few right
articles out (Hit@5); optimised clouds and PGD fill the list with weather articles, and answers go wrong. Smoothing
helps against PGD's small changes while the attacker does not know of it, less when he does, and not against clouds."""

NEXT = """
Go on from here:
  {morgana} search {out}/atlas.index --image {tile}
  {morgana} attack {out}/atlas.index --image {tile} --attack "CloudWeb(steps=60)" --out {out}/cloudy.png
  {morgana} ask {out}/atlas.index --image {out}/cloudy.png "{question}\""""


def program() -> str:
    """What to type for this program: `morgana`, or its path where that would start nothing, or another one."""
    import shlex
    import shutil
    import sys

    started, found = Path(sys.argv[0]), shutil.which("morgana")
    if started.stem != "morgana" or (found and Path(found).resolve() == started.resolve()):
        return "morgana"
    return shlex.quote(str(started))


def world(sites: int, seed: int) -> Atlas:
    """Cloudless, so that every cloud that is seen is an attack."""
    from morgana.corpus.atlas.corpus import Atlas

    return Atlas(sites=sites, seed=seed, weather="clear")


def experiments(encoder: Encoder, generator: Generator, size: Size, seed: int) -> Iterator[Experiment]:
    """Clean, random, fixed, CloudWeb and PGD; then the same attacks against SmoothGuard and Smoothed."""
    from dataclasses import replace

    from morgana.attacks.cloudweb import CloudWeb
    from morgana.attacks.composed import Composed
    from morgana.attacks.goals.hijack import Hijack
    from morgana.attacks.searches.pgd import PGD
    from morgana.attacks.threats.linf import Linf
    from morgana.defenses.smoothed import Smoothed
    from morgana.defenses.smoothguard import SmoothGuard
    from morgana.eval.experiment import Experiment

    clouds = CloudWeb(steps=size.steps)
    pgd = Composed(Hijack("weather"), Linf(4 / 255), PGD(steps=size.steps))
    clean = Experiment(world(size.sites, seed), encoder, generator, limit=size.samples, seed=seed)
    guarded = replace(clean, generator=SmoothGuard(generator, sigma=0.05, n=size.copies))
    smoothed = replace(clean, encoder=Smoothed(encoder, sigma=0.05, n=size.copies))
    yield clean
    for attack, member in ((clouds, "random"), (clouds, "fixed:cumulus"), (pgd, "random")):
        yield replace(clean, attack=attack, member=member)
    for system in (clean, guarded, smoothed):
        if system != clean:
            yield system
        for attack in (clouds, pgd):
            yield replace(system, attack=attack, member="optimised")
    yield replace(smoothed, attack=pgd, member="optimised", knowledge="adaptive")


def story(out: Path, encoder: Encoder, generator: Generator, corpus: Atlas, *, quiet: bool) -> tuple[Path, str]:
    """Build the index, ask two questions as a user would, tell what was found; the tile, and the first question."""
    import shutil

    from morgana.index import Index, build
    from morgana.pipeline import Pipeline
    from morgana.retrieval.retrievers.dense import Dense
    from morgana.types import StoreError

    folder = out / "atlas.index"
    assert encoder.fingerprint  # weights that are not there are told of before anything else
    tell(f"1 · indexing {corpus!r} with {encoder!r}")
    try:
        there = Index.open(folder, encoder).manifest.corpus == repr(corpus)
    except StoreError:
        there = False
    if not there:
        build(corpus, encoder, folder, overwrite=True)
    items = corpus.questions()
    asked = [next(item for item in items if item.question.kind == kind) for kind in ("knowledge", "visual")]
    tile = out / "tile.png"
    shutil.copyfile(corpus.tiles()[0], tile)
    tell(f"2 · asking about {tile}")
    answers = Pipeline(Dense(str(folder), encoder), (), generator)([item.query for item in asked], 5)
    for item, answer in zip(asked, answers, strict=True) if not quiet else ():
        say(f"question: {item.query.text}")
        say(f"answer:   {one_line(answer.text)}  (right: {item.question.answer})")
        say("read:     " + "; ".join(f"{headline(hit, 30)} ({hit.score:.2f})" for hit in answer.hits))
    tell("3 · attacking, defending, judging; Ctrl-C stops, the same command goes on")
    return tile, asked[0].query.text
