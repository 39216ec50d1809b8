"""What the reference MLLM is taught: a view, some articles, and several questions about them in one conversation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from morgana.corpus.atlas.language import (
    ATMOSPHERE,
    DISTRACTORS,
    atmosphere_article,
    kind_article,
    site_article,
)
from morgana.corpus.atlas.questions import (
    KNOWLEDGE,
    UNKNOWN,
    VISUAL,
    Question,
    contradict,
    knowledge,
    presence,
    visual,
)
from morgana.corpus.atlas.world import KINDS, Site, View, pick, site, view

TRAIN_SITES = 10_000_000  # numbers below this are for training; the corpus `Atlas` takes its sites from above
TRIES = 20  # questions drawn before a view is held to have no more
SPLITS = ("present", "present", "random", "popular", "adversarial")
LOOKS = (*VISUAL, "count", "count", "place")  # what is learned last is asked most
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
    is there in 70 % of the lessons, in a third of those with one visible detail wrong; so an article is never a
    safe guide to what the image shows.
    """
    seen = view(seed, site(seed, int(draw.integers(sites))), int(draw.integers(1000)))
    texts = [other_article(draw, seed, seen.site, sites) for _ in range(articles)]
    known = articles > 0 and draw.random() < 0.7
    asked = []
    if known:
        described, conflict = seen.site, None
        if draw.random() < 0.33 and (false := contradict(seen, draw)):
            described, conflict = replace(seen.site, things=false[0]), false[1]
        texts[int(draw.integers(articles))] = site_article(described, draw)
        if conflict:
            asked.append(conflict)
    looks = int(draw.integers(1, turns)) if known else turns - 1
    for _ in range(TRIES):
        question = look(seen, draw)
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


def look(seen: View, draw: np.random.Generator) -> Question | None:
    if draw.random() < 0.3:
        return presence(seen, pick(draw, SPLITS), draw)
    return visual(seen, pick(draw, LOOKS), draw)


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
