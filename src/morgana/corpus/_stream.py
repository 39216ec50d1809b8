"""A corpus gives its documents one by one, and a row that cannot be read does not end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from morgana.types import Document, StoreError


@runtime_checkable
class Streamed(Protocol):
    """`documents()` holds them all in memory and raises at a bad row; `stream()` holds a few and gives it as spoiled.

    `stream` begins again at each call; whoever reads it looks for ids that come twice.
    """

    def stream(self) -> Iterator[Document]: ...


@dataclass(frozen=True)
class Spoiled(Document):
    """Stands for a row that cannot be read; its id is the row's place."""

    why: str = ""


def attempt(place: str, read: Callable[..., Document], *given: object) -> Document:
    """What `read(*given)` gives, or what spoilt it; a full disk is no fault of the row."""
    try:
        return read(*given)
    except StoreError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return Spoiled(place, why=str(error))


def sound(documents: Iterator[Document]) -> tuple[Document, ...]:
    """All of them in memory; StoreError at the first that is spoiled."""
    return tuple(map(checked, documents))


def checked(document: Document) -> Document:
    if isinstance(document, Spoiled):
        raise StoreError(document.why)
    return document
