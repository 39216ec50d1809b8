"""Adding, replacing and deleting documents of an index that is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from morgana.index import _batches
from morgana.index._change import Change, changing
from morgana.index._progress import progress
from morgana.index._sieve import Group, Sieve
from morgana.index._writer import SegmentWriter
from morgana.index.index import Index
from morgana.index.manifest import Entry
from morgana.types import Corpus, Document, Encoder, StoreError

SHOWN = 5  # ids in an error


def add(
    path: Path | str,
    source: Corpus | Iterable[Document],
    encoder: Encoder | None = None,
    *,
    batch_size: int = 64,
    workers: int = 4,
    fold: bool = False,
    progress: bool = False,
) -> Index:
    """Embed new documents as the index's own are, and add them as one segment; nothing that is there is rewritten.

    All or none of them: a killed or failed call leaves the index as it was. Without an `encoder`, the one that built
    the index is made from its name. `fold` works among the new documents. Raises StoreError naming ids that the index
    has already, or that come twice.
    """
    with changing(path, encoder) as change:
        filler = Filler(change, encoder or change.index.encoder, replacing=False)
        return filler.fill(source, batch_size, workers, fold, progress)


def upsert(
    path: Path | str,
    source: Corpus | Iterable[Document],
    encoder: Encoder | None = None,
    *,
    batch_size: int = 64,
    workers: int = 4,
    progress: bool = False,
) -> Index:
    """As `add`, but a document of an id that the index has takes its place, at the end of the order of insertion.

    The old one goes and the new one comes in one step. A new one that cannot be embedded is quarantined and the old one
    stays.
    """
    with changing(path, encoder) as change:
        filler = Filler(change, encoder or change.index.encoder, replacing=True)
        return filler.fill(source, batch_size, workers, False, progress)


def delete(path: Path | str, ids: Sequence[str]) -> Index:
    """Delete documents by id: all of them, or none and a StoreError naming those that are not there.

    They are out of every search from now on; `compact` frees their space. A document that others were folded into goes
    only together with all of its ids.
    """
    with changing(path) as change:
        found = change.index.locate(ids)
        unknown = [id for id in ids if id not in found]
        if unknown:
            first = change.index.unknown(unknown[0])
            raise StoreError(f"{first}{more(unknown)}; nothing was deleted")
        if not ids:
            return change.index
        change.bury(whole(change.index, found))
        return change.commit()


def whole(index: Index, found: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """What was found; StoreError if a folded document would lose some of its ids only, naming the others."""
    for number, segment in enumerate(index.segments):
        places = {position for n, position in found.values() if n == number}
        shared = [(id, position) for id, position in segment.shelf.aliases() if position in places]
        names = {id for id, _ in shared}
        names |= {d.id for d in segment.shelf.documents(position for _, position in shared).values()}
        if missing := sorted(names - set(found)):
            named = ", ".join(map(repr, missing[:SHOWN]))
            raise StoreError(f"{named} would go too, folded into one document with what is to go; name all of its ids")
    return found


def more(ids: Sequence[str]) -> str:
    others = ", ".join(map(repr, ids[1:SHOWN]))
    rest = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f", nor {others}{rest}" if others else ""


class Filler:
    """Embeds documents into the next segment."""

    def __init__(self, change: Change, encoder: Encoder, *, replacing: bool) -> None:
        self.change, self.encoder, self.replacing = change, encoder, replacing
        self.aliases: list[tuple[str, str]] = []
        self.first = ""  # that was refused, and why
        self.replaced: dict[str, tuple[int, int]] = {}

    def fill(
        self, source: Corpus | Iterable[Document], batch_size: int, workers: int, fold: bool, shown: bool
    ) -> Index:
        sieve = map(self.checked, Sieve(_batches.documents(source), batch_size, fold=fold, name="what is added"))
        with (
            self.change.writer() as writer,
            ThreadPoolExecutor(max(1, workers)) as pool,
            progress("adding", None, 0, shown=shown) as advance,
        ):
            for batch in _batches.ahead(sieve, self.change.manifest.embed, pool):
                self.put(batch, writer)
                advance(len(batch.group.every))
            self.change.bury(whole(self.change.index, self.replaced))
            entry = self.finished(writer)
        return self.change.commit([entry])

    def checked(self, group: Group) -> Group:
        """The group, if its ids may come."""
        known = self.change.index.locate([d.id for d in group.every if _batches.writable(d.id)])
        if known and not self.replacing:
            ids = [document.id for document in group.every if document.id in known]
            named = ", ".join(map(repr, ids[:SHOWN])) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
            raise StoreError(
                f"{self.change.path} holds {named} already; nothing was added: upsert replaces, delete removes"
            )
        return group

    def put(self, batch: _batches.Batch, writer: SegmentWriter) -> None:
        made = _batches.embed(batch, self.encoder, self.change.manifest.embed)
        if made.kept:
            writer.add(made.kept, np.stack(made.vectors, dtype=np.float32))
            if self.replacing:
                self.replaced |= self.change.index.locate([document.id for document, _ in made.kept])
        for document, reason in made.refused:
            writer.refuse(document.id, reason)
            self.first = self.first or f"{document.id!r}: {reason}"
        self.aliases += batch.group.aliases

    def finished(self, writer: SegmentWriter) -> Entry:
        if writer.count:
            return self.change.finish(writer, self.aliases)
        if writer.quarantined:
            raise StoreError(f"none of the {writer.quarantined} documents can be indexed, the first: {self.first}")
        raise StoreError("there are no documents to add")
