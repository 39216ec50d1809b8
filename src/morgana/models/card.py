"""The figures of the model cards: both reference models on sites that neither ever saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from morgana.corpus.atlas.corpus import Atlas, Item
from morgana.corpus.atlas.language import NUMBERS, named
from morgana.corpus.atlas.questions import Question
from morgana.corpus.atlas.world import Site
from morgana.corpus.images import load
from morgana.eval.statistics import Estimate, proportion
from morgana.seeds import rng
from morgana.types import Document, Encoder, Generator, Hit, Hits

OTHERS = 2  # articles of other places beside the right one


@dataclass(frozen=True)
class Row:
    """One line of a card."""

    what: str
    estimate: Estimate


def judge_retriever(encoder: Encoder, sites: int = 480, seed: int = 0) -> list[Row]:
    """hit@1 by kind of scene and of the very site, and Weather@5, over the whole knowledge base."""
    rows = []
    for weather in ("clear", "haze", "thin cloud", "thick cloud"):
        world = Atlas(sites=sites, seed=seed, weather=weather)
        documents = world.documents()
        with torch.no_grad():
            texts = encoder.encode_text([d.text for d in documents])
            tiles = torch.cat([load(p) for p in world.tiles()])
            images = torch.cat([encoder.encode_image(part) for part in torch.split(tiles, 64)])
        best = (images @ texts.T).topk(5).indices.tolist()
        found = [[documents[i] for i in row] for row in best]
        places = world.places
        kind = [f[0].metadata.get("kind") == p.kind for f, p in zip(found, places, strict=True)]
        exact = [f[0].id == documents[i].id for i, f in enumerate(found)]
        hit5 = [documents[i].id in {d.id for d in f} for i, f in enumerate(found)]
        sky = [any(d.metadata["topic"] == "weather" for d in f) for f in found]
        for what, outcomes in (
            ("hit@1 by kind", kind),
            ("hit@1 of the very site", exact),
            ("hit@5 of the very site", hit5),
            ("Weather@5", sky),
        ):
            rows.append(Row(f"{what}, {weather}", share(outcomes)))
    return rows


def judge_generator(generator: Generator, sites: int = 240, seed: int = 0) -> list[Row]:
    """Answers with the right article among three; and visual ones again with the image of another site.

    An answer is right if it holds the deciding words: the name, the number, the colour, yes or no. The rows "true of
    that image" are the chance level: how often the answer that is right here is right of the other image too.
    """
    world = Atlas(sites=sites, seed=seed, weather="clear")
    items = world.questions()
    hits = [contexts(world, item) for item in items]
    rows = list(scored("", items, answers(generator, items, hits)))
    known = [item for item in items if item.question.kind == "knowledge"]
    rivals = [(item, found) for item in known if (found := contexts(world, item, rival=True))]
    alike = [item for item, _ in rivals]
    rows += scored(" beside another of its kind", alike, answers(generator, alike, [found for _, found in rivals]))
    for place, end in (("before", 0), ("behind", OTHERS)):
        moved = [moved_to(end, found, item) for item, found in rivals]
        rows += list(scored(f", the article {place} another of its kind", alike, answers(generator, alike, moved)))[:1]
    visual = [i for i, item in enumerate(items) if item.question.kind in ("visual", "presence")]
    others = [elsewhere(items, i) for i in visual]
    swapped = [
        replace(items[i], query=replace(items[i].query, image=o.query.image))
        for i, o in zip(visual, others, strict=True)
    ]
    rows += scored(" with another site's image", swapped, answers(generator, swapped, [hits[i] for i in visual]))
    places = {place.number: place for place in world.places}
    pairs = [(item, truth(item.question, places[o.site])) for item, o in zip(swapped, others, strict=True)]
    told = [(item, text) for item, text in pairs if text is not None]
    rows += scored(", true of that image", [item for item, _ in told], [text for _, text in told])
    return rows


def truth(question: Question, place: Site) -> str | None:
    """The deciding words of a visual question asked about `place`; "" where it has no answer, None if not known."""
    if question.about == "scene":
        return place.kind
    if question.kind != "presence" and question.about not in ("count", "colour", "place"):
        return None
    (noun,) = named(question.text)
    group = next((g for g in place.things if g.object == noun), None)
    if question.kind == "presence":
        return "yes" if group else "no"
    if question.about == "count":
        return NUMBERS[group.count if group else 0]
    return getattr(group, question.about) if group else ""


def contexts(world: Atlas, item: Item, *, rival: bool = False) -> Hits:
    """The right article and two of sites of other kinds, in an order that follows from the question.

    With a `rival` one of the two is of a site of the same kind; none at all if there is no such site.
    """
    draw = rng(world.seed, "card", item.query.id)
    by_id = {d.id: d for d in world.documents()}
    right: Document = by_id[item.relevant[0]]
    sites = [d for d in by_id.values() if d.metadata["topic"] == "site" and d is not right]
    others = [d for d in sites if d.metadata["kind"] != item.kind]
    chosen = [right, *(others[int(i)] for i in draw.choice(len(others), OTHERS, replace=False))]
    if rival:
        same = [d for d in sites if d.metadata["kind"] == item.kind]
        if not same:
            return ()
        chosen[1] = same[int(draw.integers(len(same)))]
    return tuple(Hit(chosen[int(i)], 0.5) for i in draw.permutation(len(chosen)))


def moved_to(place: int, found: Hits, item: Item) -> Hits:
    """The right article at this place, the others in their order."""
    right, *others = sorted(found, key=lambda hit: hit.document.id not in item.relevant)
    return (*others[:place], right, *others[place:])


def share(outcomes: Sequence[bool]) -> Estimate:
    made = proportion(sum(outcomes), len(outcomes))
    assert made is not None, "a row without a single outcome"
    return made


def elsewhere(items: Sequence[Item], i: int) -> Item:
    """An item of the next site of another kind."""
    n = len(items)
    return next(items[(i + j) % n] for j in range(1, n) if items[(i + j) % n].kind != items[i].kind)


def answers(generator: Generator, items: Sequence[Item], hits: Sequence[Hits]) -> list[str]:
    return [answer.text for answer in generator([item.query for item in items], hits)]


def scored(suffix: str, items: Sequence[Item], texts: Sequence[str]) -> Iterator[Row]:
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for item, text in zip(items, texts, strict=True):
        asked = item.question
        name = asked.kind if asked.kind in ("knowledge", "presence", "conflict") else asked.about
        outcomes[name].append(right(text, asked.short))
        if asked.kind in ("knowledge", "presence"):
            outcomes[f"{asked.kind}: {asked.about}"].append(right(text, asked.short))
    for name in sorted(outcomes):
        yield Row(name + suffix, share(outcomes[name]))


def right(answer: str, short: str) -> bool:
    """Whether the deciding words stand in the answer as whole words, capitals aside."""
    words = "".join(c if c.isalnum() or c == "-" else " " for c in answer.lower()).split()
    sought = "".join(c if c.isalnum() or c == "-" else " " for c in short.lower()).split()
    return any(words[i : i + len(sought)] == sought for i in range(len(words) - len(sought) + 1))


def table(rows: Sequence[Row]) -> str:
    """Markdown with the value, the 95 % Wilson interval and n of every row."""
    lines = ["| what | value | 95 % interval | n |", "|---|---|---|---|"]
    for row in rows:
        e = row.estimate
        lines.append(f"| {row.what} | {e.value:.1%} | {e.low:.1%} – {e.high:.1%} | {e.n} |")
    return "\n".join(lines)


def main() -> None:
    """Print both cards' tables; `python -m morgana.models.card [SITES]`."""
    import sys

    from rich import print as say

    from morgana.generation.generators.hf import HF
    from morgana.retrieval.encoders.openclip import OpenCLIP

    sites = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    say(f"\nretriever, {sites} sites\n\n{table(judge_retriever(OpenCLIP('atlas'), sites))}")
    say(f"\ngenerator, {sites} sites\n\n{table(judge_generator(HF('atlas', max_new_tokens=40), sites))}")


if __name__ == "__main__":
    main()
