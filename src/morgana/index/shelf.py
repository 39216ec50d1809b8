"""The documents of a segment, in SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from morgana.files import unfit
from morgana.index._tests import spelled
from morgana.index.vectors import Half
from morgana.types import Document, StoreError

TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
CREATE TABLE documents (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL, text TEXT NOT NULL, image TEXT, metadata TEXT NOT NULL
);
CREATE TABLE aliases (id TEXT NOT NULL, position INTEGER NOT NULL);
"""
BY_ID = "CREATE UNIQUE INDEX document_id ON documents (id);"
INDEXES = """
CREATE UNIQUE INDEX alias_id ON aliases (id);
CREATE INDEX alias_position ON aliases (position);
"""
MOST = 500  # values in one statement
AT_ONCE = 128  # documents that one statement inserts, at the position of the first and those that follow it
FIRST, NEXT = "INSERT INTO documents VALUES (?, ?, ?, ?, ?)", ", (NULL, ?, ?, ?, ?)"
JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True)
Embedded: TypeAlias = tuple[Document, Sequence[str]]  # with the sources of its vectors
Piece: TypeAlias = tuple[Sequence[Embedded], Half]


class Shelving:
    """A new database of documents that is written in order; the same documents make the same bytes."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.close = weakref.finalize(self, self.connection.close)
        self.count = 0
        self.do(TABLES + "BEGIN;")

    def do(self, script: str) -> None:
        try:
            self.connection.executescript(script)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def add(self, documents: Sequence[Document]) -> None:
        for start in range(0, len(documents), AT_ONCE):
            some = documents[start : start + AT_ONCE]
            values = chain((self.count,), chain.from_iterable(map(columns, some)))
            try:
                self.connection.execute(FIRST + NEXT * (len(some) - 1), tuple(values))
            except sqlite3.Error as error:  # disk full, above all
                raise OSError(str(error)) from error
            self.count += len(some)

    def also(self, aliases: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Give documents that are here other ids; those (id, of) whose `of` is not here come back. Ends the adding."""
        try:
            self.connection.executescript(BY_ID + "BEGIN;")
        except sqlite3.IntegrityError:
            ((twice,),) = self.connection.execute("SELECT id FROM documents GROUP BY id HAVING count(*) > 1 LIMIT 1")
            raise StoreError(f"there are two documents {twice!r}; give each an id of its own") from None
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        for id, first in aliases:
            try:
                insert = "INSERT INTO aliases SELECT ?, position FROM documents WHERE id = ?"
                if not self.connection.execute(insert, (id, first)).rowcount:
                    yield id, first
            except sqlite3.Error as error:
                raise OSError(str(error)) from error

    def finish(self) -> None:
        self.do(INDEXES)  # which ends the transaction first
        self.close()


def described(document: Document) -> str:
    """Its metadata as JSON; TypeError or ValueError where that cannot hold them."""
    return JSON.encode(dict(document.metadata)) if document.metadata else "{}"


def columns(document: Document) -> tuple[str, str, str | None, str]:
    image = None if document.image is None else os.path.abspath(document.image)
    return document.id, document.text, image, described(document)


class Shelf:
    """Reads the database; positions are row numbers of `documents` and stay inside the package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        try:
            self.connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read: {error}; rebuild the index") from error
        self.close = weakref.finalize(self, self.connection.close)
        self.ask("SELECT position, id, text, image, metadata FROM documents LIMIT 1")
        self.ask("SELECT id, position FROM aliases LIMIT 1")

    def ask(self, question: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        return list(self.each(question, values))

    def each(self, question: str, values: Sequence[object] = ()) -> Iterator[tuple[object, ...]]:
        try:
            yield from self.connection.execute(question, values)
        except (sqlite3.DatabaseError, OverflowError) as error:
            raise StoreError(f"{self.path} cannot be read: {error}; rebuild the index") from error

    def ids(self) -> Iterator[str]:
        """By position."""
        return (str(id) for (id,) in self.each("SELECT id FROM documents ORDER BY position"))

    def aliases(self) -> Iterator[tuple[str, int]]:
        """Other ids that a document has, with its position."""
        for id, position in self.each("SELECT id, position FROM aliases ORDER BY position, id"):
            yield str(id), number(position)

    def count(self) -> int:
        return number(self.ask("SELECT count(*) FROM documents")[0][0])

    def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Of those ids that are here, aliases too."""
        found: dict[str, int] = {}
        ids = [id for id in ids if not unfit(id)]
        for start in range(0, len(ids), MOST):
            some = ids[start : start + MOST]
            marks = ",".join("?" * len(some))
            for table in ("aliases", "documents"):
                for id, position in self.ask(f"SELECT id, position FROM {table} WHERE id IN ({marks})", some):
                    found[str(id)] = number(position)
        return found

    def around(self, id: str, many: int = 30) -> list[str]:
        """Ids that stand near `id` in alphabetical order."""
        if unfit(id):
            return []
        before = self.ask("SELECT id FROM documents WHERE id < ? ORDER BY id DESC LIMIT ?", (id, many))
        after = self.ask("SELECT id FROM documents WHERE id >= ? ORDER BY id LIMIT ?", (id, many))
        return [str(found) for (found,) in before + after]

    def documents(self, positions: Iterable[int]) -> dict[int, Document]:
        wanted = sorted(set(positions))
        found: dict[int, Document] = {}
        for start in range(0, len(wanted), MOST):
            some = wanted[start : start + MOST]
            marks = ",".join("?" * len(some))
            for row in self.ask(f"SELECT * FROM documents WHERE position IN ({marks})", some):
                found[number(row[0])] = self.document(*row[1:])
        if len(found) < len(wanted):
            raise StoreError(f"{self.path} lacks documents that the index lists; rebuild the index")
        return found

    def metadata(self) -> Iterator[dict[str, str | None]]:
        """Every document's metadata by position; what is no string, as JSON."""
        for id, text in self.each("SELECT id, metadata FROM documents ORDER BY position"):
            yield {str(name): spelled(value) for name, value in self.object(id, text).items()}

    def all(self) -> Iterator[Document]:
        """Every document by position, read as a stream."""
        for row in self.each("SELECT * FROM documents ORDER BY position"):
            yield self.document(*row[1:])

    def document(self, id: object, text: object, image: object, metadata: object) -> Document:
        kept = self.object(id, metadata)
        return document(str(id), str(text), None if image is None else str(image), kept)

    def object(self, id: object, metadata: object) -> dict[str, Any]:
        try:
            kept = json.loads(str(metadata))
            if not isinstance(kept, dict):
                raise ValueError("its metadata is no object")
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.path}: the document {str(id)[:80]!r}: {error}; rebuild the index") from None
        return kept


def number(value: object) -> int:
    return value if isinstance(value, int) else -1


def document(id: str, text: str, image: str | None, metadata: dict[str, Any]) -> Document:
    return Document(id, text, None if image is None else Path(image), MappingProxyType(metadata))
