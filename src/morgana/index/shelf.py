"""The documents of an index, in SQLite, and which document each vector belongs to."""

from __future__ import annotations

import json
import os
import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from morgana.files import storing
from morgana.types import Document, StoreError

TABLES = """
CREATE TABLE documents (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, image TEXT, metadata TEXT NOT NULL
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, position INTEGER NOT NULL, source TEXT NOT NULL);
"""
MOST = 500  # values in one statement


def write(path: Path, rows: Iterable[tuple[Document, Sequence[str]]]) -> None:
    """A new database of documents, in order, and what of each was embedded (`text`, `image`); no dates in it."""
    with storing(path):
        connection = sqlite3.connect(path)
        try:
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + TABLES)
            count = 0
            with connection:
                for position, (document, sources) in enumerate(rows):
                    connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", (position, *columns(document)))
                    for source in sources:
                        connection.execute("INSERT INTO vectors VALUES (?, ?, ?)", (count, position, source))
                        count += 1
        except sqlite3.OperationalError as error:  # disk full, above all
            raise OSError(str(error)) from error
        finally:
            connection.close()


def columns(document: Document) -> tuple[str, str, str | None, str]:
    image = None if document.image is None else os.path.abspath(document.image)
    return document.id, document.text, image, json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True)


class Shelf:
    """Reads the database; positions are row numbers of `documents` and stay inside the package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        self.connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        self.close = weakref.finalize(self, self.connection.close)

    def ask(self, question: str, values: Sequence[object] = ()) -> list[tuple[str, ...]]:
        try:
            return self.connection.execute(question, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path} cannot be read: {error}; rebuild the index") from error

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """By position."""
        return tuple(id for (id,) in self.ask("SELECT id FROM documents ORDER BY position"))

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The position of each vector's document, (N,)."""
        return np.array([p for (p,) in self.ask("SELECT position FROM vectors ORDER BY row")], dtype=np.int64)

    @property
    def sources(self) -> tuple[str, ...]:
        """What each vector embeds: text or image, (N,)."""
        return tuple(s for (s,) in self.ask("SELECT source FROM vectors ORDER BY row"))

    def position(self, id: str) -> int | None:
        found = self.ask("SELECT position FROM documents WHERE id = ?", (id,))
        return int(found[0][0]) if found else None

    def documents(self, positions: Iterable[int]) -> dict[int, Document]:
        wanted = sorted(set(positions))
        found: dict[int, Document] = {}
        for start in range(0, len(wanted), MOST):
            some = wanted[start : start + MOST]
            marks = ",".join("?" * len(some))
            for row in self.ask(f"SELECT * FROM documents WHERE position IN ({marks})", some):
                found[int(row[0])] = document(*row[1:])
        return found


def document(id: str, text: str, image: str | None, metadata: str) -> Document:
    return Document(id, text, None if image is None else Path(image), MappingProxyType(json.loads(metadata)))
