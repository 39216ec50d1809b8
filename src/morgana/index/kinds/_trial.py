"""Recall and latency of a kind, measured on a held-out sample."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from morgana.index.kinds._base import FILE, Kind, Searcher, spare
from morgana.index.kinds.flat import Flat
from morgana.index.vectors import Half, Rows, Stored, mapped

QUERIES = 200
TURN = 0.3  # length of the noise that turns a row into a query that is not in the corpus
K = 10


class Trial:
    """Builds kinds over the same vectors, one after another, and measures each with the same queries."""

    def __init__(self, vectors: Stored, folder: Path) -> None:
        self.vectors, self.folder = vectors, folder
        self.mapped: Half = mapped(vectors.path, vectors.shape, "<f2")  # type: ignore[assignment]
        self.queries = held_out(vectors)
        self.truth = Flat().open(folder, self.mapped).search(self.queries, self.k)[1]
        self.built = ""

    @property
    def k(self) -> int:
        return min(K, self.vectors.shape[0])

    def measure(self, kind: Kind) -> dict[str, Any]:
        """recall@10 after exact scoring of the candidates, and the median time of one query in ms."""
        searcher = self.made(kind)
        rows = searcher.search(self.queries, min(self.vectors.shape[0], self.k + spare(searcher)))[1]
        found = [self.scored(query, row[row >= 0]) for query, row in zip(self.queries, rows, strict=True)]
        hit = [len(set(f) & set(t.tolist())) / self.k for f, t in zip(found, self.truth, strict=True)]
        return {
            "recall@10": round(float(np.mean(hit)), 4),
            "latency_ms": round(1e3 * self.latency(searcher), 4),
            "queries": len(self.queries),
        }

    def made(self, kind: Kind) -> Searcher:
        """The kind opened; written only where the last one wrote another file."""
        key = repr(type(kind)) + repr({k: v for k, v in vars(kind).items() if k not in ("probe", "width")})
        if key != self.built:
            (self.folder / FILE).unlink(missing_ok=True)
            kind.write(self.vectors, self.folder)
            self.built = key
        return kind.open(self.folder, self.mapped, "cpu")

    def scored(self, query: Rows, rows: Any) -> list[int]:
        scores = self.mapped[rows].astype(np.float32) @ query
        return [int(row) for row in rows[np.argsort(-scores, kind="stable")[: self.k]]]

    def latency(self, searcher: Searcher) -> float:
        """Seconds of one query, the median."""
        times = []
        for query in self.queries[:50]:
            start = time.perf_counter()
            searcher.search(query[None], self.k + spare(searcher))
            times.append(time.perf_counter() - start)
        return float(np.median(times))


def held_out(vectors: Stored) -> Rows:
    """Queries near the corpus but not of it: rows with noise added, of unit length again; the same at every call."""
    rows = vectors.sample(QUERIES, phase=7)[:QUERIES]
    noise = np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)
    turned = rows + TURN * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    made: Rows = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    return made
