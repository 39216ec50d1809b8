"""Atlas as a corpus: articles to retrieve, and questions about tiles with their answers and relevant articles."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from morgana import files
from morgana.corpus.atlas.language import (
    ATMOSPHERE,
    DISTRACTORS,
    atmosphere_article,
    kind_article,
    site_article,
)
from morgana.corpus.atlas.questions import KNOWLEDGE, Question, contradict, knowledge, presence, visual
from morgana.corpus.atlas.world import KINDS, WEATHERS, Site, View, site, view
from morgana.seeds import derive, rng
from morgana.spec import nearest, part
from morgana.types import Document, Query, SpecError

FIRST = {"train": 0, "test": 10_000_000}  # site numbers; models train below 10,000,000 and are judged above
LOOKS = ("scene", "count", "colour", "place", "weather", "describe")
SPLITS = ("present", "random", "popular", "adversarial")
VERSION = 3  # of the renderer and the wording: a cached tile of another version is rendered anew


@dataclass(frozen=True)
class Item:
    """A query with everything that judging it needs; `site` is the cluster for intervals."""

    query: Query
    question: Question
    relevant: tuple[str, ...]  # ids of the articles that answer it (knowledge) or describe the place
    site: int
    kind: str
    weather: str


@part
class Atlas:
    """`sites` named places with an article each, seen once, under `weather` ("natural" for the world's own mix).

    Documents are the site articles, two dozen articles on kinds of place, eighteen on the atmosphere
    (metadata topic "weather") and two dozen about anything else. One site in five has an article that reports one
    visible detail wrongly, for the conflict questions. Test sites were never seen in training.
    """

    sites: int = 240
    seed: int = 0
    split: str = "test"
    weather: str = "natural"
    size: int = 96  # pixels

    def __post_init__(self) -> None:
        if self.sites < 1:
            raise SpecError(f"Atlas(sites={self.sites!r}): a world needs at least one site")
        if self.split not in FIRST:
            raise SpecError(
                f"Atlas has no split {self.split!r}{nearest(self.split, list(FIRST))}; it has train and test"
            )
        if self.weather != "natural" and self.weather not in WEATHERS:
            known = ["natural", *WEATHERS]
            raise SpecError(
                f"Atlas has no weather {self.weather!r}{nearest(self.weather, known)}; it has {', '.join(known)}"
            )

    @cached_property
    def places(self) -> tuple[Site, ...]:
        return tuple(site(self.seed, FIRST[self.split] + i) for i in range(self.sites))

    @cached_property
    def views(self) -> tuple[View, ...]:
        weather = None if self.weather == "natural" else self.weather
        return tuple(view(self.seed, s, 0, weather) for s in self.places)

    def documents(self) -> tuple[Document, ...]:
        return self._documents

    def queries(self) -> tuple[Query, ...]:
        return tuple(item.query for item in self.questions())

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return {item.query.id: dict.fromkeys(item.relevant, 1) for item in self.questions()}

    def questions(self) -> tuple[Item, ...]:
        """Every question of every view: one of knowledge, the six visual ones, four of presence, one of conflict.

        Where the weather is the same everywhere nobody asks about it: there is nothing to see, and clouds that an
        attack draws would make the answer false.
        """
        return self._questions

    @cached_property
    def _false(self) -> Mapping[int, tuple[Site, Question]]:
        """Sites whose article is wrong about one visible detail, as their article has them, and the question on it."""
        found = {}
        for seen in self.views:
            draw = rng(self.seed, "conflict", seen.site.number)
            if draw.random() < 0.2 and (false := contradict(seen, draw)):
                found[seen.site.number] = (replace(seen.site, things=false[0]), false[1])
        return found

    @cached_property
    def _documents(self) -> tuple[Document, ...]:
        def document(id: str, text: str, topic: str, **metadata: str) -> Document:
            return Document(id, text, metadata=MappingProxyType({"topic": topic, **metadata}))

        places = [self._false[s.number][0] if s.number in self._false else s for s in self.places]
        return (
            *(
                document(
                    site_id(s),
                    site_article(s, rng(self.seed, "article", s.number)),
                    "site",
                    kind=s.kind,
                    title=s.name,
                )
                for s in places
            ),
            *(document(f"kind-{slug(k)}", kind_article(k), "kind", kind=k, title=k.capitalize()) for k in KINDS),
            *(document(f"weather-{slug(t)}", atmosphere_article(t), "weather", title=t) for t in ATMOSPHERE),
            *(document(f"other-{slug(t)}", text, "other", title=t) for t, text in DISTRACTORS.items()),
        )

    @cached_property
    def _questions(self) -> tuple[Item, ...]:
        paths = self.tiles()
        found = []
        for seen, path in zip(self.views, paths, strict=True):
            counted: Counter[str] = Counter()
            for asked in self._asked(seen):
                number = counted[asked.kind]
                counted[asked.kind] += 1
                if asked.about == "weather" and self.weather != "natural":
                    continue
                id = f"{site_id(seen.site)}/{asked.kind}-{number}"
                query = Query(id, asked.text, path)
                found.append(Item(query, asked, (site_id(seen.site),), seen.site.number, seen.site.kind, seen.weather))
        return tuple(found)

    def _asked(self, seen: View) -> Iterator[Question]:
        draw = rng(self.seed, "questions", seen.site.number)
        yield knowledge(seen.site, KNOWLEDGE[seen.site.number % len(KNOWLEDGE)], draw)
        yield from (q for about in LOOKS if (q := visual(seen, about, draw)))
        yield from (q for split in SPLITS if (q := presence(seen, split, draw)))
        if seen.site.number in self._false:
            yield self._false[seen.site.number][1]

    def tiles(self) -> tuple[Path, ...]:
        """A PNG of every view, rendered into the cache once."""
        folder = files.cache("atlas") / f"{derive(VERSION, repr(self)):016x}"
        paths = tuple(folder / f"{site_id(v.site)}.png" for v in self.views)
        missing = [(v, p) for v, p in zip(self.views, paths, strict=True) if not p.exists()]
        if missing:
            from PIL import Image

            from morgana.corpus.atlas.render import render

            folder.mkdir(parents=True, exist_ok=True)
            for seen, path in missing:
                beside = path.with_suffix(f".{os.getpid()}.part")
                Image.fromarray(np.asarray(render(seen, self.size))).save(beside, "PNG")
                os.replace(beside, path)
        return paths


def site_id(place: Site) -> str:
    return f"site-{place.number:08d}"


def slug(title: str) -> str:
    return title.lower().replace(" ", "-")
