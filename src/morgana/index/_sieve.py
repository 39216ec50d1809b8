"""Which documents of a stream are new: ids that come twice are refused, equal content is folded where asked."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from morgana.corpus._stream import Spoiled
from morgana.types import Document, StoreError


class Seen:
    """Keys that were met, kept in a temporary file of the system's so that memory stays flat."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # any may end it
        self.connection.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE seen (key BLOB PRIMARY KEY, note TEXT) WITHOUT ROWID; BEGIN"
        )

    def __del__(self) -> None:
        self.connection.close()

    def add(self, key: str | bytes, note: str = "") -> str | None:
        """What was noted of this key before; None if it is new."""
        key = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        try:
            if self.connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, note)).rowcount:
                return None
            ((before,),) = self.connection.execute("SELECT note FROM seen WHERE key = ?", (key,))
        except sqlite3.Error as error:
            raise StoreError(f"cannot write a temporary file: {error}; free some space") from error
        return str(before)


@dataclass(frozen=True)
class Group:
    """Documents that are worked on together; `kept` are those that are not folded into another."""

    every: tuple[Document, ...]
    kept: tuple[Document, ...]
    aliases: tuple[tuple[str, str], ...] = ()  # (id, the id of the document with the same content)


class Sieve:
    """Groups of a stream of documents; an id that comes twice is a StoreError, or with `replace` in `repeated`."""

    def __init__(
        self, documents: Iterable[Document], size: int, *, fold: bool = False, replace: bool = False, name: str = ""
    ) -> None:
        self.documents, self.size, self.name = iter(documents), size, name or "the corpus"
        self.replace, self.repeated = replace, set[str]()
        self.ids, self.contents = Seen(), Seen() if fold else None

    def __iter__(self) -> Iterator[Group]:
        count = 0
        while every := tuple(islice(self.documents, self.size)):
            for number, document in enumerate(every, count + 1):
                if not isinstance(document, Document):
                    raise StoreError(
                        f"{self.name} gave {document!r:.60} as number {number:,}; give it as a Document(id, …)"
                    )
                if (first := self.ids.add(document.id, f"{number:,}")) is not None and self.replace:
                    self.repeated.add(document.id)
                elif first is not None:
                    twice = f"{self.name} has two documents {document.id!r}; give each an id of its own"
                    raise StoreError(f"{twice} (they are number {first} and number {number:,})")
            count += len(every)
            yield self.folded(every) if self.contents else Group(every, every)

    def folded(self, every: tuple[Document, ...]) -> Group:
        kept, aliases = [], []
        for document in every:
            key = content(document)
            first = self.contents.add(key, document.id) if self.contents and key else None
            if first is None:
                kept.append(document)
            else:
                aliases.append((document.id, first))
        return Group(every, tuple(kept), tuple(aliases))


def content(document: Document) -> bytes | None:
    """A digest of the text and the image's bytes; None where the image cannot be read, or an id cannot be kept."""
    if isinstance(document, Spoiled):
        return None
    made = hashlib.blake2b(document.text.encode("utf-8", "surrogatepass") + b"\0", digest_size=16)
    if document.image is not None:
        try:
            with document.image.open("rb") as file:
                made.update(hashlib.file_digest(file, "sha256").digest())
        except (OSError, ValueError):
            return None
    return made.digest() if document.id.isprintable() else None
