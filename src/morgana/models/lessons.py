"""What the reference MLLM is taught: a view, some articles, and several questions about them in one conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from morgana.corpus.atlas.language import (
    ATMOSPHERE,
    DISTRACTORS,
    atmosphere_article,
    kind_article,
    named,
    site_article,
)
from morgana.corpus.atlas.questions import (
    KNOWLEDGE,
    UNKNOWN,
    VISUAL,
    Question,
    contradict,
    hidden,
    knowledge,
    mistaken,
    presence,
    visual,
)
from morgana.corpus.atlas.world import KINDS, Site, View, pick, site, view

TRAIN_SITES = 10_000_000  # numbers below this are for training; the corpus `Atlas` takes its sites from above
TRIES = 20  # questions drawn before a view is held to have no more
SPLITS = ("present", "random", "popular", "adversarial")
LOOKS = (*VISUAL, "scene", "count", "count", "colour", "place")  # what is learned last is asked most
ASKED = 0.35  # share of the looks that are yes/no questions
MISTAKEN = 0.2  # share of the looks at something that only an article speaks of
CONFLICT, RIVAL = (
    0.33,
    0.33,
)  # shares of the lessons with the site's article: one detail wrong; a like place's beside it
RANKED = 0.8  # share of the like places that come behind the own article, as from a retriever that is mostly right
NAMED_FIRST = 0.5  # share of the lessons whose first knowledge question is for the name, the longest thing to copy


@dataclass(frozen=True)
class Lesson:
    """One conversation: what is seen, what was retrieved, what is asked and answered."""

    view: View
    articles: tuple[str, ...]
    questions: tuple[Question, ...]


def lesson(draw: np.random.Generator, seed: int, articles: int = 3, turns: int = 5, sites: int = TRAIN_SITES) -> Lesson:
    """A conversation about a training site.

    Visual questions come before any knowledge question, which would name the kind of place. The site's own article
    is there in 70 % of the lessons; in some one visible detail of it is wrong, and in some an article of a place of
    the same kind stands beside it, mostly behind it, since retrievers put the best first. So no article is a safe guide
    to what the image shows, nor the kind of place to which article is meant.
    """
    seen = view(seed, site(seed, int(draw.integers(sites))), int(draw.integers(1000)))
    texts = [other_article(draw, seed, seen.site, sites) for _ in range(articles)]
    known = articles > 0 and draw.random() < 0.7
    asked = []
    if known:
        described, conflict = seen.site, None
        chance = draw.random()
        if chance < CONFLICT and (false := contradict(seen, draw)):
            described, conflict = replace(seen.site, things=false[0]), false[1]
        own, *rest = draw.permutation(articles).tolist()
        if rest and CONFLICT < chance < CONFLICT + RIVAL and not hidden(seen):
            own, other = sorted((own, rest[0]), reverse=draw.random() >= RANKED)
            texts[other] = site_article(rival(draw, seed, seen.site, sites), draw)
        texts[own] = site_article(described, draw)
        if conflict:
            asked.append(conflict)
    absent = told(texts, seen)
    looks = int(draw.integers(1, turns)) if known else turns - 1
    for _ in range(TRIES):
        question = look(seen, draw, absent)
        if question and len(asked) < looks and question.text not in {q.text for q in asked}:
            asked.append(question)
    asked.sort(key=lambda q: q.about == "describe")  # a description answers every question after it
    about = [str(a) for a in draw.permutation(KNOWLEDGE)]
    if draw.random() < NAMED_FIRST:
        about.sort(key=lambda a: a != "name")
    about = about[: max(1, turns - len(asked))]
    asked += [knowledge(seen.site, a, draw) for a in about]
    if not known:
        asked = [replace(q, answer=UNKNOWN, short=UNKNOWN) if q.kind == "knowledge" else q for q in asked]
    return Lesson(seen, tuple(texts), tuple(asked))


def reading(
    draw: np.random.Generator, seed: int, articles: int = 3, turns: int = 10, sites: int = TRAIN_SITES
) -> Lesson:
    """A lesson in reading comprehension: questions about every article in turn, none about what the image shows."""
    found: dict[str, Site] = {}
    while len(found) < articles:
        other = site(seed, int(draw.integers(sites)))
        found.setdefault(other.kind, other)
    pairs = [(s, a) for s in found.values() for a in KNOWLEDGE]
    asked = [knowledge(pairs[i][0], pairs[i][1], draw) for i in draw.permutation(len(pairs))[:turns]]
    first = next(iter(found.values()))
    return Lesson(view(seed, first, 0), tuple(site_article(s, draw) for s in found.values()), tuple(asked))


def told(texts: Sequence[str], seen: View) -> tuple[str, ...]:
    """The objects that some article speaks of and the image does not show."""
    there = {group.object for group in seen.site.things}
    return tuple(o for o in named(" ".join(texts)) if o not in there)


def look(seen: View, draw: np.random.Generator, absent: tuple[str, ...]) -> Question | None:
    if absent and draw.random() < MISTAKEN:
        return mistaken(seen, pick(draw, absent), draw)
    if draw.random() < ASKED:
        return presence(seen, pick(draw, SPLITS), draw)
    return visual(seen, pick(draw, LOOKS), draw)


def rival(draw: np.random.Generator, seed: int, at: Site, sites: int) -> Site:
    """A site of the same kind that looks otherwise."""
    while True:
        other = site(seed, int(draw.integers(sites)))
        if other.kind == at.kind and set(other.things) != set(at.things):
            return other


def other_article(draw: np.random.Generator, seed: int, at: Site, sites: int) -> str:
    """An article that is not about this site: most often that of a site of another kind."""
    chance = draw.random()
    if chance < 0.6:
        while True:
            other = site(seed, int(draw.integers(sites)))
            if other.kind != at.kind:
                return site_article(other, draw)
    if chance < 0.75:
        return kind_article(KINDS[int(draw.integers(len(KINDS)))])
    if chance < 0.95:
        return atmosphere_article(pick(draw, tuple(ATMOSPHERE)))
    return DISTRACTORS[pick(draw, tuple(DISTRACTORS))]
