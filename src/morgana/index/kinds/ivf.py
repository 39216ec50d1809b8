"""Search in the nearest of many lists."""

from __future__ import annotations

import math
from pathlib import Path

from morgana.index.kinds._base import FILE, Faiss, Searcher, at_least, load, on, store
from morgana.index.kinds.factory import Factory, made, train, tune
from morgana.index.vectors import Half, Stored
from morgana.spec import part
from morgana.types import SpecError


@part
class IVF:
    """Vectors lie in `lists` by their nearest centroid, as float16; a search looks into `probe` of them.

    `lists=0` takes 4 · √N, at least 39 vectors to train each.
    """

    lists: int = 0
    probe: int = 16

    def __post_init__(self) -> None:
        check(self, self.lists, self.probe)

    @property
    def exact(self) -> bool:
        return False

    def check(self, dimension: int) -> None:
        """Any dimension will do."""

    def write(self, vectors: Stored, folder: Path) -> None:
        fill(vectors, folder, f"IVF{self.lists or even(vectors.shape[0])},SQfp16", repr(self))

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        return reopened(folder, vectors, self.probe, device)


def check(kind: object, lists: int, probe: int) -> None:
    at_least(kind, probe=probe)
    if lists < 0:
        raise SpecError(f"{kind!r}: lists={lists}; it must be at least 1, or 0 to choose from the number of vectors")


def even(count: int) -> int:
    """Lists for `count` vectors: 4 · √N, but no more than can be trained with 39 vectors each."""
    return max(1, min(int(4 * math.sqrt(count)), count // 39))


def fill(vectors: Stored, folder: Path, spec: str, name: str) -> None:
    """Train the FAISS index `spec` on 64 vectors a list at most, fill and store it."""
    index = made(Factory(spec), vectors.shape[1])
    lists = int(spec.split(",")[0].removeprefix("IVF"))
    index.cp.min_points_per_centroid = 1  # few vectors make poor lists, which is no reason to warn
    train(index, vectors, name, max(64 * lists, 16_384))
    for rows in vectors.chunks():
        index.add(rows)
    store(index, folder / FILE)


def reopened(folder: Path, vectors: Half, probe: int, device: str) -> Searcher:
    index = load(folder / FILE, vectors)
    tune(index, probe, 0)
    return Faiss(on(index, device))
