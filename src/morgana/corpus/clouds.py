"""Clouds that nobody optimised: real cloud-probability maps and fractal skies, laid over images at a given cover."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from morgana import files
from morgana.corpus._views import view
from morgana.corpus.images import load, save, save_cover
from morgana.seeds import derive, rng
from morgana.spec import part
from morgana.types import Corpus, Document, Pixels, Query, SpecError, StoreError

BLUR = 1.5  # pixels: the maps are made of blocks of 2 to 4
CLOUDY = 0.04  # share of a map above one half, from which on it shows a cloud and not the detector's noise
MAX_OPACITY = 0.9
MAX_GAIN = 2.5  # from probability to opacity; more would turn noise into clouds
HALVINGS = 24
TRIES = 200
EVERY = 3  # one map in three is for judging, the others are for training
VERSION = 1  # of how an image is made: a cached one of another version is made anew


@cache
def read_maps(folder: Path) -> Tensor:
    """The probability maps of a folder's PNG files that show a cloud, blurred, (N, 1, S, S) in [0, 1].

    Raises StoreError where there are none.
    """
    files = sorted(Path(folder).glob("*.png"))
    if not files:
        raise StoreError(f"there are no cloud maps (*.png) in {folder}; name the folder of the real data's clouds")
    maps = [load(file)[:, :1] for file in files]
    side = min(min(m.shape[2:]) for m in maps)
    found = [blur(m[:, :, :side, :side]) for m in maps if float((m > 0.5).float().mean()) >= CLOUDY]
    if not found:
        raise StoreError(
            f"no map of {folder} has {CLOUDY:.0%} of its pixels above one half; all {len(files)} are clear"
        )
    return torch.cat(found)


def maps_for(folder: Path, split: str) -> Tensor:
    """The maps to train with, or those to judge with (`dev`), or `all`."""
    maps = read_maps(folder)
    held = torch.arange(len(maps)) % EVERY == 0
    if split not in ("train", "dev", "all"):
        raise SpecError(f"cloud maps have no split {split!r}; there are train, dev and all")
    return maps if split == "all" else maps[held if split == "dev" else ~held]


def blur(maps: Tensor, sigma: float = BLUR) -> Tensor:
    """Gaussian blur of (B, 1, H, W), mirrored at the border."""
    reach = int(3 * sigma + 0.5)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2).to(maps)
    line = line / line.sum()
    wide = functional.pad(maps, (reach, reach, reach, reach), mode="reflect")
    return functional.conv2d(functional.conv2d(wide, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))


def drifted(maps: Tensor, draw: np.random.Generator, count: int, size: tuple[int, int]) -> Tensor:
    """`count` random views of random maps, (count, 1, *size)."""
    chosen = torch.from_numpy(draw.integers(0, len(maps), count))
    return view(maps[chosen], draw, size, (0.5, 1.0)).clamp(0, 1)


def fractal(draw: np.random.Generator, count: int, size: tuple[int, int], octaves: int = 5) -> Tensor:
    """Cloud shapes of 1/f noise on grids of 2, 4, 8, … cells, (count, 1, *size) in [0, 1]."""
    total = torch.zeros(count, 1, *size)
    for octave in range(octaves):
        cells = 2 * 2**octave + 1
        grid = torch.from_numpy(draw.standard_normal((count, 1, cells, cells)).astype(np.float32))
        total += 0.5**octave * functional.interpolate(grid, size, mode="bicubic", align_corners=True)
    level = torch.from_numpy(draw.uniform(-0.5, 1.0, count).astype(np.float32)).view(-1, 1, 1, 1)
    soft = torch.from_numpy(draw.uniform(0.15, 0.6, count).astype(np.float32)).view(-1, 1, 1, 1)
    return torch.sigmoid((total - level) / soft)


def opacity(shapes: Tensor, cover: Tensor, max_opacity: float = MAX_OPACITY) -> Tensor:
    """Shapes (B, 1, H, W) in [0, 1], scaled so that their mean opacity is `cover` (B,), nowhere above the maximum.

    A shape too thin to reach its cover at a gain of `MAX_GAIN` stays below it.
    """
    low, high = torch.zeros_like(cover), torch.full_like(cover, MAX_GAIN)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        much = scaled(shapes, middle, max_opacity).mean((1, 2, 3)) > cover
        low, high = torch.where(much, low, middle), torch.where(much, middle, high)
    return scaled(shapes, low, max_opacity)


def scaled(shapes: Tensor, gain: Tensor, max_opacity: float) -> Tensor:
    return (shapes * gain.view(-1, 1, 1, 1)).clamp(max=max_opacity)


def composite(pixels: Pixels, alpha: Tensor, white: Tensor | float = 0.95) -> Pixels:
    """Clouds of one grey level (a number, or (B, 1, 1, 1)) over images, by opacity (B, 1, H, W)."""
    return pixels * (1 - alpha) + white * alpha


def real_clouds(maps: Tensor, draw: np.random.Generator, size: tuple[int, int], cover: float) -> Tensor:
    """The opacity of one real sky at a mean of `cover`, (1, 1, *size); SpecError if no map can give as much."""
    for _ in range(TRIES):
        alpha = opacity(drifted(maps, draw, 1, size), torch.tensor([cover]))
        if abs(float(alpha.mean()) - cover) < 0.002:
            return alpha
    raise SpecError(f"no view of the {len(maps)} cloud maps reaches a mean cover of {cover:g}; ask for less")


@part
class Clouded:
    """A corpus whose queries' images lie under real clouds of mean opacity `cover`, from the maps kept for judging.

    The images are written once, as PNG with their opacity (`NAME.cover.png`) beside, into the cache
    (`$MORGANA_CACHE`, or `~/.cache/morgana`). Query ids, documents and relevance are the inner corpus's.
    """

    corpus: Corpus
    clouds: str  # folder of cloud-probability maps
    cover: float = 0.12  # mean opacity
    split: str = "dev"  # which maps: dev, train or all
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.cover <= 0.6:
            raise SpecError(f"Clouded takes a cover above 0 and up to 0.6, a mean opacity, and got {self.cover!r}")

    def documents(self) -> tuple[Document, ...]:
        return tuple(self.corpus.documents())

    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        return self.corpus.qrels()

    def queries(self) -> tuple[Query, ...]:
        return self._queries

    @cached_property
    def _queries(self) -> tuple[Query, ...]:
        maps = maps_for(Path(self.clouds), self.split)
        folder = files.cache("clouded") / f"{derive(VERSION, repr(self)):016x}"
        return tuple(Query(q.id, q.text, self._under(q, maps, folder)) for q in self.corpus.queries())

    def _under(self, query: Query, maps: Tensor, folder: Path) -> Path:
        if query.image is None:
            raise StoreError(f"{query.id!r} of {self.corpus!r} has no image to lay clouds over")
        path = folder / f"{derive(0, query.id):016x}-{query.image.stem}.png"
        if not path.is_file():
            draw = rng(self.seed, "clouded", query.id)
            pixels: Any = load(query.image)
            alpha = real_clouds(maps, draw, (pixels.shape[2], pixels.shape[3]), self.cover)
            save_cover(alpha, path)
            save(composite(pixels, alpha, float(draw.uniform(0.88, 1.0))), path)
        return path
