"""Counts the words of documents as they come, and turns the counts to lie by word; memory holds the words alone."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from morgana.files import storing
from morgana.index import _disk
from morgana.index.words import BLOB, COUNTS, ENDS, INDICES, LENGTHS, STARTS, cut

PIECE = 1 << 21  # counts that are turned at a time
STAGED = ("sparse.numbers.raw", "sparse.counts.raw")  # by document; removed when done


class Counting:
    """Growing files by document, until `finish` writes those by word. The same documents make the same bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers: dict[str, int] = {}  # of words, as they were met
        self.lengths, self.kinds = array("i"), array("i")  # words and different words of each document
        self.staged: list[IO[bytes]] = [(folder / name).open("w+b") for name in STAGED]

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            found = Counter(cut(text))
            numbers = [self.numbers.setdefault(word, len(self.numbers)) for word in found]
            for file, values in zip(self.staged, (numbers, found.values()), strict=True):
                file.write(np.fromiter(values, "<i4", len(found)).tobytes())
            self.lengths.append(found.total())
            self.kinds.append(len(found))

    def close(self) -> None:
        for file in self.staged:
            file.close()

    def finish(self) -> None:
        """Write the files of `words`, and remove those by document."""
        with storing(self.folder):
            _disk.step("turn the words")
            words = sorted((word.encode("utf-8", "surrogatepass"), number) for word, number in self.numbers.items())
            rank = np.empty(len(words), dtype=np.int64)
            rank[[number for _, number in words]] = np.arange(len(words))
            self.save(BLOB, np.frombuffer(b"".join(word for word, _ in words), np.uint8))
            self.save(ENDS, np.cumsum([0, *(len(word) for word, _ in words)]).astype("<i8"))
            self.save(LENGTHS, np.frombuffer(self.lengths, np.int32).astype("<i4"))
            for file in self.staged:
                file.flush()
            self.turn(rank)
            self.close()
            for name in STAGED:
                (self.folder / name).unlink()

    def turn(self, rank: NDArray[np.int64]) -> None:
        """From by document to by word: a counting sort, a piece at a time."""
        total = sum(self.kinds)
        often = np.zeros(len(rank) + 1, dtype=np.int64)
        for numbers, _, _ in self.pieces():
            often[1:] += np.bincount(rank[numbers], minlength=len(rank))
        starts = np.cumsum(often)
        self.save(STARTS, starts.astype("<i8"))
        by_word = {name: self.growing(name, total) for name in (INDICES, COUNTS)}
        for numbers, counts, documents in self.pieces():
            words = rank[numbers]
            order = np.argsort(words, kind="stable")  # documents stay ascending
            here, first, many = np.unique(words[order], return_index=True, return_counts=True)
            places = np.repeat(starts[here] - first, many) + np.arange(len(order))
            by_word[INDICES][places] = documents[order]
            by_word[COUNTS][places] = counts[order]
            starts[here] += many
        for rows in by_word.values():
            if isinstance(rows, np.memmap):
                rows.flush()

    def pieces(self) -> Iterable[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]]:
        """Numbers of words, counts and documents, in the order in which they came."""
        ends = np.cumsum(np.frombuffer(self.kinds, np.int32), dtype=np.int64)
        for file in self.staged:
            file.seek(0)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, PIECE):
            count = min(PIECE, total - start)
            numbers, counts = (np.frombuffer(file.read(4 * count), "<i4") for file in self.staged)
            documents = np.searchsorted(ends, np.arange(start, start + count), side="right").astype("<i4")
            yield numbers, counts, documents

    def growing(self, name: str, count: int) -> NDArray[np.int32]:
        if not count:
            self.save(name, np.empty(0, "<i4"))
            return np.empty(0, "<i4")
        made: NDArray[np.int32] = np.lib.format.open_memmap(self.folder / name, mode="w+", dtype="<i4", shape=(count,))
        return made

    def save(self, name: str, rows: NDArray[np.generic]) -> None:
        np.save(self.folder / name, rows)
