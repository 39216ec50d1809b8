"""Exact search."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from morgana.index.kinds._base import Bits, Faiss, Searcher, viewed
from morgana.index.kinds._gpu import either, on
from morgana.index.vectors import Half, Rows, Stored
from morgana.spec import part


@part
class Flat:
    """Every vector is looked at, by FAISS, in the mapped vectors themselves: no second file, nothing to load."""

    @property
    def exact(self) -> bool:
        return True

    def check(self, dimension: int) -> None:
        """Any dimension will do."""

    def write(self, vectors: Stored, folder: Path) -> None:
        """Nothing: the vectors are enough."""

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        return Exact(vectors, device)


class Exact:
    """FAISS over mapped rows, made at the first search."""

    def __init__(self, vectors: Half, device: str) -> None:
        self.vectors, self.device = vectors, device

    @property
    def size(self) -> tuple[int, int]:
        return self.vectors.shape[0], self.vectors.shape[1]

    @cached_property
    def faiss(self) -> Searcher:
        index = viewed(self.vectors)
        return either(on(index, self.device), Faiss(index, self.vectors))

    @property
    def selects(self) -> bool:
        return True

    @property
    def final(self) -> bool:
        return False  # equal rows shall score equally whatever the others, and FAISS rounds

    @property
    def slack(self) -> float:
        return self.faiss.slack

    def search(self, queries: Rows, k: int, only: Bits | None = None) -> tuple[Rows, NDArray[np.int64]]:
        return self.faiss.search(queries, k, only)
