"""A world of twenty tiles and an index that knows scenes and weather, seen by a tiny convolutional encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn

from morgana.attacks.target import Surroundings, Target, aim
from morgana.attacks.threats.cloud_overlay import CloudOverlay
from morgana.seeds import seeded
from morgana.types import Document, Embeddings, Hits, Pixels, Query

SIDE, SCENES, TILES = 32, 5, 20


@dataclass(frozen=True)
class Convolved:
    """Two convolutions with random weights; the mean colour is taken out, so that embeddings spread."""

    dimension: int = 16
    image_size: int = SIDE
    fingerprint: str = "convolved"

    @cached_property
    def tower(self) -> nn.Module:
        with seeded(0, "tower"):
            return nn.Sequential(
                nn.Conv2d(3, 12, 5, stride=2, padding=2),
                nn.Tanh(),
                nn.Conv2d(12, 24, 3, stride=2, padding=1),
                nn.Tanh(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(96, self.dimension),
            ).requires_grad_(False)

    def encode_image(self, pixels: Pixels) -> Embeddings:
        found = self.tower((pixels - 0.45) * 4)
        return nn.functional.normalize(found - self.tower(torch.zeros(1, 3, SIDE, SIDE)), dim=1)

    def encode_text(self, texts: Sequence[str]) -> Embeddings:
        raise NotImplementedError


@dataclass
class Shelf:
    documents: list[Document]
    vectors: Tensor
    asked: list[str] = field(default_factory=list)

    @property
    def embeddings(self) -> tuple[list[str], Tensor]:
        return [d.id for d in self.documents], self.vectors

    def document(self, id: str) -> Document:
        self.asked.append(id)
        return next(d for d in self.documents if d.id == id)


@dataclass
class World:
    encoder: Convolved
    tiles: Pixels
    queries: list[Query]
    qrels: dict[str, dict[str, int]]
    around: Surroundings

    def target(self, rows: slice = slice(None), known: bool = True) -> Target:
        qrels = self.qrels if known else None
        return aim(self.around, self.encoder, self.tiles[rows], self.queries[rows], qrels, k=5)

    def hits(self, pixels: Pixels, k: int = 5) -> list[Hits]:
        with torch.no_grad():
            return self.around.search(self.encoder.encode_image(pixels), k)

    def weather(self, pixels: Pixels, k: int = 5) -> float:
        """Weather@k as a share of the places."""
        found = [hit.document.metadata["topic"] == "weather" for row in self.hits(pixels, k) for hit in row]
        return sum(found) / len(found)


def tiles(scene: int, count: int) -> Pixels:
    """Stripes and patches of a scene's colours, on the 8-bit grid."""
    with seeded(0, "scene", scene):
        base = torch.rand(1, 3, 1, 1) * 0.5
        pattern = nn.functional.interpolate(torch.rand(1, 3, 4, 4), SIDE) * 0.35
    with seeded(1, "tiles", scene):
        detail = nn.functional.interpolate(torch.rand(count, 3, 8, 8), SIDE) * 0.2
    return ((base + pattern + detail).clamp(0, 1) * 255).round() / 255


@pytest.fixture(scope="session")
def world() -> World:
    encoder = Convolved()
    scenes = [tiles(scene, 12) for scene in range(SCENES)]
    shown = torch.cat([found[: TILES // SCENES] for found in scenes])
    documents, images = [], []
    for number, found in enumerate(scenes):
        for row in range(4, 12):
            documents.append(Document(f"scene{number}-{row}", metadata={"topic": f"scene{number}"}))
            images.append(found[row : row + 1])
    overcast = CloudOverlay(max_cover=0.7)
    with seeded(0, "weather"):
        beneath = torch.cat([found[8:12] for found in scenes])
        images.append(overcast.render(beneath, overcast.start(beneath)))
    documents += [Document(f"weather-{row}", metadata={"topic": "weather"}) for row in range(len(beneath))]
    queries = [Query(f"tile{row}") for row in range(TILES)]
    each = TILES // SCENES
    qrels = {f"tile{row}": {f"scene{row // each}-4": 1, f"scene{row // each}-5": 1} for row in range(TILES)}
    with torch.no_grad():
        shelf = Shelf(documents, encoder.encode_image(torch.cat(images)))
    return World(encoder, shown, queries, qrels, Surroundings(shelf))
