"""A corpus that is larger than memory gives its documents one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from morgana.types import Document


@runtime_checkable
class Streamed(Protocol):
    """`documents()` holds them all in memory, `stream()` begins again at each call and holds a few."""

    @property
    def large(self) -> bool:
        """Whether it should be read as a stream."""
        ...

    def stream(self) -> Iterator[Document]: ...
