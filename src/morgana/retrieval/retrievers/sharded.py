"""Dense retrieval from an index whose rows are spread over the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from morgana.cluster import Cluster
from morgana.index.ranking import Proposed, joined
from morgana.index.sharding import Shard, divide, marked
from morgana.index.vectors import Rows
from morgana.retrieval.retrievers.dense import Dense
from morgana.spec import part
from morgana.types import Encoder, Hits, Query, SpecError


@part
class Sharded:
    """What `Dense` finds, searched in up to `shards` Ray actors that each hold a part of the rows.

    Each actor opens the index folder by its path and searches its rows; candidates are joined here, so hits, scores and
    ties are those of `Dense`. Segments of an exact kind are cut, those of other kinds stay whole. An actor that dies is
    started again on another node. `address` is a cluster's; without one, RAY_ADDRESS or this machine.
    """

    index: str
    encoder: Encoder | None = None
    shards: int = 2
    address: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise SpecError(f"shards={self.shards}; it must be at least 1")

    def __call__(self, queries: Sequence[Query], k: int) -> list[Hits]:
        found: list[Hits] = []
        for start in range(0, len(queries), self.batch_size):
            vectors = self._dense.embed(queries[start : start + self.batch_size])
            found += self._dense.opened.search(vectors, k, propose=self._propose)
        return found

    def _propose(self, queries: Rows, many: int, thorough: bool) -> Proposed:
        asked = [actor.propose.remote(queries, many, thorough) for actor in self._actors]
        return joined([self._cluster.get(answer) for answer in asked])

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self.index, self.encoder, self.batch_size)

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self.address)

    @cached_property
    def _actors(self) -> list[Any]:
        index, path = self._dense.opened, str(Path(self.index).absolute())
        cuts = divide(index.segments, self.shards)
        return self._cluster.actors(Shard, [(path, marked(index), some) for some in cuts])
