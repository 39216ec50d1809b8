"""Photographs of AID as batches of images and texts: random views, colours, and clouds over a part of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from morgana.corpus._views import view
from morgana.corpus.aid import Tile
from morgana.corpus.atlas.world import pick
from morgana.corpus.clouds import composite, drifted, fractal, maps_for, opacity
from morgana.corpus.images import load
from morgana.models import _aid_words as words
from morgana.seeds import rng

STORED = 128  # side of a photograph in memory
WEATHER = "weather"  # the key of a pair whose text is about weather alone
SKY = 0.35  # share of the images with something in the air
COVER = (0.04, 0.75)  # mean opacity
SEEN, HIDDEN = 0.15, 0.6  # cover up to which the scene is the subject, and from which on the weather mostly is
OWN, TEMPLATE = 0.6, 0.5  # chance of a tile's own caption, and otherwise of a class template
ZOOM, TILT = (0.65, 1.05), 0.26  # share of the tile's side that is shown; radians


class Batch(NamedTuple):
    """Images (B, 3, S, S) uint8 with their keys, and texts, of which the first B are the images' own.

    A key is what decides a match: the label, or weather. A caption may serve several labels.
    """

    images: Tensor
    keys: tuple[str, ...]
    texts: tuple[str, ...]
    fits: tuple[frozenset[str], ...]  # keys that each text fits


@dataclass(frozen=True, eq=False)
class Lessons:
    """The training photographs in memory; batch s follows from the seed and s alone."""

    tiles: Sequence[Tile]
    photographs: Tensor  # (N, 3, STORED, STORED) uint8
    clouds: Path
    seed: int
    size: int  # of a batch
    pools: dict[str, tuple[str, ...]] = field(default_factory=dict)  # label -> captions
    owners: dict[str, frozenset[str]] = field(default_factory=dict)  # caption -> labels

    def __post_init__(self) -> None:
        owned: dict[str, set[str]] = {}
        pooled: dict[str, list[str]] = {t.label: [] for t in self.tiles}
        for tile in self.tiles:
            for text in tile.captions:
                owned.setdefault(text, set()).add(tile.label)
                pooled[tile.label].append(text)
        self.pools.update({label: tuple(texts) for label, texts in pooled.items()})
        self.owners.update({text: frozenset(labels) for text, labels in owned.items()})

    def batch(self, step: int, side: int) -> Batch:
        draw = rng(self.seed, "aid", step)
        chosen = self.order(step)
        pixels = self.photographs[torch.from_numpy(chosen)].float() / 255
        pixels = coloured(view(pixels, draw, (side, side), ZOOM, TILT), draw)
        pixels, covers, veils = self.under_sky(pixels, draw)
        skies = zip(chosen.tolist(), covers.tolist(), veils, strict=True)
        pairs = [self.text(self.tiles[i], cover, veil, draw) for i, cover, veil in skies]
        extra = [(words.named(label, draw), frozenset({label})) for label in sorted(self.pools)]
        extra += [(words.weather(veil, draw), frozenset({WEATHER})) for veil in words.VEILS]
        texts = [(text, fits) for text, _, fits in pairs] + extra
        images = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        return Batch(images, tuple(k for _, k, _ in pairs), tuple(t for t, _ in texts), tuple(f for _, f in texts))

    def order(self, step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Which tiles: each once in every round through all of them."""
        count, places = len(self.tiles), np.arange(step * self.size, (step + 1) * self.size)
        rounds = {int(r): rng(self.seed, "round", int(r)).permutation(count) for r in np.unique(places // count)}
        return np.array([rounds[int(p // count)][p % count] for p in places])

    def under_sky(self, pixels: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor, list[str]]:
        """The images with real clouds, fractal clouds or a veil over a part of them; their covers, and what it is."""
        count, size = len(pixels), (pixels.shape[2], pixels.shape[3])
        kind = draw.choice(4, count, p=(1 - SKY, 0.45 * SKY, 0.4 * SKY, 0.15 * SKY))
        shapes = torch.zeros(count, 1, *size)
        for number, made in ((1, self.real), (2, fractal)):
            rows = torch.from_numpy(np.flatnonzero(kind == number))
            if len(rows):
                shapes[rows] = made(draw, len(rows), size)
        shapes[torch.from_numpy(kind == 3)] = 1.0
        cover = torch.from_numpy(draw.uniform(*COVER, count).astype(np.float32)) * torch.from_numpy(kind > 0)
        white = torch.from_numpy(draw.uniform(0.8, 1.0, count).astype(np.float32)).view(-1, 1, 1, 1)
        alpha = opacity(shapes, cover)
        found = alpha.mean((1, 2, 3))
        veils = ["haze" if k == 3 else "thin cloud" if c < 0.3 else "thick cloud" for k, c in zip(kind, found)]  # noqa: B905
        return composite(pixels, alpha, white), found, veils

    def real(self, draw: np.random.Generator, count: int, size: tuple[int, int]) -> Tensor:
        return drifted(maps_for(self.clouds, "train"), draw, count, size)

    def text(self, tile: Tile, cover: float, veil: str, draw: np.random.Generator) -> tuple[str, str, frozenset[str]]:
        """A text for the tile under a sky of this cover, its key, and the keys that it fits."""
        if draw.random() < 0.9 * (cover - SEEN) / (HIDDEN - SEEN):
            return words.weather(veil, draw), WEATHER, frozenset({WEATHER})
        pool, fits = tile.captions, frozenset({tile.label})
        if not pool or draw.random() > OWN:
            pool = () if draw.random() < TEMPLATE else self.pools[tile.label]
        if pool:
            caption = pick(draw, pool)
            text, fits = words.worn(caption, draw), self.owners[caption]
        else:
            text = words.named(tile.label, draw)
        return (words.beside(text, veil, draw) if cover > SEEN else text), tile.label, fits


def coloured(pixels: Tensor, draw: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation of each image changed a little; one in ten is grey."""
    count = len(pixels)

    def factor(low: float, high: float) -> Tensor:
        return torch.from_numpy(draw.uniform(low, high, count).astype(np.float32)).view(-1, 1, 1, 1)

    colour = factor(0.6, 1.4) * torch.from_numpy(draw.random(count) > 0.1).view(-1, 1, 1, 1)
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * colour
    middle = pixels.mean((1, 2, 3), keepdim=True)
    return ((pixels - middle) * factor(0.7, 1.3) + middle * factor(0.75, 1.25)).clamp(0, 1)


def photographs(tiles: Sequence[Tile], side: int = STORED) -> Tensor:
    """Every tile, decoded once, (N, 3, side, side) uint8."""
    made = torch.empty(len(tiles), 3, side, side, dtype=torch.uint8)
    for row, tile in enumerate(tiles):
        pixels = functional.interpolate(load(tile.image), (side, side), mode="bicubic", antialias=True)
        made[row] = (pixels[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return made
