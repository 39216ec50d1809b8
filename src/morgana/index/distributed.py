"""A build whose batches are embedded on a Ray cluster, and that ends in the bytes of a build on one machine.

This process reads the corpus, looks for ids that come twice, and writes the stage in the order of the corpus, so a
build that is killed here goes on from its last checkpoint, with this engine or the other. A shard is some batches in a
row; one whose worker dies is given to another. Images and weights must be found at the same paths on every node.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

import numpy as np

from morgana.cluster import Cluster, built, spelled
from morgana.index import _batches, shelf
from morgana.index._batches import Made, unkept
from morgana.index._sieve import Group
from morgana.index.vectors import Half
from morgana.types import Document, Encoder, StoreError

Plain: TypeAlias = tuple[str, str, str | None, dict[str, str]]  # a document that can travel
NOTHING: Plain = ("", "", None, {})  # in place of one that cannot be kept anyway


@dataclass(frozen=True)
class Shard:
    """What travels to a worker."""

    encoder: str
    fingerprint: str
    what: str
    folder: str  # that relative paths start from
    threads: int
    batches: tuple[tuple[Plain, ...], ...]


@dataclass(frozen=True)
class Returned:
    """What comes back of a batch: numbers of documents in it, and float16 rows."""

    kept: tuple[tuple[int, tuple[str, ...]], ...]
    vectors: Half
    refused: tuple[tuple[int, str], ...]

    def made(self, group: Group) -> Made:
        refused = [(group.kept[i], unkept(group.kept[i]) or why) for i, why in self.refused]
        return Made([(group.kept[i], sources) for i, sources in self.kept], list(self.vectors), refused)


@dataclass(frozen=True)
class Distributed:
    """The engine of a build on a cluster: `batches` a task, decoded by `threads` threads of its worker."""

    cluster: Cluster = field(default_factory=Cluster)
    batches: int = 8
    threads: int = 2

    def made(self, groups: Iterator[Group], encoder: Encoder, what: str) -> Generator[tuple[Group, Made]]:
        common = (spelled(encoder), encoder.fingerprint, what, os.getcwd(), self.threads)
        sent = deque[tuple[Group, ...]]()

        def shards() -> Iterator[Shard]:
            while some := tuple(islice(groups, self.batches)):
                sent.append(some)
                yield Shard(*common, tuple(tuple(map(plain, group.kept)) for group in some))

        for results in self.cluster.map(embedded, shards()):
            for group, result in zip(sent.popleft(), results, strict=True):
                yield group, result.made(group)


def plain(document: Document) -> Plain:
    if unkept(document):
        return NOTHING
    image = None if document.image is None else str(document.image)
    return document.id, document.text, image, dict(document.metadata)


def embedded(shard: Shard) -> list[Returned]:
    """The work of a task, in a worker."""
    with suppress(OSError):  # of another host, where paths had better be absolute
        os.chdir(shard.folder)
    encoder: Encoder = built(shard.encoder)
    if encoder.fingerprint != shard.fingerprint:
        raise StoreError(f"{shard.encoder} has other weights on {socket.gethostname()}; give every node the same files")
    groups = [Group(every, every) for every in (tuple(map(document, batch)) for batch in shard.batches)]
    with ThreadPoolExecutor(shard.threads) as pool:
        return [returned(batch, encoder, shard.what) for batch in _batches.ahead(groups, shard.what, pool)]


def document(row: Plain) -> Document:
    id, text, image, metadata = row
    return shelf.document(id, text, image, metadata)


def returned(batch: _batches.Batch, encoder: Encoder, what: str) -> Returned:
    made = _batches.embed(batch, encoder, what)
    numbers = {id(document): number for number, document in enumerate(batch.group.kept)}
    vectors: Half = np.array(made.vectors, dtype=np.float16).reshape(-1, encoder.dimension)
    return Returned(
        tuple((numbers[id(document)], sources) for document, sources in made.kept),
        vectors,
        tuple((numbers[id(document)], why) for document, why in made.refused),
    )
