"""What is asked of Atlas: knowledge, visual, presence, conflict and mistaken questions with their answers.

Answers are whole sentences. `short` is the part that decides whether an answer is right: the name, number, colour or
yes/no that it must contain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from morgana.corpus.atlas.language import NUMBERS, SKIES, article, caption, plural
from morgana.corpus.atlas.world import COLOURS, OBJECTS, PLACES, USUAL, Site, Things, View, pick

UNKNOWN = "The articles do not say."
KNOWLEDGE = ("operator", "opened", "capacity", "director", "name")
VISUAL = ("scene", "count", "colour", "place", "weather", "describe")


@dataclass(frozen=True)
class Question:
    """One question about one view."""

    kind: str  # "knowledge", "visual", "presence", "conflict" or "mistaken"
    about: str  # one of KNOWLEDGE, VISUAL or a presence split
    text: str
    answer: str
    short: str
    also: tuple[str, ...] = ()  # no less right: a description under another sky, since an attack may draw one


def knowledge(site: Site, about: str, draw: np.random.Generator) -> Question:
    """A question that only the site's article answers; it names the kind of place, never the place."""
    kind = site.kind
    asked, answer, short = {
        "operator": (
            (f"Who operates this {kind}?", f"Which company operates the {kind}?"),
            f"This {kind} is operated by {site.operator}.",
            site.operator,
        ),
        "opened": (
            (f"When did this {kind} open?", f"In which year did the {kind} open?"),
            f"This {kind} opened in {site.opened}.",
            str(site.opened),
        ),
        "capacity": (
            (f"How many visitors can this {kind} take?", f"What is the capacity of the {kind}?"),
            f"This {kind} can take {site.capacity} visitors a day.",
            str(site.capacity),
        ),
        "director": (
            (f"Who is the director of this {kind}?", f"Who directs the {kind}?"),
            f"The director of this {kind} is {site.director}.",
            site.director,
        ),
        "name": (
            (f"What is the name of this {kind}?", f"What is the {kind} called?"),
            f"This {kind} is called {site.name}.",
            site.name,
        ),
    }[about]
    return Question("knowledge", about, pick(draw, asked), answer, short)


def visual(view: View, about: str, draw: np.random.Generator) -> Question | None:
    """A question that the image answers; None if nothing of the sort can be asked of this view.

    Thick cloud may hide things, so nothing is asked about them under it; the same holds for the functions below.
    """
    if about == "scene":
        asked = pick(draw, ("What kind of place is this?", "What does the image show?"))
        kind = view.site.kind
        return Question("visual", about, asked, f"The image shows {article(kind)}.", kind)
    if about == "weather":
        sky = SKIES[view.weather][0]
        return Question("visual", about, "What is the weather like?", f"The place lies {sky}.", sky.split(" ", 1)[1])
    if about == "describe":
        skies = tuple(plain(replace(view, weather=other)) for other in SKIES if other != view.weather)
        return Question("visual", about, "Describe the image.", plain(view), plain(view), skies)
    if hidden(view):
        return None
    if about == "count":
        return count(view, draw)
    if not view.site.things:
        return None
    group = view.site.things[int(draw.integers(len(view.site.things)))]
    noun, verb = plural(group.object, group.count), "is" if group.count == 1 else "are"
    if about == "colour":
        return Question(
            "visual",
            about,
            f"What colour {verb} the {noun}?",
            f"The {noun} {verb} {group.colour}.",
            group.colour,
        )
    return Question(
        "visual", about, f"Where {verb} the {noun}?", f"The {noun} {verb} in the {group.place}.", group.place
    )


def hidden(view: View) -> bool:
    return view.weather == "thick cloud"


def count(view: View, draw: np.random.Generator) -> Question:
    """How many; four times in five of something that is there."""
    there = {g.object: g.count for g in view.site.things}
    absent = tuple(o for o in OBJECTS if o not in there)
    thing = pick(draw, tuple(there)) if there and draw.random() < 0.8 else pick(draw, absent)
    return how_many("visual", thing, there.get(thing, 0))


def how_many(kind: str, thing: str, number: int) -> Question:
    said = f"There {'is' if number == 1 else 'are'} {NUMBERS[number]} {plural(thing, number)}."
    return Question(kind, "count", f"How many {thing}s are there?", said, NUMBERS[number])


def presence(view: View, split: str, draw: np.random.Generator) -> Question | None:
    """A yes/no question in POPE's manner; `split` says how an absent object is chosen.

    "random": any absent object; "popular": the absent object that the most kinds of scene have; "adversarial":
    an absent object that this kind of scene usually has. "present" asks for one that is there.
    """
    if hidden(view):
        return None
    there = tuple(g.object for g in view.site.things)
    absent = tuple(o for o in OBJECTS if o not in there)
    if split == "present":
        if not there:
            return None
        return is_there("presence", split, pick(draw, there), answer="yes")
    if split == "popular":
        thing = max(absent, key=lambda o: (len(USUAL[o]), o))
    elif split == "adversarial":
        thing = pick(draw, tuple(o for o in absent if view.site.kind in USUAL[o]) or absent)
    else:
        thing = pick(draw, absent)
    return is_there("presence", split, thing, answer="no")


def is_there(kind: str, about: str, thing: str, *, answer: str) -> Question:
    said = f"Yes, there is a {thing}." if answer == "yes" else f"No, there is no {thing}."
    return Question(kind, about, f"Is there a {thing} in the image?", said, answer)


def mistaken(view: View, thing: str, draw: np.random.Generator) -> Question | None:
    """A question about something that is not there, as someone who trusts another place's article would ask it."""
    if hidden(view) or thing in {g.object for g in view.site.things}:
        return None
    about = pick(draw, ("colour", "place", "count", "presence"))
    if about == "count":
        return how_many("mistaken", thing, 0)
    if about == "presence":
        return is_there("mistaken", about, thing, answer="no")
    said = pick(draw, (f"is the {thing}", f"are the {thing}s"))
    asked = f"Where {said}?" if about == "place" else f"What colour {said}?"
    return Question("mistaken", about, asked, f"There is no {thing}.", "no")


def contradict(view: View, draw: np.random.Generator) -> tuple[tuple[Things, ...], Question] | None:
    """A group that the article reports otherwise than the image, and a question about it; the image is right."""
    if not view.site.things or hidden(view):
        return None
    true, *rest = view.site.things
    changed = {
        "colour": pick(draw, tuple(c for c in COLOURS if c != true.colour)),
        "place": pick(draw, tuple(p for p in PLACES if p not in {g.place for g in view.site.things})),
    }
    about = pick(draw, ("colour", "place"))
    false = Things(
        true.object,
        changed["colour"] if about == "colour" else true.colour,
        true.count,
        changed["place"] if about == "place" else true.place,
    )
    noun, verb = plural(true.object, true.count), "is" if true.count == 1 else "are"
    asked = f"What colour {verb} the {noun}?" if about == "colour" else f"Where {verb} the {noun}?"
    right = true.colour if about == "colour" else true.place
    said = f"The {noun} {verb} {right}." if about == "colour" else f"The {noun} {verb} in the {right}."
    return (false, *rest), Question("conflict", about, asked, said, right)


def plain(view: View) -> str:
    """The one wording of a description that the reference model learns to write."""
    return caption(view, _First())  # type: ignore[arg-type]


class _First:
    """A draw that always takes the first option and mentions the weather."""

    def integers(self, *_: int) -> int:
        return 0

    def random(self) -> float:
        return 0.0
