"""Builds an index: streams documents through an encoder, survives being killed, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morgana.files import storing, write_bytes
from morgana.index import _batches, manifest, shelf
from morgana.index._progress import progress
from morgana.index._staging import Staging, locked
from morgana.index.index import Index
from morgana.index.kinds import Flat, Kind
from morgana.types import Corpus, Document, Encoder, SpecError, StoreError


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
    progress: bool = True,
    seconds: float = 2.0,
) -> Index:
    """Embed every document and write the index folder `path`.

    `embed` says what of a document with both is embedded: `text`, `image`, or `both` (two vectors, searched by the
    better one); a document with one of them is embedded by that. Images are decoded by `workers` threads while the
    encoder works. Documents that cannot be embedded are listed in `quarantine.jsonl` with the reason. A checkpoint is
    made every `seconds`; a killed build continues when it is called again the same way, and ends in the same bytes.
    Raises StoreError for an empty corpus, an id that comes twice, a folder in the way, no space left.
    """
    plan = Plan(source, encoder, Path(path), kind or Flat(), embed, batch_size)
    plan.check(overwrite)
    with locked(manifest.staging(plan.path)):
        stage = Staging(manifest.staging(plan.path), plan.key)
        if not resume:
            stage.forget()
        try:
            encode(plan, stage, workers, progress, seconds)
        except Changed:
            stage.forget()
            encode(plan, stage, workers, progress, seconds)
        publish(assemble(plan, stage), plan.path)
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

    def check(self, overwrite: bool) -> None:
        if self.embed not in _batches.EMBED:
            raise SpecError(f"embed={self.embed!r}; choose one of {', '.join(_batches.EMBED)}")
        if self.batch_size < 1:
            raise SpecError(f"batch_size={self.batch_size}; it must be at least 1")
        old = aside(self.path)
        if old.is_dir() and not self.path.exists():  # killed between two renames
            old.rename(self.path)
        if (self.path / manifest.NAME).is_file():
            if not overwrite:
                raise StoreError(f"{self.path} holds an index; replace it with --overwrite, or choose another folder")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise StoreError(f"{self.path} is in the way and is not an index; choose another folder")

    @property
    def key(self) -> dict[str, object]:
        """Two builds with equal keys over equal documents do the same."""
        return {
            "format": manifest.FORMAT,
            "fingerprint": self.encoder.fingerprint,
            "dimension": self.encoder.dimension,
            "embed": self.embed,
            "batch_size": self.batch_size,
        }

    @property
    def documents(self) -> Iterable[Document]:
        return self.source if isinstance(self.source, Iterable) else self.source.documents()

    @property
    def corpus(self) -> str:
        """How to name the corpus on a command line; empty if it is no part."""
        return repr(self.source) if getattr(type(self.source), "__morgana_part__", False) else ""


def encode(plan: Plan, stage: Staging, workers: int, shown: bool, seconds: float) -> None:
    """Every batch that the stage does not have yet."""
    documents = plan.documents
    groups = distinct(_batches.groups(documents, plan.batch_size), plan.corpus)
    digest, skipped = skip(groups, stage, restartable=isinstance(documents, Collection))
    total = len(documents) if isinstance(documents, Sized) else None
    last = time.monotonic()
    with (
        stage.growing(),
        ThreadPoolExecutor(max(1, workers)) as pool,
        progress("indexing", total, skipped, shown=shown) as advance,
    ):
        try:
            for batch in _batches.ahead(groups, plan.embed, pool):
                digest = chain(digest, batch.documents)
                stage.add(_batches.embed(batch, plan.encoder, plan.embed), digest)
                advance(len(batch.documents))
                if time.monotonic() - last >= seconds:
                    stage.checkpoint()
                    last = time.monotonic()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stage.checkpoint()


def skip(groups: Iterator[tuple[Document, ...]], stage: Staging, *, restartable: bool) -> tuple[str, int]:
    """Pass over the batches of the stage: their digest and how many documents they had; Changed if they differ."""
    digest, count = "", 0
    for _ in range(stage.state["batches"]):
        group = next(groups, ())
        digest, count = chain(digest, group), count + len(group)
    if digest != stage.state["digest"]:
        if restartable:
            raise Changed
        raise StoreError(f"the documents are not those of the build in {stage.folder}; start afresh with resume=False")
    return digest, count


def distinct(groups: Iterable[tuple[Document, ...]], corpus: str) -> Iterator[tuple[Document, ...]]:
    """The groups, as long as no id comes twice."""
    seen: set[str] = set()
    for group in groups:
        for document in group:
            if document.id in seen:
                raise StoreError(
                    f"{corpus or 'the corpus'} has two documents {document.id!r}; give each an id of its own"
                )
            seen.add(document.id)
        yield group


def chain(digest: str, group: Iterable[Document]) -> str:
    """A digest of all documents so far and of their images' sizes and times."""
    made = hashlib.sha256(digest.encode())
    for document in group:
        made.update(repr((shelf.columns(document), stamp(document.image))).encode("utf-8", "surrogatepass"))
    return made.hexdigest()


def stamp(image: Path | None) -> tuple[int, int] | None:
    try:
        found = image.stat() if image else None
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if found else None


def assemble(plan: Plan, stage: Staging) -> Path:
    """A complete index folder inside the stage."""
    state, folder = stage.state, stage.folder / "final"
    if not state["vectors"]:
        reasons = (stage.folder / "quarantine.jsonl").read_text().split("\n")[0]
        why = (
            f"all {state['quarantined']} documents were refused, the first: {reasons}"
            if reasons
            else "it has no documents"
        )
        stage.clear()
        raise StoreError(f"nothing of {plan.corpus or 'the corpus'} can be indexed: {why}")
    with storing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        vectors = stage.vectors(plan.encoder.dimension)
        np.save(folder / "vectors.npy", vectors)
        write_bytes(folder / "quarantine.jsonl", (stage.folder / "quarantine.jsonl").read_bytes())
    plan.kind.write(vectors, folder / "vectors.faiss")
    shelf.write(folder / "documents.sqlite", stage.rows())
    manifest.Manifest(
        kind=repr(plan.kind),
        encoder=repr(plan.encoder),
        fingerprint=plan.encoder.fingerprint,
        image_size=plan.encoder.image_size,
        dimension=plan.encoder.dimension,
        metric="cosine",
        embed=plan.embed,
        corpus=plan.corpus,
        documents=state["documents"],
        vectors=state["vectors"],
        quarantined=state["quarantined"],
        files=manifest.describe(folder),
    ).write(folder)
    return folder


def publish(folder: Path, path: Path) -> None:
    """Give the finished folder its name; an index that was there is kept aside until then."""
    with storing(path):
        for file in [*folder.iterdir(), folder]:
            sync(file)
        old = aside(path)
        shutil.rmtree(old, ignore_errors=True)
        if (path / manifest.NAME).is_file():
            path.rename(old)
        folder.rename(path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def aside(path: Path) -> Path:
    return path.parent / f".{path.name}.old"
