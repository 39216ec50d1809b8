"""`morgana ask` and `morgana attack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morgana.cli import inputs
from morgana.cli.indexing import open_index, tell_fewer
from morgana.cli.inputs import (
    AsJSON,
    BatchSize,
    Device,
    EncoderSpec,
    GeneratorSpec,
    ImageFile,
    IndexFolder,
    K,
    Seed,
    Stages,
)
from morgana.cli.output import HIT_HEADS, hit_json, hit_rows, one_line, say, say_json, table

if TYPE_CHECKING:
    from morgana.index import Index
    from morgana.types import Encoder, Hits, Pixels, Query

app = typer.Typer()

DEFAULT_GENERATOR = 'HF("atlas")'


@app.command(short_help="Answer a question from an image and an index.")
def ask(
    folder: IndexFolder,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask about the image.")],
    image: ImageFile = None,
    generator: GeneratorSpec = DEFAULT_GENERATOR,
    k: K = 3,
    encoder: EncoderSpec = None,
    stage: Stages = None,
    batch_size: BatchSize = None,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Retrieve documents for an image and answer a question from both.

    \b
    Examples:
      morgana ask atlas.index --image tile.png "Who operates this harbour?"
      morgana ask atlas.index --image tile.png "How many boats?" --generator 'SmoothGuard(HF("atlas"))'
    """
    from morgana.eval.bench import Lookup
    from morgana.pipeline import Pipeline

    asked = inputs.query(question, image, needs_text=True)
    opened, seen_by = open_index(folder, encoder, device, batch_size)
    reader = inputs.generator(generator, device, batch_size)
    (answer,) = Pipeline(Lookup(opened, seen_by), inputs.stages(stage), reader)([asked], k)
    if json:
        about = {"index": str(folder), "encoder": repr(seen_by), "generator": repr(reader), "question": question}
        say_json(about | {"answer": answer.text, "hits": hit_json(answer.hits)})
        return
    say(one_line(answer.text) or "(no answer)")
    table("", HIT_HEADS, hit_rows(answer.hits), right=(0, 1))
    tell_fewer(len(answer.hits), k, opened, refined=bool(stage))


@app.command(short_help="Change an image so that other things are found.")
def attack(
    folder: IndexFolder,
    image: Annotated[Path, typer.Option("--image", help="The clean image file.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG file to write.")],
    attack: Annotated[
        str, typer.Option("--attack", help="CloudWeb(…), or Composed(GOAL, THREAT, SEARCH); see `morgana list`.")
    ] = "CloudWeb()",
    relevant: Annotated[
        list[str] | None, typer.Option("--relevant", help="Id of a document that is right for it; may be repeated.")
    ] = None,
    question: Annotated[str, typer.Option("--question", help="For goals that attack the answer.")] = "",
    generator: GeneratorSpec = DEFAULT_GENERATOR,
    encoder: EncoderSpec = None,
    k: K = 5,
    seed: Seed = 0,
    device: Device = None,
    json: AsJSON = False,
) -> None:
    """Change an image so that the index finds something else, save it, and show what the saved file finds.

    Clouds leave a map of their opacity beside it, OUT.cover.png.

    \b
    Examples:
      morgana attack atlas.index --image tile.png --attack "CloudWeb(steps=60)" --out cloudy.png
      morgana attack atlas.index --image tile.png --out grey.png \\
        --attack 'Composed(Hijack("weather"), Linf(8/255), PGD(steps=40))'
    """
    from morgana.attacks._saved import reread
    from morgana.attacks.target import Surroundings, aim
    from morgana.corpus.images import load, save, save_cover
    from morgana.eval.metrics.closing import closing
    from morgana.seeds import seeded
    from morgana.types import SpecError

    chosen = read_attack(attack)
    if getattr(chosen.goal, "victim", "encoder") == "generator" and not question:
        raise SpecError(f"{chosen.goal!r} attacks the answer to a question; give it with --question")
    check_png(out)
    check_apart(out, image)
    pixels, asked = load(image), inputs.query(question, image)
    opened, seen_by = open_index(folder, encoder, device)
    around = Surroundings(opened)
    right = {asked.id: {around.ids[around.row(id)]: 1 for id in relevant or ()}}
    target = aim(around, seen_by, pixels, [asked], right, k)
    with seeded(seed, "attack", asked.id):
        found = chosen.attack(pixels, victim(chosen, seen_by, generator, device), target)
    save(found.pixels, out)
    saved, _ = reread(out, pixels, chosen.threat, found.params)
    line, cover = closing(pixels, saved), None
    if found.alpha is not None:
        cover = float(found.alpha.mean())
        save_cover(found.alpha, out)
    hits = {"clean": find(opened, seen_by, pixels, k), "attacked": find(opened, seen_by, saved, k)}
    answers = reply(generator, device, asked, (pixels, saved), list(hits.values())) if question else {}
    if json:
        shown = {name: hit_json(seen) for name, seen in hits.items()}
        say_json(
            {"attack": repr(chosen), "out": str(out), "linf": line.linf, "l2": line.l2, "cover": cover}
            | {"hits": shown, "answers": answers}
        )
        return
    for name, seen in hits.items():
        table(name, HIT_HEADS, hit_rows(seen), right=(0, 1))
    for name, text in answers.items():
        say(f"{name}: {one_line(text)}")
    say(f"{line}" + ("" if cover is None else f"; mean opacity {cover:.3f}"))
    say(f"the attacked image is {out}")


def read_attack(text: str) -> Any:
    """The attack that `text` spells; SpecError that shows how to compose one from a goal, a threat or a search."""
    from morgana.spec import components, parse
    from morgana.types import SpecError

    made = parse(text)
    if isinstance(made, components("attack")):
        return made
    part = next((kind for kind in ("goal", "threat", "search") if isinstance(made, components(kind))), None)
    example = 'Composed(Hijack("weather"), Linf(8/255), PGD())'
    if part:
        raise SpecError(f"{text!r} is a {part}; an attack has a goal, a threat and a search: {example}")
    raise SpecError(f"{text!r} is no attack; `morgana list attack` shows those there are")


def check_png(out: Path) -> None:
    """Before the attack rather than after it."""
    from morgana.types import SpecError, StoreError

    if out.suffix.lower() != ".png":
        raise SpecError(f"--out {out} does not end in .png; attacked images are written as PNG, which loses nothing")
    if out.is_dir():
        raise StoreError(f"--out {out} is a folder; name a .png file")


def check_apart(out: Path, image: Path) -> None:
    """StoreError if the attacked image, or its map of opacity, would take the place of the clean one."""
    from morgana.corpus.images import cover_path
    from morgana.types import StoreError

    for written, what in ((out, ""), (cover_path(out), f" with its map of opacity {cover_path(out)}")):
        if written.exists() and image.exists() and written.samefile(image):
            raise StoreError(f"--out {out} would overwrite --image {image}{what}; name another --out")


def victim(attack: Any, encoder: Encoder, generator: str, device: str | None) -> Any:
    """What the attack's goal attacks."""
    attacks_answer = getattr(attack.goal, "victim", "encoder") == "generator"
    return inputs.generator(generator, device) if attacks_answer else encoder


def find(index: Index, encoder: Encoder, pixels: Pixels, k: int) -> Hits:
    import torch

    with torch.no_grad():
        (hits,) = index.search(encoder.encode_image(pixels), k)
    return hits


def reply(
    generator: str, device: str | None, asked: Query, images: tuple[Pixels, Pixels], hits: list[Hits]
) -> dict[str, str]:
    """Answers to the question from the clean and the attacked image, each with its own hits."""
    reader = inputs.generator(generator, device)
    texts = reader.generate(list(images), [asked, asked], hits)
    return dict(zip(("clean", "attacked"), texts, strict=True))
