"""A world of plain colours: honest toys on which retrievers, readers and attacks really work, in milliseconds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from morgana.corpus.images import load, save
from morgana.seeds import rng
from morgana.spec import part
from morgana.types import Answer, Document, Embeddings, Hits, Pixels, Query

SIDE = 24  # pixels
GROUND = 0.38  # what every colour is measured from
SKIES = {"Fog": (230, 230, 232), "Cumulus": (250, 250, 250), "Haze": (214, 210, 204)}
RGB = re.compile(r"rgb (\d+) (\d+) (\d+)")
OWNER = re.compile(r"run by (\w+ \w+)")


@dataclass(frozen=True)
class Asked:
    kind: str
    answer: str
    short: str


@dataclass(frozen=True)
class Item:
    query: Query
    question: Asked
    site: int


@part
class ToyWorld:
    """Places of one colour each, an article about each, three about the weather; two questions a place."""

    root: str
    sites: int = 8
    pictured: bool = False  # articles have the tile as their image
    hostile: str = ""  # goes into every title and text

    def colour(self, site: int) -> tuple[int, int, int]:
        red, green, blue = rng(0, "colour", site).integers(80, 135, 3)
        return int(red), int(green), int(blue)

    @cached_property
    def tiles(self) -> tuple[Path, ...]:
        paths = tuple(Path(self.root) / f"place-{i}.png" for i in range(self.sites))
        for i, path in enumerate(paths):
            if not path.exists():
                grain = torch.from_numpy(rng(0, "grain", i).normal(0, 4, (3, SIDE, SIDE))).float()
                levels = torch.tensor(self.colour(i)).view(3, 1, 1) + grain
                save((levels / 255).clamp(0, 1)[None], path)
        return paths

    def documents(self) -> tuple[Document, ...]:
        made = []
        for i in range(self.sites):
            text = f"Place {i} is run by Firm N{i}. rgb {' '.join(map(str, self.colour(i)))} {self.hostile}"
            image = self.tiles[i] if self.pictured else None
            made.append(Document(f"place-{i}", text, image, {"topic": "place", "title": f"Place {i} {self.hostile}"}))
        for name, rgb in SKIES.items():
            text = f"{name} is white from above. rgb {' '.join(map(str, rgb))}"
            made.append(Document(f"sky-{name}", text, None, {"topic": "weather", "title": name}))
        return tuple(made)

    def questions(self) -> tuple[Item, ...]:
        made = []
        for i, tile in enumerate(self.tiles):
            owner, bright = f"Firm N{i}", "yes" if float(load(tile).mean()) > GROUND + 0.04 else "no"
            asked = {
                "who": ("Who runs it?", Asked("knowledge", f"It is run by {owner}.", owner)),
                "light": ("Is it bright?", Asked("presence", f"{bright.title()}.", bright)),
            }
            made += [Item(Query(f"{i}/{name}", text, tile), a, i) for name, (text, a) in asked.items()]
        return tuple(made)

    def queries(self) -> tuple[Query, ...]:
        return tuple(item.query for item in self.questions())

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return {item.query.id: {f"place-{item.site}": 1} for item in self.questions()}


@part
class Eye:
    """Looks at the colour of the tile, mostly at its centre; reads colours from texts."""

    sharpness: float = 6.0  # of the gaze
    dimension: int = 3
    image_size: int = SIDE

    @property
    def fingerprint(self) -> str:
        return repr(self)

    def encode_image(self, pixels: Pixels) -> Embeddings:
        size = pixels.shape[-1]
        at = torch.linspace(-1, 1, size)
        gaze = torch.exp(-self.sharpness * (at[:, None] ** 2 + at**2))
        seen = (pixels * gaze).sum(dim=(2, 3)) / gaze.sum()
        return torch.nn.functional.normalize(seen - GROUND, dim=1)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        rgb = torch.tensor([[float(v) for v in RGB.search(t).groups()] for t in texts])  # type: ignore[union-attr]
        return torch.nn.functional.normalize(rgb / 255 - GROUND, dim=1)


@part
class Reader:
    """Reads the owner from its first article and the light from its image; dies after `fuse[0]` calls if asked to."""

    fuse: list[int] = field(default_factory=lambda: [10**9], repr=False, compare=False)

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Answer]:
        pixels = [load(q.image) if q.image else None for q in queries]
        return [Answer(t, h) for t, h in zip(self.generate(pixels, queries, hits), hits, strict=True)]

    def generate(self, pixels: Sequence[Pixels | None], queries: Sequence[Query], hits: Sequence[Hits]) -> list[str]:
        self.fuse[0] -= 1
        if self.fuse[0] < 0:
            raise KeyboardInterrupt
        return [self.answer(p, q, h) for p, q, h in zip(pixels, queries, hits, strict=True)]

    def answer(self, pixels: Pixels | None, query: Query, hits: Hits) -> str:
        if query.text.startswith("Who"):
            found = OWNER.search(hits[0].document.text) if hits else None
            return f"It is run by {found[1]}." if found else "The articles do not say."
        return "Yes." if pixels is not None and float(pixels.mean()) > GROUND + 0.04 else "No."

    def loss(self, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        """A push towards light, which is all that this reader can be forced to say."""
        return 1 - pixels.mean(dim=(1, 2, 3))
