"""Builds an index: streams documents through an encoder, survives being killed, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from morgana.files import locked
from morgana.index import _batches, _disk, manifest, shelf
from morgana.index._engine import Engine, Local
from morgana.index._progress import progress
from morgana.index._publish import About, check_place, publish
from morgana.index._sieve import Group, Sieve
from morgana.index._staging import Staging
from morgana.index._writer import SegmentWriter
from morgana.index.index import Index
from morgana.index.kinds._base import Kind
from morgana.index.kinds.flat import Flat
from morgana.types import Corpus, Document, Encoder, SpecError, StoreError

FIRST = "000001"  # the segment of a build


def build(
    source: Corpus | Iterable[Document],
    encoder: Encoder,
    path: Path | str,
    *,
    kind: Kind | None = None,
    embed: str = "text",
    batch_size: int = 64,
    workers: int = 4,
    resume: bool = True,
    overwrite: bool = False,
    fold: bool = False,
    replace: bool = False,
    sparse: bool = False,
    progress: bool = True,
    seconds: float = 2.0,
    engine: Engine | None = None,
) -> Index:
    """Embed every document and write the index folder `path`.

    `embed` says what of a document with both is embedded: `text`, `image`, or `both` (two vectors, searched by the
    better one); a document with one of them is embedded by that. Images are decoded by `workers` threads while the
    encoder works; another `engine`, `Distributed(Cluster(…))`, does both on a Ray cluster. Documents that cannot be
    embedded are listed in the quarantine with the reason. With `fold`, documents of equal text and image bytes become
    one, the first, and the others' ids lead to it. With `replace`, of documents of one id the last that can be embedded
    is kept, in its place. With `sparse`, the words of the texts are kept beside the vectors,
    for search by BM25, by every later change too. A checkpoint is made every `seconds`; a killed build continues when
    it is called again the same way, and ends in the same bytes.
    Raises StoreError for an empty corpus, an id that comes twice without `replace`, a folder in the way, no space left.
    """
    plan = Plan(source, encoder, Path(path), kind or Flat(), embed, batch_size, fold, replace, sparse)
    plan.check()
    check_place(plan.path, overwrite)
    with locked(manifest.staging(plan.path), "is building in"):
        stage = Staging(manifest.staging(plan.path), plan.key)
        if not resume:
            stage.forget()
        try:
            repeated = encode(plan, stage, engine or Local(workers), progress, seconds)
        except Changed:
            stage.forget()
            repeated = encode(plan, stage, engine or Local(workers), progress, seconds)
        assemble(plan, stage, repeated)
        stage.clear()
    return Index.open(plan.path, encoder)


class Changed(Exception):
    """The documents are not those that the interrupted build had read."""


@dataclass(frozen=True)
class Plan:
    """What a build was asked for."""

    source: Corpus | Iterable[Document]
    encoder: Encoder
    path: Path
    kind: Kind
    embed: str
    batch_size: int
    fold: bool
    replace: bool
    sparse: bool

    def check(self) -> None:
        if self.embed not in _batches.EMBED:
            raise SpecError(f"embed={self.embed!r}; choose one of {', '.join(_batches.EMBED)}")
        if self.fold and self.replace:
            raise SpecError("fold keeps the first of equal documents, replace the last of one id; choose one of them")
        if self.batch_size < 1:
            raise SpecError(f"batch_size={self.batch_size}; it must be at least 1")
        self.kind.check(self.encoder.dimension)

    @property
    def key(self) -> dict[str, object]:
        """Two builds with equal keys over equal documents do the same."""
        return {
            "format": manifest.FORMAT,
            "fingerprint": self.encoder.fingerprint,
            "dimension": self.encoder.dimension,
            "embed": self.embed,
            "batch_size": self.batch_size,
            "fold": self.fold,
            "replace": self.replace,
        }

    @property
    def documents(self) -> Iterable[Document]:
        return _batches.documents(self.source)

    @property
    def about(self) -> About:
        twice = "fold" if self.fold else "replace" if self.replace else ""
        return About(repr(self.kind), self.encoder, self.embed, self.corpus, self.sparse, twice)

    @property
    def corpus(self) -> str:
        """How to name the corpus on a command line; empty if it is no part."""
        return repr(self.source) if getattr(type(self.source), "__morgana_part__", False) else ""


def encode(plan: Plan, stage: Staging, engine: Engine, shown: bool, seconds: float) -> set[str]:
    """Every batch that the stage does not have yet; gives the ids that came more than once."""
    documents = plan.documents
    sieve = Sieve(documents, plan.batch_size, fold=plan.fold, replace=plan.replace, name=plan.corpus)
    groups = iter(sieve)
    restartable = isinstance(documents, Collection) or documents is not plan.source
    digest, skipped = skip(groups, stage, restartable=restartable)
    total = len(documents) if isinstance(documents, Sized) else None
    last = time.monotonic()
    with (
        stage.growing(),
        progress("indexing", total, skipped, shown=shown) as advance,
        closing(engine.made(groups, plan.encoder, plan.embed)) as batches,
    ):
        try:
            for group, made in batches:
                digest = chain(digest, group.every)
                stage.add(made, group.aliases, digest)
                advance(len(group.every))
                if time.monotonic() - last >= seconds:
                    stage.checkpoint()
                    last = time.monotonic()
        finally:
            stage.checkpoint()
    return sieve.repeated


def skip(groups: Iterator[Group], stage: Staging, *, restartable: bool) -> tuple[str, int]:
    """Pass over the batches of the stage: their digest and how many documents they had; Changed if they differ."""
    digest, count = "", 0
    for group in islice(groups, stage.state["batches"]):
        digest, count = chain(digest, group.every), count + len(group.every)
    if digest != stage.state["digest"]:
        if restartable:
            raise Changed
        raise StoreError(f"the documents are not those of the build in {stage.folder}; start afresh with resume=False")
    return digest, count


def chain(digest: str, group: Iterable[Document]) -> str:
    """A digest of all documents so far and of their images' sizes and times."""
    made = hashlib.sha256(digest.encode())
    for document in group:
        row = (document.id, document.text, str(document.image), sorted(map(str, document.metadata.items())))
        made.update(repr((row, stamp(document.image))).encode("utf-8", "surrogatepass"))
    return made.hexdigest()


def stamp(image: Path | None) -> tuple[int, int] | None:
    try:
        found = image.stat() if image else None
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if found else None


def assemble(plan: Plan, stage: Staging, repeated: set[str]) -> None:
    """Make the segment inside the stage, and give it to the index folder."""
    if not stage.state["vectors"]:
        refused = next(stage.refused(), None)
        many = stage.state["quarantined"]
        stage.clear()
        why = (
            f"all {many} documents were refused, the first: {': '.join(refused)}" if refused else "it has no documents"
        )
        raise StoreError(f"nothing of {plan.corpus or 'the corpus'} can be indexed: {why}")
    final = stage.folder / "final"
    _disk.remove(final)
    with SegmentWriter(final / "segments" / FIRST, plan.encoder.dimension, sparse=plan.sparse) as writer:
        rows = iter(stage.rows())
        later = Counter(d.id for d, _ in (stage.rows() if repeated else ()) if d.id in repeated)
        for piece in pieces(stage, plan.encoder.dimension, rows):
            writer.add(*(latest(piece, later) if repeated else piece))
        for id, reason in stage.refused():
            writer.refuse(id, reason)
        entry, measured = writer.finish(plan.kind, stage.aliases())
    publish(final, plan.path, plan.about, entry, measured)


def latest(piece: shelf.Piece, later: Counter[str]) -> shelf.Piece:
    """What no document after it replaces; `later` counts what is still to come of each id that comes again."""
    embedded, vectors = piece
    keep = []
    for document, _ in embedded:
        if document.id in later:
            later[document.id] -= 1
        keep.append(not later[document.id])
    rows = np.repeat(keep, [len(sources) for _, sources in embedded])
    return [one for one, kept in zip(embedded, keep, strict=True) if kept], vectors[rows]


def pieces(stage: Staging, dimension: int, rows: Iterator[shelf.Embedded]) -> Iterator[shelf.Piece]:
    """The staged documents with their vectors, some thousand at a time."""
    vectors = stage.vectors(dimension)
    with vectors.path.open("rb") as file:
        while some := list(islice(rows, 4096)):
            count = sum(len(sources) for _, sources in some)
            yield some, vectors.read(file, count)
