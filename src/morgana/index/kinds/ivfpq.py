"""Search in the nearest of many lists of short codes."""

from __future__ import annotations

from pathlib import Path

from morgana.index.kinds._base import Searcher, at_least
from morgana.index.kinds.ivf import check, even, fill, reopened
from morgana.index.vectors import Half, Stored
from morgana.spec import part
from morgana.types import SpecError


@part
class IVFPQ:
    """Product quantisation (Jégou, Douze and Schmid 2011): `bytes_` a vector in `lists`, `probe` of them searched.

    Candidates are scored again from the stored float16 vectors. `bytes_` must divide the dimension; `lists=0` takes
    4 · √N.
    """

    lists: int = 0
    bytes_: int = 32  # a vector
    probe: int = 16

    def __post_init__(self) -> None:
        check(self, self.lists, self.probe)
        at_least(self, bytes_=self.bytes_)

    @property
    def exact(self) -> bool:
        return False

    def check(self, dimension: int) -> None:
        if dimension % self.bytes_:
            raise SpecError(f"{self!r}: {self.bytes_} bytes do not divide {dimension} dimensions; choose a divisor")

    def write(self, vectors: Stored, folder: Path) -> None:
        count, dimension = vectors.shape
        self.check(dimension)
        bits = 8 if count >= 256 else max(1, count.bit_length() - 1)  # a code book is no larger than the corpus
        fill(vectors, folder, f"IVF{self.lists or even(count)},PQ{self.bytes_}x{bits}np", repr(self))  # np: no polysemy

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        return reopened(folder, vectors, self.probe, device)
