"""The index as a store, against bare FAISS: build from ready vectors, search, fetching, opening, adding 1,000 rows.

Sizes come from the environment: MORGANA_ROWS (1,000,000), MORGANA_DIMENSION (256), MORGANA_KINDS ("Flat() IVF()", or
IVF(lists=…).

Documents and vectors are in memory before any clock starts: FAISS is given its vectors so, too.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from _measure import Result, Setting, fastest

from morgana.index import Index, add, from_vectors
from morgana.index.kinds.ivf import even
from morgana.spec import parse
from morgana.types import Document

K, ADDED = 10, 1000


@dataclass(frozen=True)
class Ready:
    """An encoder of which only the vectors are used; the n-th new text is embedded as the n-th row."""

    dimension: int
    image_size: int = 0
    fingerprint: str = "ready"

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.from_numpy(rows(len(texts), self.dimension, seed=9))


def rows(count: int, dimension: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors in clusters, as embeddings are."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((256, dimension), dtype=np.float32)
    made = centres[draw.integers(0, 256, count)] + draw.standard_normal((count, dimension), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def documents(count: int, prefix: str = "d") -> Iterator[Document]:
    return (Document(f"{prefix}{n}", f"text {n}") for n in range(count))


def bare(kind: str, vectors: np.ndarray[Any, np.dtype[np.float32]], folder: Path) -> Any:
    """FAISS's own train and add, and a plain copy of the array."""
    count, dimension = vectors.shape
    lists = getattr(parse(kind), "lists", 0) or even(count)
    spec = "Flat" if kind == "Flat()" else f"IVF{lists},SQfp16"
    index = faiss.index_factory(dimension, spec, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:: max(1, count // (64 * lists))])
    index.add(vectors)
    np.save(folder / "copy.npy", vectors)
    return index


def bench(setting: Setting) -> list[Result]:
    count = int(os.environ.get("MORGANA_ROWS", setting.choose(1_000_000, 20_000)))
    dimension = int(os.environ.get("MORGANA_DIMENSION", 256))
    vectors, encoder, given = rows(count, dimension), Ready(dimension), list(documents(count))
    found: list[Result] = []
    for kind in os.environ.get("MORGANA_KINDS", "Flat() IVF()").split():
        found += of_kind(setting, kind, given, vectors, encoder)
    return [*found, opening(setting), adding(setting, encoder)]


def of_kind(setting: Setting, kind: str, given: list[Document], vectors: Any, encoder: Ready) -> list[Result]:
    path, count = setting.folder / "store", len(vectors)
    made: dict[str, Any] = {}

    def ours() -> None:
        part = parse(kind)
        made["ours"] = from_vectors(given, vectors, encoder, path, kind=part, overwrite=True)

    def theirs() -> None:
        made["bare"] = bare(kind, vectors, setting.folder)

    seconds = fastest(2 if kind == "Flat()" else 1, ours=ours, bare=theirs)  # a gigabyte is written at the disk's whim
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    detail = (
        f"{count:,} rows, {seconds['ours']:.1f} against {seconds['bare']:.1f} s, peak {peak:.1f} GB with what was given"
    )
    found = [Result(f"{kind} from vectors / FAISS and a copy", seconds["ours"] / seconds["bare"], 1.3, detail=detail)]
    if hasattr(made["bare"], "nprobe"):
        made["bare"].nprobe = 16
    queries = rows(64, vectors.shape[1], seed=1)
    longer = 1 if kind == "Flat()" else 25  # searches that take a second, and a millisecond
    for batch, rounds in ((1, 20), (64, 5)):
        asked = torch.from_numpy(queries[:batch])
        runs = {
            "ours": lambda a=asked: made["ours"]._rank(a, K),
            "bare": lambda b=batch: made["bare"].search(queries[:b], K),
        }
        seconds = fastest(setting.choose(longer * rounds, 3), **runs)
        detail = f"{1000 * seconds['ours']:.2f} against {1000 * seconds['bare']:.2f} ms"
        found.append(
            Result(f"{kind} search / FAISS, batch {batch}", seconds["ours"] / seconds["bare"], 1.05, detail=detail)
        )
    return [*found, fetching(setting, made["ours"], torch.from_numpy(queries))]


def fetching(setting: Setting, index: Index, queries: torch.Tensor) -> Result:
    """The documents of K hits, each query's from other places of the file."""
    ranked = iter(index._rank(queries, K))
    seconds = fastest(setting.choose(20, 3), ours=lambda: index._hits([next(ranked)]))["ours"]
    return Result(f"fetching {K} documents, in ms", 1e3 * seconds, 1.0, detail=f"{1e3 * seconds:.3f} ms")


def opening(setting: Setting) -> Result:
    seconds = fastest(5, ours=lambda: Index.open(setting.folder / "store"))["ours"]
    return Result("opening, in units of 100 ms", seconds / 0.1, 1.0, detail=f"{1000 * seconds:.1f} ms")


def adding(setting: Setting, encoder: Ready) -> Result:
    start = time.perf_counter()
    add(setting.folder / "store", documents(ADDED, "new"), encoder, batch_size=ADDED)
    seconds = time.perf_counter() - start
    return Result(f"adding {ADDED} rows, in seconds", seconds, 1.0, detail=f"{1000 * seconds:.0f} ms")
