"""The words of a segment's documents, counted: bm25s's sparse layout by word, with counts where it keeps scores.

A text is cut into lower-case runs of letters and digits (`\\w+`); nothing is stemmed and no stop word removed. The
files hold nothing that depends on other documents, so they stay right whatever is added or deleted beside them.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morgana.index.vectors import mapped
from morgana.types import StoreError

SCHEME = "words"  # how texts are cut; what a manifest says of an index that has these files
WORD = re.compile(r"(?u)\b\w+\b")
BLOB, ENDS, STARTS, INDICES, COUNTS, LENGTHS = FILES = (
    "sparse.words.npy",  # the words in UTF-8, sorted, one after another: bytes
    "sparse.ends.npy",  # where each ends, from 0: int64, (words + 1,)
    "sparse.indptr.npy",  # where each word's documents begin: int64, (words + 1,)
    "sparse.indices.npy",  # documents by word, ascending: int32
    "sparse.counts.npy",  # how often it stands in each: int32
    "sparse.lengths.npy",  # words of each document: int32, (documents,)
)
TYPES = dict(zip(FILES, ("u1", "<i8", "<i8", "<i4", "<i4", "<i4"), strict=True))


def cut(text: str) -> list[str]:
    """The words of a text, in order, as often as they come."""
    return WORD.findall(text.lower())


class Words:
    """Opened: arrays that stay on disk, and where a word is in them."""

    def __init__(self, folder: Path, documents: int) -> None:
        self.folder = folder
        arrays: list[Any] = [np.asarray(mapped(folder / name, (None,), kind)) for name, kind in TYPES.items()]
        blob, self.ends, self.indptr, self.indices, self.counts, self.lengths = arrays
        nnz = int(self.indptr[-1]) if len(self.indptr) else -1
        fits = len(self.ends) == len(self.indptr) and nnz == len(self.indices) == len(self.counts)
        if not fits or len(self.lengths) != documents or int(self.ends[-1]) != len(blob):
            raise StoreError(f"{folder}/sparse.*.npy do not fit together; rebuild the index")
        self.blob, self.places = memoryview(blob), memoryview(self.ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def word(self, number: int) -> bytes:
        return bytes(self.blob[self.places[number] : self.places[number + 1]])

    def find(self, word: str) -> int | None:
        """The number of a word; None if no document has it."""
        wanted, low, high = word.encode("utf-8", "surrogatepass"), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.word(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.word(low) == wanted else None

    def documents(self, number: int) -> slice:
        """Where in `indices` and `counts` a word is; StoreError if it names documents that are not there."""
        found = slice(int(self.indptr[number]), int(self.indptr[number + 1]))
        here = self.indices[found]
        inside = 0 <= found.start <= found.stop <= len(self.indices)
        if not inside or (len(here) and not (here.min() >= 0 and here.max() < len(self.lengths))):
            raise StoreError(f"{self.folder}/{INDICES} names documents that are not there; rebuild the index")
        return found

    def wrong(self) -> str | None:
        """What does not agree within the files; None if all does. Every byte is read."""
        if (np.diff(self.ends) <= 0).any() or (np.diff(self.indptr) <= 0).any():
            return f"{ENDS} or {STARTS} does not rise"
        if any(first >= second for first, second in pairwise(map(self.word, range(len(self))))):
            return f"{BLOB} is not sorted"
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < len(self.lengths)):
            return f"{INDICES} names documents that are not there"
        sums = np.bincount(self.indices, self.counts, minlength=len(self.lengths))
        return None if np.array_equal(sums, self.lengths) else f"{COUNTS} and {LENGTHS} count different words"


def living(words: Words, alive: NDArray[np.bool_]) -> tuple[int, int]:
    """How many living documents have words, and how many words they have."""
    lengths = words.lengths[alive]
    return int(np.count_nonzero(lengths)), int(lengths.sum(dtype=np.int64))
