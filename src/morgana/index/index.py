"""An index folder, opened for reading."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from morgana.index import manifest as manifests
from morgana.index import verifying
from morgana.index.filters import Where
from morgana.index.kinds._gpu import asked
from morgana.index.lexical import BM25
from morgana.index.manifest import Manifest
from morgana.index.ranking import Found, Propose, Stack, rank
from morgana.index.segment import Segment
from morgana.index.selecting import Selector
from morgana.index.vectors import CHUNK, Rows, not_unit
from morgana.spec import nearest, parse
from morgana.types import Document, Embeddings, Encoder, Hit, Hits, SpecError, StoreError

CHECKED = 32 << 20  # bytes of vectors that opening looks through; `verify` looks through any number
TRIES = 20  # how often opening begins again because a writer changed the index meanwhile


class Embedded(NamedTuple):
    """Every vector of an index with its document's id; a document embedded twice is there twice."""

    ids: tuple[str, ...]
    vectors: Tensor  # (N, D) float32, of unit length to within the rounding of float16, in order of insertion


@dataclass(frozen=True, eq=False)
class Index:
    """Documents and their vectors. Open it with `Index.open`; what it shows never changes while it is open."""

    path: Path
    manifest: Manifest
    segments: tuple[Segment, ...] = field(repr=False)

    @classmethod
    def open(cls, path: Path | str, encoder: Encoder | None = None, *, device: str = "cpu") -> Index:
        """Check the folder and open it as it is now; changes made later are seen by whoever opens it later.

        `device="cuda"` searches on a GPU where FAISS was built for it and finds one, and for the kinds that it has
        there; on the CPU otherwise. Exact kinds give the same results on both.
        Raises StoreError, saying what to do, for no index or half of one, another format, files that were changed,
        vectors that are no unit vectors, and an encoder whose weights are not those that built it; SpecError for a
        device that is none.
        """
        path = Path(path)
        asked(device)
        for _ in range(TRIES):
            found = manifests.read(path)
            if encoder is not None:
                manifests.check_encoder(path, found, encoder)
            try:
                return cls(path, found, opened(path, found, device))
            except (StoreError, OSError) as error:
                if manifests.read(path) == found:  # not a change that came between
                    raise blamed(path, found, error) from error
        raise StoreError(f"{path} changes faster than it can be opened; try again")

    def search(
        self,
        vectors: Embeddings,
        k: int,
        *,
        where: Where | str | None = None,
        source: str | None = None,
        propose: Propose | None = None,
    ) -> list[Hits]:
        """The k best documents for each row of `vectors` (B, D), best first: cosine, ties in order of insertion.

        `where` filters by metadata (see `filters`), before the search: k documents are found where k match, and over
        exact kinds they are the k best that match. `source` searches the vectors of texts or of images only. All
        documents where k is larger than the index. `propose` finds candidates in place of this process, unfiltered.
        Raises SpecError for k < 1, a wrong shape, NaN or zero rows, and a filter that cannot be read or names a field
        that no document has.
        """
        return self._hits(self._rank(vectors, k, where, source, propose))

    def _rank(
        self,
        vectors: Embeddings,
        k: int,
        where: Where | str | None = None,
        source: str | None = None,
        propose: Propose | None = None,
    ) -> Found:
        """What `search` finds, its documents not yet read."""
        check(k)
        queries = self._queries(torch.as_tensor(vectors))
        only = None if where is None and source is None else self._select(where, source)
        k = min(k, self.manifest.documents if only is None else sum(one.matching for one in only))
        if not k or not len(queries):
            return [[] for _ in queries]
        return rank(propose or partial(self._stack.propose, only=only), queries, k, self._stack.each, self._stack.size)

    def match(
        self, texts: Sequence[str], k: int, *, k1: float = 1.5, b: float = 0.75, where: Where | str | None = None
    ) -> list[Hits]:
        """The best documents by BM25 for each text, best first, ties in order of insertion: at most k.

        Only documents that have a word of the text are found; `lexical` says how they are scored. Raises StoreError
        for an index that keeps no words, SpecError for k < 1, and k1, b or a filter that cannot be.
        """
        check(k)
        only = None if where is None else self._select(where)
        scorer = self._scorer(k1, b)
        return self._hits([scorer.rank(text, k, only) for text in texts])

    def document(self, id: str) -> Document:
        """The document of this id; StoreError with the nearest id if there is none."""
        return self._stack.documents([position := self._positions([id])[0]])[position]

    def stream(self) -> Iterator[Document]:
        """Every document, in order of insertion, a few in memory at a time."""
        for segment in self.segments:
            for document, alive in zip(segment.shelf.all(), segment.alive(), strict=True):
                if alive:
                    yield document

    def documents(self) -> tuple[Document, ...]:
        """Every document, in order of insertion."""
        return tuple(self.stream())

    def vectors(self, ids: Sequence[str]) -> Tensor:
        """One vector a document, (len(ids), D); of a document embedded twice, its text's."""
        rows = np.empty(len(ids), dtype=np.int64)
        positions = np.array(self._positions(ids), dtype=np.int64)
        for number, here in self._stack.split(positions, self._stack.first_document):
            local = (positions[here] - self._stack.first_document[number]).astype(np.int32)
            rows[here] = np.searchsorted(self.segments[number].owners, local) + self._stack.first_row[number]
        return torch.from_numpy(self._stack.take(rows))

    @property
    def embeddings(self) -> Embedded:
        """A copy of all vectors, with their documents' ids."""
        ids: list[str] = []
        rows = [np.empty((0, self.manifest.dimension), dtype=np.float32)]
        for segment in self.segments:
            alive, names = segment.alive()[segment.owners], list(segment.shelf.ids())
            ids += [names[p] for p in segment.owners[alive]]
            rows.append(segment.vectors[alive].astype(np.float32))
        return Embedded(tuple(ids), torch.from_numpy(np.concatenate(rows)))

    @property
    def aliases(self) -> Mapping[str, str]:
        """Ids whose documents were folded into another of the same content, with that one's id."""
        found: dict[str, str] = {}
        for segment in self.segments:
            alive, others = segment.alive(), list(segment.shelf.aliases())
            documents = segment.shelf.documents(position for _, position in others)
            found |= {id: documents[position].id for id, position in others if alive[position]}
        return found

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that built the index, built again from its name; StoreError if its weights have changed since."""
        made: Encoder = parse(self.manifest.encoder)
        manifests.check_encoder(self.path, self.manifest, made)
        return made

    def info(self) -> dict[str, Any]:
        """The manifest, the path and the bytes on disk, as JSON can hold them; `quarantined` as `quarantine` lists."""
        size = sum(f["bytes"] for s in self.segments for f in s.about.files.values())
        about = asdict(self.manifest) | {"segments": [asdict(entry) for entry in self.manifest.segments]}
        return {"path": str(self.path), **about, "quarantined": len(self.quarantine()), "bytes": size}

    def quarantine(self) -> tuple[tuple[str, str], ...]:
        """Ids of the documents that were refused, with the last reason; less those that came in later."""
        refused = {id: (number, why) for number, one in enumerate(self.segments) for id, why in one.quarantine()}
        home = self.locate(list(refused))
        return tuple((id, why) for id, (number, why) in refused.items() if id not in home or home[id][0] <= number)

    def verify(self) -> list[str]:
        """What is wrong with the folder as it is now, every byte checked; empty if nothing is."""
        return verifying.verify(self.path)

    def locate(self, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(segment number, position in it) of those ids that can be found; aliases too."""
        found: dict[str, tuple[int, int]] = {}
        for number, segment in enumerate(self.segments):
            for id, position in segment.shelf.positions(ids).items():
                if segment.dead is None or not segment.dead[position]:
                    found[id] = (number, position)
        return found

    def unknown(self, id: str) -> str:
        """What to say of an id that is not there."""
        near = [name for segment in self.segments for name in segment.shelf.around(id)]
        known = self.locate(near)
        return f"{self.path} holds no document {id!r}{nearest(id, [name for name in near if name in known])}"

    def _scorer(self, k1: float, b: float) -> BM25:
        if (k1, b) not in self._scorers:
            words = [segment.words for segment in self.segments if segment.words is not None]
            if not self.manifest.sparse or len(words) < len(self.segments):
                add = f"morgana index compact {shlex.quote(str(self.path))} --sparse"
                raise StoreError(f"{self.path} keeps no words to search for; add them: {add}")
            self._scorers[k1, b] = BM25(self.segments, words, k1, b)
        return self._scorers[k1, b]

    @cached_property
    def _scorers(self) -> dict[tuple[float, float], BM25]:
        return {}

    def _hits(self, found: Found) -> list[Hits]:
        documents = self._stack.documents([position for ranked in found for position, _ in ranked])
        return [tuple(Hit(documents[position], score) for position, score in ranked) for ranked in found]

    @cached_property
    def _select(self) -> Selector:
        return Selector(self.segments)

    def _positions(self, ids: Sequence[str]) -> list[int]:
        found = self.locate(ids)
        for id in ids:
            if id not in found:
                raise StoreError(self.unknown(id))
        return [int(self._stack.first_document[number]) + position for number, position in map(found.get, ids)]  # type: ignore[misc]

    def _queries(self, vectors: Embeddings) -> Rows:
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            wanted = f"(B, {self.manifest.dimension}), as {self.manifest.encoder} gives them"
            raise SpecError(f"query vectors of shape {tuple(vectors.shape)}; {self.path} wants {wanted}")
        rows: Rows = (vectors if vectors.dtype == torch.float32 else vectors.float()).numpy(force=True)
        lengths = np.sqrt(np.vecdot(rows, rows))
        if not all(0 < length < math.inf for length in lengths.tolist()):  # also where NaN
            raise SpecError("a query vector is zero or holds NaN or infinity; check the encoder and its input")
        scaled: Rows = rows / lengths[:, None]
        return scaled

    @cached_property
    def _stack(self) -> Stack:
        return Stack(self.segments, self.manifest.dimension)


def check(k: int) -> None:
    if not isinstance(k, Integral) or k < 1:
        raise SpecError(f"k={k!r}; ask for at least 1 document")


def opened(path: Path, found: Manifest, device: str = "cpu", *, searched: bool = True) -> tuple[Segment, ...]:
    """Every segment, and a look through the vectors where they are few; `searched` as `Segment` takes it."""
    segments = tuple(Segment(path, entry, found.dimension, device, searched=searched) for entry in found.segments)
    if sum(s.vectors.nbytes for s in segments) <= CHECKED:
        for segment in segments:
            for start in range(0, len(segment.vectors), CHUNK):
                if bad := not_unit(np.asarray(segment.vectors[start : start + CHUNK])):
                    raise StoreError(f"segments/{segment.entry.name}/vectors.npy: row {start + bad[0]} {bad[1]}")
    return segments


def blamed(path: Path, found: Manifest, error: Exception) -> StoreError:
    again = f"{found.rebuild(path)}{found.overwrite}"
    return StoreError(
        f"{path} is damaged: {error}; `morgana index verify` says more; restore it, or rebuild it: {again}"
    )
