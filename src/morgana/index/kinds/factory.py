"""Any index that FAISS can spell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from morgana.index.kinds._base import FILE, Faiss, Searcher, at_least, library, load, store, why
from morgana.index.kinds._gpu import either, on
from morgana.index.vectors import Half, Rows, Stored
from morgana.spec import part
from morgana.types import SpecError

SAMPLE = 262_144  # most rows that an index is trained on


@part
class Factory:
    """FAISS's `index_factory(D, spec, METRIC_INNER_PRODUCT)`, trained on a sample and filled piece by piece.

    `probe` sets nprobe and `width` efSearch where the index has them. The file is mapped where FAISS can. Raises
    SpecError for a spec that FAISS does not know or cannot train on so few rows.
    """

    spec: str
    probe: int = 1  # lists that a search looks into
    width: int = 64  # candidates that a search of a graph keeps

    def __post_init__(self) -> None:
        at_least(self, probe=self.probe, width=self.width)

    @property
    def exact(self) -> bool:
        return False

    def check(self, dimension: int) -> None:
        made(self, dimension)

    def write(self, vectors: Stored, folder: Path) -> None:
        index = made(self, vectors.shape[1])
        train(index, vectors, repr(self))
        for rows in vectors.chunks():
            index.add(rows)
        store(index, folder / FILE)

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        index = load(folder / FILE, vectors)
        tune(index, self.probe, self.width)
        return either(on(index, device), Faiss(index))


def made(kind: Factory, dimension: int) -> Any:
    faiss = library()
    try:
        return faiss.index_factory(dimension, kind.spec, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, TypeError) as error:
        told = f"FAISS makes no index of {dimension} dimensions from {kind.spec!r}: {why(error)}"
        raise SpecError(f"{told}; spell it as FAISS does, such as 'OPQ16,IVF256,PQ16'") from None


def train(index: Any, vectors: Stored, name: str, most: int = SAMPLE) -> None:
    """On at most `most` rows, evenly spread; FAISS's clustering is seeded, so that the result is the same again."""
    if index.is_trained:
        return
    rows: Rows = np.ascontiguousarray(vectors.sample(most))
    kept = quiet(index)
    try:
        index.train(rows)
    except RuntimeError as error:
        told = f"{name} cannot be trained on {len(rows)} vectors: {why(error)}"
        raise SpecError(f"{told}; choose fewer lists or Flat()") from None
    del kept


def quiet(index: Any) -> list[Any]:
    """Few rows make poor code books, which is no reason to warn; the index trains with what is given back."""
    faiss, kept = library(), []
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            turn = faiss.downcast_VectorTransform(index.chain.at(number))
            if isinstance(turn, faiss.OPQMatrix):
                turn.pq = faiss.ProductQuantizer(turn.d_out, turn.M, 8)
                kept.append(turn.pq)
        index = faiss.downcast_index(index.index)
    index = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    for trained in (index, getattr(index, "pq", None), *kept):
        if hasattr(trained, "cp"):
            trained.cp.min_points_per_centroid = 1
    return kept


def tune(index: Any, probe: int, width: int) -> None:
    """Set how hard a search looks, in the index or in what it wraps."""
    faiss = library()
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if isinstance(inner, faiss.IndexIVF):
        inner.nprobe = probe
    elif isinstance(inner, faiss.IndexHNSW):
        inner.hnsw.efSearch = width
