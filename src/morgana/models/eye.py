"""Teaches a vision tower what is where: dense supervision from Atlas's exact ground truth, before any text.

Contrastive training on whole captions learned the kind of scene and stopped there (docs/log.md); told directly which
things stand in which of the nine cells, the same tower learns them from fewer tiles. The heads are thrown away.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.things import GRID
from morgana.corpus.atlas.world import (
    COLOURS,
    KINDS,
    LIGHTS,
    OBJECTS,
    SEASONS,
    WEATHERS,
    Things,
    View,
    pick,
    site,
    view,
)
from morgana.models.feed import behind, feed
from morgana.models.lessons import TRAIN_SITES
from morgana.models.loop import Recipe, train
from morgana.seeds import rng, seeded

SIZE = 96  # pixels
MEAN, STD = 0.5, 0.25
BATCH = 32
CROWDED, FULL = 0.6, 0.8  # share of the tiles with things in most cells, and the chance that a cell of theirs has some
CELL = (len(OBJECTS) + 1, len(COLOURS) + 1, 5)  # classes of a cell: which things (0: none), their colour, how many
WHOLE = (len(KINDS), len(SEASONS), len(LIGHTS), len(WEATHERS), *[5] * len(OBJECTS), *[2] * len(COLOURS))


class Heads(nn.Module):
    """Linear readers of the patches (B, 144, width) and of the image embedding (B, d)."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cell = nn.Linear(width, sum(CELL))
        self.whole = nn.Linear(embedding, sum(WHOLE))

    def forward(self, patches: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the nine cells (B, 9, sum(CELL)) and of the whole tile (B, sum(WHOLE))."""
        side = int(patches.shape[1] ** 0.5)
        grid = self.norm(patches).unflatten(1, (3, side // 3, 3, side // 3))
        return self.cell(grid.mean((2, 4)).flatten(1, 2)), self.whole(embedding)


class Pupil(nn.Module):
    """An open_clip vision tower with reading heads on it."""

    def __init__(self, tower: Any, width: int, embedding: int) -> None:
        super().__init__()
        self.tower, self.heads = tower, Heads(width, embedding)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As `Heads`, from normalised pixels (B, 3, 96, 96); patches are the output of the last layer but one."""
        embedding, patches = look(self.tower, pixels)
        cells, whole = self.heads(patches, embedding)
        return cells.float(), whole.float()


def look(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The image embedding (B, d) and the patches (B, 144, width) that the bundled MLLM is shown."""
    kept: list[Tensor] = []
    handle = tower.transformer.resblocks[-2].register_forward_hook(lambda *call: kept.append(call[2]))
    try:
        embedding = tower(pixels)
    finally:
        handle.remove()
    return embedding, kept[0][:, 1:]


def labels(views: list[View]) -> tuple[Tensor, Tensor]:
    """Classes of the nine cells (B, 9, 3), and of the whole (B, len(WHOLE)); -1 where unknown."""
    cells = torch.zeros(len(views), 9, 3, dtype=torch.long)
    whole = torch.zeros(len(views), len(WHOLE), dtype=torch.long)
    for i, seen in enumerate(views):
        whole[i, :4] = torch.tensor(
            [
                KINDS.index(seen.site.kind),
                SEASONS.index(seen.season),
                LIGHTS.index(seen.light),
                WEATHERS.index(seen.weather),
            ]
        )
        for group in seen.site.things:
            row, column = GRID[group.place]
            thing, colour = OBJECTS.index(group.object), COLOURS.index(group.colour)
            cells[i, 3 * row + column] = torch.tensor([thing + 1, colour + 1, group.count])
            whole[i, 4 + thing] = group.count
            whole[i, 4 + len(OBJECTS) + colour] = 1
        if seen.weather == "thick cloud":
            cells[i] = -1
        if seen.weather == "thick cloud" or len(seen.site.things) > 2:
            whole[i, 4:] = -1
    return cells, whole


def loss_of_reading(read: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropies of which things, what colour and how many in a cell, and of each fact about the whole."""
    cells, whole = (
        torch.stack(
            [
                nn.functional.cross_entropy(part.flatten(0, -2), wanted.flatten(), ignore_index=-1)
                for part, wanted in zip(torch.split(logits, list(sizes), -1), classes.unbind(-1), strict=True)
            ]
        ).sum()
        for logits, sizes, classes in zip(read, (CELL, WHOLE), truth, strict=True)
    )
    return 3 * cells + 0.3 * whole


def tiles(seed: int, step: int, size: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Tiles (B, 3, 96, 96) uint8 of training sites and their labels; CROWDED of them hold things in most cells."""
    draw = rng(seed, "eye", step)
    views = [view(seed, site(seed, int(draw.integers(TRAIN_SITES))), int(draw.integers(1000))) for _ in range(size)]
    views = [crowd(v, draw) if i < CROWDED * size else v for i, v in enumerate(views)]
    pixels = torch.stack([torch.from_numpy(render(v, SIZE)).permute(2, 0, 1) for v in views])
    return pixels, *labels(views)


def crowd(seen: View, draw: np.random.Generator) -> View:
    """The view with things of any kind in each cell, with a chance of FULL: many times the lessons in one tile."""
    groups = [
        Things(pick(draw, OBJECTS), pick(draw, COLOURS), int(draw.integers(1, 5)), place)
        for place in GRID
        if draw.random() < FULL
    ]
    return replace(seen, site=replace(seen.site, things=tuple(groups)))


def teach_eye(model: Any, work: Path, steps: int, seed: int, device: str) -> Heads:
    """Train `model.visual` of an open_clip model for `steps` batches of 32 tiles; the heads that read it by then."""
    with seeded(seed, "eye", "weights"):
        pupil = Pupil(model.visual, model.visual.proj.shape[0], model.visual.proj.shape[1]).to(device)
    batches = feed(partial(tiles, seed), behind(work), steps)

    def loss_of(step: int) -> Tensor:
        pixels, cells, whole = next(batches)
        with torch.autocast(device, dtype=torch.bfloat16):
            read = pupil((pixels.to(device).float() / 255 - MEAN) / STD)
        return loss_of_reading(read, (cells.to(device), whole.to(device)))

    recipe = Recipe(steps=steps, rate=1e-3, weight_decay=0.05, cooldown=0.5)
    train(pupil, loss_of, recipe, work, "eye", seed, lambda _: examine(pupil, device))
    return pupil.heads


@torch.no_grad()
def examine(pupil: Pupil, device: str, size: int = 192) -> str:
    """Shares read right on clear tiles of sites never seen: of occupied cells, and of the facts of the whole."""
    places = [site(1, TRAIN_SITES + i) for i in range(size)]
    views = [view(1, p, 0, "clear") for p in places]
    pixels = torch.stack([torch.from_numpy(render(v, SIZE)).permute(2, 0, 1) for v in views]).to(device)
    cells, whole = labels(views)
    pupil.eval()
    with torch.autocast(device, dtype=torch.bfloat16):
        read = pupil((pixels.float() / 255 - MEAN) / STD)
    pupil.train()
    by_cell = torch.stack([p.argmax(-1) for p in read[0].cpu().split(CELL, -1)], -1)
    by_whole = torch.stack([p.argmax(-1) for p in read[1].cpu().split(WHOLE, -1)], -1)
    held = cells[..., 0] > 0
    thing, colour, count = (by_cell == cells)[held].float().mean(0).tolist()
    false = (by_cell[~held][:, 0] > 0).float().mean().item()
    kind = (by_whole == whole)[:, 0].float().mean().item()
    counted = (by_whole == whole)[:, 4 : 4 + len(OBJECTS)].all(1).float().mean().item()
    return (
        f"in occupied cells thing {thing:.2f}, colour {colour:.2f}, count {count:.2f}; "
        f"things seen in empty cells {false:.3f}; kind {kind:.2f}, all counts by the embedding {counted:.2f}"
    )
