"""Samples: what an experiment is judged on, drawn from a corpus in an order that a larger limit only extends."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from morgana.seeds import derive
from morgana.types import Corpus, Query, StoreError


@runtime_checkable
class Questioned(Protocol):
    """A corpus that knows the right answers: items with a `query`, a `question` and a `site`.

    A question has `kind`, `answer` and `short`, and may have `also`: other right answers.
    """

    def questions(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Sample:
    """One query with what is known of it."""

    query: Query
    relevant: Mapping[str, int]  # document id -> relevance
    cluster: str  # samples that share a tile or a site are not independent
    kind: str = "retrieval"
    references: tuple[str, ...] = ()  # answers that count as right; ("yes",) or ("no",) for presence

    @property
    def id(self) -> str:
        return self.query.id

    @cached_property
    def tile(self) -> str:
        """A name for the image by its content: samples of one tile are attacked together. Empty: no image."""
        return named(self.query.image) if self.query.image else ""


def samples(
    corpus: Corpus, seed: int = 0, limit: int | None = None, kinds: Sequence[str] = (), each: int | None = None
) -> list[Sample]:
    """The corpus's queries (of these kinds, if any are named) in an order drawn from `seed`, the first `limit` of them.

    With `each`, first of all at most so many of every kind are kept.

    Raises StoreError if nothing is left to judge.
    """
    qrels = corpus.qrels()
    known = {item.query.id: item for item in corpus.questions()} if isinstance(corpus, Questioned) else {}
    found = [describe(query, qrels.get(query.id, {}), known.get(query.id)) for query in corpus.queries()]
    chosen = [s for s in found if not kinds or s.kind in kinds]
    if not chosen:
        have = ", ".join(sorted({s.kind for s in found})) or "no queries at all"
        raise StoreError(
            f"{corpus!r} has nothing to judge{' of kind ' + ', '.join(kinds) if kinds else ''}; it has {have}"
        )
    chosen.sort(key=lambda s: derive(seed, "order", s.id))
    if each is not None:
        chosen = few(chosen, each)
    return chosen[:limit]


def few(ordered: Sequence[Sample], each: int) -> list[Sample]:
    """The first `each` of every kind."""
    counted, kept = Counter[str](), []
    for sample in ordered:
        counted[sample.kind] += 1
        if counted[sample.kind] <= each:
            kept.append(sample)
    return kept


def named(image: Path) -> str:
    """The file's stem and a digest of its bytes, so that equal names in different folders stay apart."""
    try:
        digest = hashlib.blake2b(image.read_bytes(), digest_size=4).hexdigest()
    except OSError as error:
        raise StoreError(f"cannot read the image {image}: {error.strerror}; check the corpus") from None
    return f"{image.stem}-{digest}"


def describe(query: Query, relevant: Mapping[str, int], item: Any) -> Sample:
    if item is None:
        return Sample(query, relevant, query.image.stem if query.image else query.id)
    asked = item.question
    said = (asked.short, asked.answer, *getattr(asked, "also", ()))
    right = (asked.short,) if asked.kind == "presence" else tuple(dict.fromkeys(said))
    return Sample(query, relevant, str(item.site), asked.kind, tuple(r for r in right if r))
