"""Who embeds the batches of a build: the threads of this process, unless another engine is named."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from morgana.index import _batches
from morgana.index._batches import Made
from morgana.index._sieve import Group
from morgana.types import Encoder


class Engine(Protocol):
    """Embeds groups in order; the result depends on the groups alone, never on who embeds them."""

    def made(self, groups: Iterator[Group], encoder: Encoder, what: str) -> Generator[tuple[Group, Made]]: ...


@dataclass(frozen=True)
class Local:
    """This process: `workers` threads decode images while the encoder works."""

    workers: int = 4

    def made(self, groups: Iterator[Group], encoder: Encoder, what: str) -> Generator[tuple[Group, Made]]:
        pool = ThreadPoolExecutor(max(1, self.workers))
        try:
            for batch in _batches.ahead(groups, what, pool):
                yield batch.group, _batches.embed(batch, encoder, what)
        finally:
            pool.shutdown(cancel_futures=True)
