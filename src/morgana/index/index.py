"""An index folder, opened for reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from morgana.index import manifest as manifests
from morgana.index._batches import not_unit
from morgana.index.kinds import CHUNK, Rows, Searcher
from morgana.index.manifest import Manifest
from morgana.index.ranking import rank
from morgana.index.shelf import Shelf
from morgana.spec import components, nearest, parse
from morgana.types import Document, Embeddings, Encoder, Hit, Hits, SpecError, StoreError

CHECKED = 256 << 20  # bytes of vectors that opening looks through; `verify` looks through any number


class Embedded(NamedTuple):
    """Every vector of an index with its document's id; a document embedded twice is there twice."""

    ids: tuple[str, ...]
    vectors: Tensor  # (N, D) float32, unit rows, in order of insertion


@dataclass(frozen=True, eq=False)
class Index:
    """Documents and their vectors. Open it with `Index.open`; it never changes while it is open."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str, encoder: Encoder | None = None) -> Index:
        """Check the folder and open it.

        Raises StoreError, saying what to do, for no index or half of one, a newer format, files that were changed,
        vectors that are no unit vectors, and an encoder whose weights are not those that built it.
        """
        path = Path(path)
        found = manifests.read(path)
        if wrong := manifests.check_files(path, found, every=False):
            raise StoreError(
                f"{path} is damaged: {wrong[0]}; restore it, or rebuild it: {found.rebuild(path)} --overwrite"
            )
        if encoder is not None:
            manifests.check_encoder(path, found, encoder)
        index = cls(path, found)
        index._shelf.ask("SELECT 1 FROM documents LIMIT 1")
        if index._vectors.nbytes <= CHECKED:
            index._check_vectors()
        return index

    def search(self, vectors: Embeddings, k: int) -> list[Hits]:
        """The k best documents for each row of `vectors` (B, D), best first: cosine, ties in order of insertion.

        All documents where k is larger than the index. Raises SpecError for k < 1, a wrong shape, NaN or zero rows.
        """
        if k < 1:
            raise SpecError(f"k={k}; ask for at least 1 document")
        queries = self._queries(vectors)
        each = 2 if self.manifest.vectors > self.manifest.documents else 1
        k = min(k, self.manifest.documents)
        found = rank(self._searcher, self._vectors, self._shelf.owners, queries, k, each)
        documents = self._shelf.documents(position for ranked in found for position, _ in ranked)
        return [tuple(Hit(documents[position], score) for position, score in ranked) for ranked in found]

    def document(self, id: str) -> Document:
        """The document of this id; StoreError with the nearest id if there is none."""
        return self._shelf.documents((position := self._position(id),))[position]

    def documents(self) -> tuple[Document, ...]:
        """Every document, in order of insertion."""
        found = self._shelf.documents(range(self.manifest.documents))
        return tuple(found[position] for position in range(self.manifest.documents))

    def vectors(self, ids: Sequence[str]) -> Tensor:
        """One vector a document, (len(ids), D); of a document embedded twice, its text's."""
        first = np.searchsorted(self._shelf.owners, [self._position(id) for id in ids])
        return torch.from_numpy(np.array(self._vectors[first]).reshape(-1, self.manifest.dimension))

    @property
    def embeddings(self) -> Embedded:
        """A copy of all vectors, with their documents' ids."""
        ids = self._shelf.ids
        return Embedded(tuple(ids[p] for p in self._shelf.owners), torch.from_numpy(np.array(self._vectors)))

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that built the index, built again from its name; StoreError if its weights have changed since."""
        made: Encoder = parse(self.manifest.encoder)
        manifests.check_encoder(self.path, self.manifest, made)
        return made

    def info(self) -> dict[str, Any]:
        """The manifest, the path and the bytes on disk, as JSON can hold them."""
        return {
            "path": str(self.path),
            **asdict(self.manifest),
            "bytes": sum(f["bytes"] for f in self.manifest.files.values()),
        }

    def quarantine(self) -> tuple[tuple[str, str], ...]:
        """Ids of the documents that were refused, with the reason."""
        from morgana.files import json_lines

        return tuple((row["id"], row["reason"]) for _, row in json_lines(self.path / "quarantine.jsonl"))

    def verify(self) -> list[str]:
        """What is wrong with the folder, checking every byte and the agreement of its files; empty if nothing is."""
        wrong = manifests.check_files(self.path, self.manifest, every=True)
        if wrong:
            return wrong
        try:
            self._check_vectors()
        except StoreError as error:
            wrong.append(str(error))
        held = {
            "documents.sqlite": (len(self._shelf.ids), self.manifest.documents),
            "the vectors table": (len(self._shelf.owners), self.manifest.vectors),
            "vectors.faiss": (self._searcher.size, (self.manifest.vectors, self.manifest.dimension)),
        }
        return wrong + [
            f"{name} holds {has}, the manifest says {says}" for name, (has, says) in held.items() if has != says
        ]

    def _queries(self, vectors: Embeddings) -> Rows:
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            wanted = f"(B, {self.manifest.dimension}), as {self.manifest.encoder} gives them"
            raise SpecError(f"query vectors of shape {tuple(vectors.shape)}; {self.path} wants {wanted}")
        rows: Rows = vectors.detach().to("cpu", torch.float32).numpy()
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise SpecError("a query vector is zero or holds NaN or infinity; check the encoder and its input")
        scaled: Rows = rows / lengths
        return scaled

    def _position(self, id: str) -> int:
        position = self._shelf.position(id)
        if position is None:
            raise StoreError(f"{self.path} holds no document {id!r}{nearest(id, list(self._shelf.ids))}")
        return position

    def _check_vectors(self) -> None:
        for start in range(0, len(self._vectors), CHUNK):
            if why := not_unit(np.asarray(self._vectors[start : start + CHUNK])):
                again = self.manifest.rebuild(self.path)
                raise StoreError(
                    f"{self.path}/vectors.npy: its vectors from row {start} on {why}; rebuild it: {again} --overwrite"
                )

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf(self.path / "documents.sqlite")

    @cached_property
    def _vectors(self) -> Rows:
        file = self.path / "vectors.npy"
        try:
            rows: Rows = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{file} is not an array: {error}; rebuild the index") from error
        wanted = (self.manifest.vectors, self.manifest.dimension)
        if rows.shape != wanted or rows.dtype != np.float32:
            raise StoreError(
                f"{file} holds {rows.dtype} of shape {rows.shape}, not float32 {wanted}; rebuild the index"
            )
        return rows

    @cached_property
    def _searcher(self) -> Searcher:
        kind: Any = parse(self.manifest.kind)
        if not isinstance(kind, components("index")):
            raise StoreError(
                f"{self.path} names the kind {self.manifest.kind!r}, which is no kind of index; rebuild it"
            )
        searcher: Searcher = kind.read(self.path / "vectors.faiss")
        return searcher
