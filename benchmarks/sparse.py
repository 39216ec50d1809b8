"""BM25 from an index, its documents fetched, against bare bm25s over the same tokens; batches of 1 and 64 queries."""

from __future__ import annotations

import os

import bm25s
import numpy as np
from _measure import Result, Setting, fastest

from morgana.index import delete, from_vectors
from morgana.index._counting import Counting
from morgana.index.words import cut
from morgana.retrieval.encoders.hash import HashEncoder
from morgana.types import Document

K, LENGTH, VOCABULARY = 10, 40, 50_000


def texts(count: int, seed: int = 0) -> list[str]:
    """Words by Zipf's law, as in natural text."""
    draw = np.random.default_rng(seed)
    chance = 1 / np.arange(1, VOCABULARY + 1)
    numbers = draw.choice(VOCABULARY, size=(count, LENGTH), p=chance / chance.sum())
    return [" ".join(f"w{n}" for n in row) for row in numbers]


def bench(setting: Setting) -> list[Result]:
    count = int(os.environ.get("MORGANA_ROWS", setting.choose(200_000, 2_000)))
    corpus, path = texts(count), setting.folder / "sparse"
    rows = np.ones((count, 1), dtype=np.float32)
    documents = [Document(f"d{n}", text) for n, text in enumerate(corpus)]
    made: dict[str, bm25s.BM25] = {}

    def ours() -> None:
        counting = Counting(setting.folder)
        counting.add(corpus)
        counting.finish()

    def bare() -> None:
        made["bare"] = bm25s.BM25(method="lucene")
        made["bare"].index([cut(text) for text in corpus], show_progress=False)

    spent = fastest(1, ours=ours, bare=bare)
    detail = f"{count:,} documents, {spent['ours']:.1f} against {spent['bare']:.1f} s"
    found = [Result("keeping words / bm25s's index", spent["ours"] / spent["bare"], 1.0, detail=detail)]
    from_vectors(documents, rows, HashEncoder(1), path, sparse=True)
    index, asked = delete(path, ["d1"]), [" ".join(text.split()[:6]) for text in texts(64, seed=1)]
    for batch in (1, 64):
        tokens = [[w for w in cut(text) if w in made["bare"].vocab_dict] for text in asked[:batch]]
        runs = {
            "ours": lambda b=batch: index.match(asked[:b], K),
            "bare": lambda t=tokens: made["bare"].retrieve(t, k=K, show_progress=False),
        }
        seconds = fastest(setting.choose(10, 3), **runs)
        detail = f"{1000 * seconds['ours']:.2f} against {1000 * seconds['bare']:.2f} ms"
        found.append(Result(f"BM25 / bare bm25s, batch {batch}", seconds["ours"] / seconds["bare"], 1.2, detail=detail))
    return found
