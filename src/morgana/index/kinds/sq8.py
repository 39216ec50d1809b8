"""Search in 8-bit codes."""

from __future__ import annotations

from pathlib import Path

from morgana.index.kinds._base import Searcher
from morgana.index.kinds.factory import Factory
from morgana.index.vectors import Half, Stored
from morgana.spec import part


@part
class SQ8:
    """Every vector is looked at in 8 bits a component: half the memory of float16, nearly exact."""

    @property
    def exact(self) -> bool:
        return False

    def check(self, dimension: int) -> None:
        """Any dimension will do."""

    def write(self, vectors: Stored, folder: Path) -> None:
        Factory("SQ8").write(vectors, folder)

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        return Factory("SQ8").open(folder, vectors, device)
