"""A kind that is chosen by measuring."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from morgana.index.kinds._base import FILE, Kind, Searcher
from morgana.index.kinds._trial import Trial
from morgana.index.kinds.flat import Flat
from morgana.index.kinds.hnsw import HNSW
from morgana.index.kinds.ivf import IVF
from morgana.index.kinds.ivfpq import IVFPQ
from morgana.index.vectors import Half, Stored
from morgana.spec import part
from morgana.types import SpecError

UNITS = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
PROBES = (4, 8, 16, 32, 64, 128)
WIDTHS = (32, 64, 128, 256, 512)


@part
class Auto:
    """The kind with the best recall@10 among those that fit the memory and answer one query within the latency.

    Candidates are ordered from exact to most compressed; each is built, and recall@10 against exact search and the
    median latency of single queries are measured on a held-out sample of the corpus, slightly turned away so that no
    query is its own answer. The first with recall `recall` or more is taken, else the best. Where none keeps to both
    limits, the fastest of those within the memory is taken, or the smallest, and the builder says so. What was measured
    stands in the manifest. `memory` counts what a search maps,
    vectors included.
    """

    memory: str = "2GB"
    latency: str = "10ms"  # of one query on this machine
    recall: float = 0.95  # that is enough

    def __post_init__(self) -> None:
        amount(self.memory, UNITS, self), amount(self.latency, TIMES, self)
        if not 0 < self.recall <= 1:
            raise SpecError(f"{self!r}: recall={self.recall}; it lies above 0 and is at most 1")

    @property
    def exact(self) -> bool:
        return False

    def check(self, dimension: int) -> None:
        """Any dimension will do."""

    def choose(self, vectors: Stored, folder: Path) -> tuple[Kind, Mapping[str, Any]]:
        """The chosen kind, its search file written, and what was measured of it and of the others."""
        limit, seconds = amount(self.memory, UNITS, self), amount(self.latency, TIMES, self)
        trial = Trial(vectors, folder)
        tried: list[tuple[Kind, dict[str, Any]]] = []
        for kind in self.candidates(vectors):
            if (needed := size(kind, *vectors.shape)) > limit:
                tried.append((kind, {"memory": needed, "fits": False}))
                continue
            made = trial.measure(kind) | {"memory": needed}
            tried.append((kind, made | {"fits": made["latency_ms"] <= 1e3 * seconds}))
            if tried[-1][1]["fits"] and made["recall@10"] >= self.recall:
                break
        if not any("latency_ms" in found for _, found in tried):  # all too large: the smallest is known all the same
            smallest, found = min(tried, key=lambda one: int(one[1]["memory"]))
            found |= trial.measure(smallest)
        chosen, about = best(tried)
        (folder / FILE).unlink(missing_ok=True)
        return chosen, about | {"chosen": repr(chosen), "tried": {repr(kind): found for kind, found in tried}}

    def candidates(self, vectors: Stored) -> Iterator[Kind]:
        """From exact to most compressed."""
        count, dimension = vectors.shape
        yield Flat()
        if count < 1_000:
            return
        for width in WIDTHS:
            yield HNSW(width=width)
        for probe in PROBES:
            yield IVF(probe=probe)
        for bytes_ in (dimension // 2, dimension // 4, dimension // 8):
            if bytes_ and not dimension % bytes_:
                yield from (IVFPQ(bytes_=bytes_, probe=probe) for probe in PROBES[2:])

    def write(self, vectors: Stored, folder: Path) -> None:
        raise SpecError(f"{self!r} is replaced by what it chooses before anything is written")

    def open(self, folder: Path, vectors: Half, device: str = "cpu") -> Searcher:
        raise SpecError(f"{self!r} has chosen another kind for this segment, and segment.json should name it")


def amount(text: str, units: Mapping[str, float], kind: object) -> float:
    """A number with a unit: bytes or seconds."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text) if isinstance(text, str) else None
    if not found or found[2] not in units or not float(found[1]):
        raise SpecError(f"{kind!r}: {text!r} is no amount; write a number and a unit of {', '.join(units)}")
    return float(found[1]) * units[found[2]]


def size(kind: Kind, count: int, dimension: int) -> int:
    """Bytes that a search of this kind maps or holds: its codes, graph and lists, and float16 rows that it reads."""
    rows = 2 * count * dimension
    match kind:
        case HNSW(m=m):
            return rows + count * (8 * m + 16)
        case IVF():
            return rows + 8 * count + 16 * int(np.sqrt(count)) * dimension
        case IVFPQ(bytes_=bytes_):
            return count * (bytes_ + 8) + 16 * int(np.sqrt(count)) * dimension + 1024 * dimension
    return rows


def best(tried: list[tuple[Kind, dict[str, Any]]]) -> tuple[Kind, dict[str, Any]]:
    """The best recall of those that fit; else the fastest that was measured."""
    if fitting := [one for one in tried if one[1]["fits"]]:
        return max(fitting, key=lambda one: (one[1]["recall@10"], -one[1]["latency_ms"]))
    return min((one for one in tried if "latency_ms" in one[1]), key=lambda one: float(one[1]["latency_ms"]))
