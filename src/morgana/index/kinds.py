"""How vectors are searched: each kind writes one file from the rows and reads it back as a searcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morgana.files import storing
from morgana.spec import part
from morgana.types import StoreError

Rows: TypeAlias = NDArray[np.float32]  # (N, D), unit length
CHUNK = 65_536  # rows read at a time


class Searcher(Protocol):
    """Rows that can be searched."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and dimension."""
        ...

    def search(self, queries: Rows, k: int) -> tuple[Rows, NDArray[np.int64]]:
        """Scores and row numbers, (B, k), best first; -1 where a kind found fewer than k."""
        ...


class Kind(Protocol):
    """One way to search."""

    def write(self, vectors: Rows, path: Path) -> None: ...
    def read(self, path: Path) -> Searcher: ...


@part
class Flat:
    """Exact search by inner product: FAISS's IndexFlatIP."""

    def write(self, vectors: Rows, path: Path) -> None:
        import faiss

        index = faiss.IndexFlatIP(vectors.shape[1])
        for start in range(0, len(vectors), CHUNK):
            index.add(np.ascontiguousarray(vectors[start : start + CHUNK]))
        with storing(path):
            try:
                faiss.write_index(index, str(path))
            except RuntimeError as error:  # how FAISS reports a failed write
                raise OSError(str(error).split("\n")[0][-200:]) from error

    def read(self, path: Path) -> Searcher:
        return Faiss(path)


class Faiss:
    """A FAISS file, searched."""

    def __init__(self, path: Path) -> None:
        import faiss

        try:
            self.index: Any = faiss.read_index(str(path))
        except RuntimeError as error:
            raise StoreError(f"{path} is not a FAISS file: {str(error)[-200:]}; rebuild the index") from error

    @property
    def size(self) -> tuple[int, int]:
        return int(self.index.ntotal), int(self.index.d)

    def search(self, queries: Rows, k: int) -> tuple[Rows, NDArray[np.int64]]:
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return scores, rows
