"""Metadata by field: of each document the number of its value, and each value once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Column:
    """One field of all documents: `values[codes[position]]` is its content, None where a document lacks it."""

    values: tuple[str | None, ...]
    codes: NDArray[np.int32]  # (documents,)

    @classmethod
    def of(cls, contents: Iterable[str | None]) -> Column:
        known: dict[str | None, int] = {}
        codes = np.fromiter((known.setdefault(content, len(known)) for content in contents), np.int32)
        return cls(tuple(known), codes)


class Columns:
    """The fields of one segment, read from its documents when a filter first asks for them, and kept."""

    def __init__(self, metadata: Iterable[Mapping[str, str | None]]) -> None:
        self.metadata = metadata  # by position; may be gone through again and again
        self.known: set[str] = set()  # fields that any document has, once one was asked for
        self.held: dict[str, Column] = {}

    def take(self, names: Collection[str]) -> dict[str, Column]:
        """A column for each name; of a field that no document has, one of None."""
        missing = [name for name in names if name not in self.held]
        if missing:
            self.read(missing)
        return {name: self.held[name] for name in names}

    def read(self, names: Collection[str]) -> None:
        """One pass over the documents."""
        values: dict[str, dict[str | None, int]] = {name: {} for name in names}
        codes: dict[str, list[int]] = {name: [] for name in names}
        for row in self.metadata:
            self.known.update(row)
            for name, seen in values.items():
                codes[name].append(seen.setdefault(row.get(name), len(seen)))
        for name in names:
            self.held[name] = Column(tuple(values[name]), np.array(codes[name], dtype=np.int32))
