"""From a searcher's rows to documents, best first: exact scores, ties by insertion, one place a document."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from morgana.index.kinds import Rows, Searcher

SPARE = 8  # candidates beyond k, so that ties at the end rarely need a second search
NEAR = 1e-5  # FAISS's sums and ours differ by less


def rank(
    searcher: Searcher, vectors: Rows, owners: NDArray[np.int64], queries: Rows, k: int, each: int
) -> list[list[tuple[int, float]]]:
    """(document position, cosine) of the k best documents of each query; `each` is the most vectors of a document.

    The searcher proposes; scores are then summed in float64, so that equal vectors have equal scores wherever they
    stand, and the order is that of a full sort by (-score, row). A document's score is that of its best vector.
    """
    found: list[list[tuple[int, float]]] = [[] for _ in queries]
    open_ = np.arange(len(queries))
    many = min(len(vectors), k * each + SPARE)
    while len(open_):
        scores, rows = searcher.search(queries[open_], many)
        again = []
        for query, near, row in zip(open_, scores, rows, strict=True):
            kept = row[row >= 0]
            best = order(vectors, owners, queries[query], kept, k)
            found[query] = best
            if many < len(vectors) and len(kept) and (len(best) < k or near[len(kept) - 1] >= best[-1][1] - NEAR):
                again.append(query)  # a tie may go on beyond the candidates
        if many == len(vectors):
            break
        open_, many = np.array(again, dtype=np.int64), min(len(vectors), many * 4)
    return found


def order(
    vectors: Rows, owners: NDArray[np.int64], query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> list[tuple[int, float]]:
    rows = np.sort(rows)
    exact = (vectors[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    scores = np.clip(exact.astype(np.float32), -1, 1)
    best: dict[int, float] = {}
    for i in np.argsort(-scores, kind="stable"):
        best.setdefault(int(owners[rows[i]]), float(scores[i]))
        if len(best) == k:
            break
    return list(best.items())
