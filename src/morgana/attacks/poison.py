"""An attack changes data: queries or documents in, the same with other image files out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from morgana.attacks._saved import reread
from morgana.attacks.composed import Attacked
from morgana.attacks.target import Surroundings, Target
from morgana.corpus.images import load, save, save_cover
from morgana.seeds import seeded
from morgana.types import Document, Encoder, Goal, Pixels, Query, SpecError, Threat

Item = TypeVar("Item", Query, Document)


class Adversary(Protocol):
    """An `attack` part: Composed, CloudWeb."""

    @property
    def goal(self) -> Goal: ...
    @property
    def threat(self) -> Threat: ...
    def attack(self, pixels: Pixels, victim: Any, target: Target) -> Attacked: ...


@dataclass(frozen=True)
class Closing:
    """What AutoAttack prints last, of the files as read back."""

    count: int
    largest: float  # change of one channel of one pixel
    nan: int
    low: float
    high: float
    excess: float  # the farthest that an image lies outside the threat; 0 or less is inside

    def __str__(self) -> str:
        return (
            f"{self.count} images: largest perturbation {255 * self.largest:.3f}/255, NaN {self.nan}, "
            f"min {self.low:.4f}, max {self.high:.4f}"
        )


class Poisoned(NamedTuple):
    """The items with their new image files, in order, and the closing line."""

    items: tuple[Any, ...]
    closing: Closing


def poison(
    items: Sequence[Item],
    attack: Adversary,
    victim: Any,
    aim: Callable[[Pixels, Sequence[Item]], Target],
    folder: Path,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> Poisoned:
    """Attack the image of every item, save each as `folder/ID.png`, and judge what is read back.

    `aim` builds the target of a batch from its clean pixels. Images of equal size share a batch; an opacity map, if
    the threat has one, is saved as `ID.cover.png`. Raises StoreError for a file that left the threat on its way.
    """
    clean = [load(image_of(item)) for item in items]
    made: dict[int, tuple[Item, Closing]] = {}
    for batch in batches([tuple(pixels.shape) for pixels in clean], batch_size):
        pixels, chosen = torch.cat([clean[i] for i in batch]), [items[i] for i in batch]
        with seeded(seed, "poison"):
            found = attack.attack(pixels, victim, aim(pixels, chosen))
        for row, (number, item) in enumerate(zip(batch, chosen, strict=True)):
            path = folder / f"{file_name(item.id)}.png"
            save(found.pixels[row : row + 1], path)
            if found.alpha is not None:
                save_cover(found.alpha[row : row + 1], path)
            params = {name: value[row : row + 1] for name, value in found.params.items()}
            closing = verified(path, pixels[row : row + 1], attack.threat, params)
            made[number] = (replace(item, image=path), closing)
    done = [made[number] for number in range(len(items))]
    return Poisoned(tuple(item for item, _ in done), merged([closing for _, closing in done]))


def image_of(item: Query | Document) -> Path:
    if item.image is None:
        raise SpecError(f"{item.id!r} has no image, and an attack changes images; leave it out")
    return item.image


def batches(shapes: Sequence[tuple[int, ...]], size: int) -> list[list[int]]:
    """Positions of equal shapes together, at most `size` a batch."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(position)
    return [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]


def file_name(id: str) -> str:
    """The id where it can name a file; otherwise what can be kept of it, and a hash that tells it from others."""
    kept = re.sub(r"[^\w.-]", "_", id)[:80]
    plain = id and kept == id and not id.startswith(".") and not id.endswith(".cover")
    return id if plain else f"{kept.lstrip('.') or 'item'}-{hashlib.blake2b(id.encode(), digest_size=6).hexdigest()}"


def verified(path: Path, clean: Pixels, threat: Threat, params: dict[str, torch.Tensor]) -> Closing:
    """Read the file and measure it; StoreError if it is not a member of the threat."""
    saved, excess = reread(path, clean, threat, params)
    moved = (saved - clean).abs()
    return Closing(1, float(moved.amax()), int(saved.isnan().sum()), float(saved.amin()), float(saved.amax()), excess)


def merged(lines: Sequence[Closing]) -> Closing:
    if not lines:
        return Closing(0, 0.0, 0, 1.0, 0.0, 0.0)
    return Closing(
        count=sum(line.count for line in lines),
        largest=max(line.largest for line in lines),
        nan=sum(line.nan for line in lines),
        low=min(line.low for line in lines),
        high=max(line.high for line in lines),
        excess=max(line.excess for line in lines),
    )


def reindexed(around: Surroundings, encoder: Encoder, documents: Sequence[Document]) -> Surroundings:
    """The index with these documents embedded again from their image files: where do they rank now?"""
    with torch.no_grad():
        return around.replaced({d.id: encoder.encode_image(load(image_of(d)))[0] for d in documents})
