"""BM25 over an index's segments by bm25s, with the statistics of the documents that live in this snapshot.

The segments keep counts. What bm25s calls scores, idf times the weight of a count, is filled in for a word when a query
first has it; arrays of documents stay mapped. The variant is Lucene's (Kamphuis et al. 2020), for n of N documents:

    idf = ln(1 + (N − n + 0.5) / (n + 0.5)),    weight = f / (f + k1 · (1 − b + b · length / average length))

N and the average length are of the living documents that have words; a word that comes twice in a query counts twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morgana.index.segment import Segment, Selection
from morgana.index.words import Words, cut, living
from morgana.types import SpecError

ROWS = 64  # of the table that scores are laid out in to find the best
Ranked = list[tuple[int, float]]  # positions over all segments with scores, best first


class BM25:
    """One pair (k1, b) over one snapshot; SpecError for values outside their range."""

    def __init__(self, segments: Sequence[Segment], words: Sequence[Words], k1: float, b: float) -> None:
        import bm25s

        if not (math.isfinite(k1) and k1 >= 0 and 0 <= b <= 1):
            raise SpecError(f"k1={k1}, b={b}; k1 is at least 0, and b from 0 to 1")
        self.segments, self.words, self.k1, self.b = segments, words, k1, b
        self.first = np.cumsum([0, *(len(w.lengths) for w in words)])
        self.alive = [segment.alive() for segment in segments]
        counted = [living(w, alive) for w, alive in zip(words, self.alive, strict=True)]
        self.count = sum(documents for documents, _ in counted)
        self.average = sum(total for _, total in counted) / max(1, self.count)
        self.known: dict[str, tuple[int | None, ...]] = {}  # words whose scores are filled in, by segment
        self.engines = [engine(bm25s.BM25(k1=k1, b=b, method="lucene"), w) for w in words]

    def rank(self, text: str, k: int, only: Sequence[Selection] | None = None) -> Ranked:
        """At most k documents that have a word of the text; ties in order of insertion."""
        places, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        asked = [self.numbers(word) for word in cut(text)]
        for s, made in enumerate(self.engines):
            ids = [found for numbers in asked if (found := numbers[s]) is not None]
            if not ids:
                continue
            found = made.get_scores_from_ids(ids)
            allowed = only[s].documents if only is not None else self.alive[s]
            if only is not None or self.segments[s].dead is not None:
                found[~allowed] = 0
            here = best(found, k)
            places.append(here + self.first[s])
            scores.append(found[here])
        place, score = np.concatenate(places), np.concatenate(scores)
        order = np.argsort(-score, kind="stable")[:k]
        return list(zip(place[order].tolist(), score[order].tolist(), strict=True))

    def numbers(self, word: str) -> tuple[int | None, ...]:
        """The word's number in each segment, its scores filled in."""
        if word in self.known:
            return self.known[word]
        found = tuple(words.find(word) for words in self.words)
        if any(number is not None for number in found):
            self.fill(found)
            self.known[word] = found
        return found

    def fill(self, numbers: Sequence[int | None]) -> None:
        places = [None if n is None else words.documents(n) for n, words in zip(numbers, self.words, strict=True)]
        having = sum(
            int(np.count_nonzero(alive[words.indices[place]]))
            for place, words, alive in zip(places, self.words, self.alive, strict=True)
            if place is not None
        )
        idf = math.log(1 + (self.count - having + 0.5) / (having + 0.5))
        for place, words, made in zip(places, self.words, self.engines, strict=True):
            if place is not None:
                counts = words.counts[place].astype(np.float64)
                lengths = words.lengths[words.indices[place]] / max(self.average, 1e-9)
                made.scores["data"][place] = idf * counts / (counts + self.k1 * (1 - self.b + self.b * lengths))


def engine(made: Any, words: Words) -> Any:
    """bm25s over a segment's arrays; its scores are pages of zeros that take memory once they are written."""
    data = np.zeros(len(words.indices), dtype=np.float32)
    made.scores = {"data": data, "indices": words.indices, "indptr": words.indptr, "num_docs": len(words.lengths)}
    made.nonoccurrence_array = None
    return made


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k largest scores above 0, and of all that tie with the last, ascending.

    The k-th largest of the maxima of many columns is a bound that k scores reach, so few places are left to sort.
    """
    width = len(scores) // ROWS
    if width > k:
        maxima = scores[: width * ROWS].reshape(ROWS, width).max(axis=0)
        bound = np.partition(maxima, width - k)[width - k]
        places = np.flatnonzero(scores >= bound) if bound > 0 else np.flatnonzero(scores)
    else:
        places = np.flatnonzero(scores)
    if len(places) <= k:
        return places
    held = scores[places]
    least = np.partition(held, len(held) - k)[len(held) - k]
    found: NDArray[np.int64] = places[held >= least]
    return found
