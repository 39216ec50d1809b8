"""Search in the nearest of many lists."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from morgana.index.kinds._base import FILE, Faiss, Searcher, at_least, library, load, store, viewed
from morgana.index.kinds._gpu import either, on
from morgana.index.kinds.factory import Factory, made, train, tune
from morgana.index.vectors import Half, Stored, half
from morgana.spec import part
from morgana.types import SpecError

BOTH = 2  # FAISS: threads share queries and the lists of a query


@part
class IVF:
    """Vectors lie in `lists` by their nearest centroid, as float16; a search looks into `probe` of them.

    The nearest lists are found by float16 centroids, and the lists of one query are shared among threads. `lists=0`
    takes 4 · √N, at least 39 vectors to train each.
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
    if lists > vectors.shape[0]:
        raise SpecError(
            f"{name}: {lists} lists of {vectors.shape[0]} vectors; choose fewer, or 0 for as many as suit them"
        )
    if isinstance(index, library().IndexIVFScalarQuantizer):
        index.by_residual = False  # the lists hold the stored rows, so that FAISS's scores are theirs
    train(index, vectors, name, max(64 * lists, 16_384))
    for rows in vectors.chunks():
        index.add(rows)
    store(index, folder / FILE)


def reopened(folder: Path, vectors: Half, probe: int, device: str) -> Searcher:
    index = load(folder / FILE, vectors)
    tune(index, probe, 0)
    moved = on(index, device)
    if not isinstance(index, library().IndexIVF):
        return either(moved, Faiss(index))
    index.parallel_mode = BOTH
    return either(moved, Faiss(index, halved(index)))


def halved(index: Any) -> Half | None:
    """Gives the index float16 centroids, half to read for every query; they are returned, for someone to keep."""
    faiss = library()
    whole = faiss.downcast_index(index.quantizer)
    if not isinstance(whole, faiss.IndexFlat):
        return None
    centroids = half(whole.reconstruct_n(0, whole.ntotal))
    fewer = viewed(centroids)
    index.quantizer = fewer
    fewer.this.disown()  # the index frees what it quantizes with
    whole.this.own(True)
    return centroids
