"""What an attack aims at: the index around it, and the rows of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from morgana.spec import nearest
from morgana.types import Document, Embeddings, Encoder, Hit, Hits, Pixels, Query, SpecError


class Shelf(Protocol):
    """The part of an index that an attacker with a copy of it can read."""

    @property
    def embeddings(self) -> tuple[Sequence[str], Tensor]:
        """Unit vectors, (V, D), and the id of each one's document; a document may have several."""
        ...

    def document(self, id: str) -> Document: ...


@dataclass(frozen=True, eq=False)
class Surroundings:
    """An index as an attack sees it, read once and shared by every batch."""

    shelf: Shelf

    @cached_property
    def vectors(self) -> tuple[tuple[str, ...], Tensor]:
        """The id of each vector's document, and the vectors, (V, D) float32."""
        ids, matrix = self.shelf.embeddings
        return tuple(ids), torch.as_tensor(matrix).float()

    @property
    def matrix(self) -> Tensor:
        return self.vectors[1]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The N documents, in order of insertion."""
        return tuple(dict.fromkeys(self.vectors[0]))

    @cached_property
    def owners(self) -> Tensor:
        """The document number of each vector, (V,)."""
        return torch.tensor([self.rows[id] for id in self.vectors[0]], dtype=torch.long)

    def scores(self, embedded: Embeddings) -> Tensor:
        """(B, N) cosines of (B, D) embeddings with every document, of several vectors the best; differentiable."""
        found = embedded @ self.matrix.to(embedded).T
        if len(self.ids) == found.shape[1]:
            return found
        owners = self.owners.to(found.device).expand_as(found)
        best = found.new_full((len(found), len(self.ids)), -2.0)
        return best.scatter_reduce(1, owners, found, "amax")

    @cached_property
    def rows(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.ids)}

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """Each row's `metadata["topic"]`, empty where it has none."""
        return tuple(self.shelf.document(id).metadata.get("topic", "") for id in self.ids)

    def row(self, id: str) -> int:
        if id not in self.rows:
            near = nearest(id, list(self.rows))
            raise SpecError(f"the index holds no document {id!r}{near}; it holds {len(self.ids)}")
        return self.rows[id]

    def about(self, topic: str) -> Tensor:
        """Which rows are of a topic, (N,) bool; SpecError naming the known topics if there is none."""
        mask = torch.tensor([known == topic for known in self.topics], dtype=torch.bool)
        if not mask.any():
            known = sorted({t for t in self.topics if t})
            listed = ", ".join(known[:10]) or "none; set metadata['topic'] on the documents"
            near = nearest(topic, known)
            raise SpecError(f"no document of the index has the topic {topic!r}{near}; it has {listed}")
        return mask

    def search(self, embeddings: Embeddings, k: int) -> list[Hits]:
        """The k best documents by exact inner product; ties go to the earlier row, as in FAISS."""
        scores = self.scores(embeddings.detach().float().cpu())
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        return [
            tuple(Hit(self.shelf.document(self.ids[column]), float(row[column])) for column in best)
            for row, best in zip(scores, order.tolist(), strict=True)
        ]

    def replaced(self, embeddings: Mapping[str, Tensor]) -> Surroundings:
        """The same index with some documents' vectors exchanged (of two, the last: the image's)."""
        ids, matrix = self.vectors
        changed = matrix.clone()
        for id, vector in embeddings.items():
            changed[(self.owners == self.row(id)).nonzero()[-1]] = vector.detach().to(matrix)
        return Surroundings(_Copy(self.shelf, ids, changed))


@dataclass(frozen=True, eq=False)
class _Copy:
    inner: Shelf
    ids: tuple[str, ...]
    matrix: Tensor

    @property
    def embeddings(self) -> tuple[Sequence[str], Tensor]:
        return self.ids, self.matrix

    def document(self, id: str) -> Document:
        return self.inner.document(id)


@dataclass(frozen=True, eq=False)
class Target:
    """One batch: for each row its query, what is relevant to it, and what the clean image gives."""

    queries: tuple[Query, ...]
    around: Surroundings | None = None  # retrieval goals need it
    clean: Embeddings | None = None  # (B, D) of the clean images
    sources: tuple[frozenset[str], ...] = ()  # ids of the documents that are right; empty: unknown
    hits: tuple[Hits, ...] = ()  # of the clean images; what a generator reads

    def __len__(self) -> int:
        return len(self.queries)

    def row(self, number: int) -> Target:
        """The target of one row, for attacks that look at samples one by one."""
        part = slice(number, number + 1)
        return replace(
            self,
            queries=self.queries[part],
            clean=None if self.clean is None else self.clean[part],
            sources=self.sources[part],
            hits=self.hits[part],
        )


def aim(
    around: Surroundings,
    encoder: Encoder,
    pixels: Pixels,
    queries: Sequence[Query],
    qrels: Mapping[str, Mapping[str, int]] | None = None,
    k: int = 5,
) -> Target:
    """Look at the clean images once: their embeddings, hits, and relevant documents that the index holds."""
    if len(pixels) != len(queries):
        raise SpecError(f"{len(pixels)} images for {len(queries)} queries; give one image a query")
    with torch.no_grad():
        clean = encoder.encode_image(pixels)
    grades = [(qrels or {}).get(query.id, {}) for query in queries]
    relevant = [frozenset(id for id, grade in row.items() if grade > 0 and id in around.rows) for row in grades]
    return Target(
        queries=tuple(queries),
        around=around,
        clean=clean,
        sources=tuple(relevant),
        hits=tuple(around.search(clean, k)),
    )
