"""Cards of a report: single samples, with what was seen, retrieved and answered, clean, attacked and defended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morgana.corpus.images import cover_path
from morgana.eval.choosing import Change, Shown, choose, chosen, outcomes
from morgana.eval.embedded import Picture, difference, encode, uri
from morgana.eval.grounds import Explaining, Grounds, overlay
from morgana.eval.progress import steps
from morgana.eval.records import Ranking, Record
from morgana.eval.records import load as read_records
from morgana.eval.scoring import Figure
from morgana.eval.summary import Cell, Summary
from morgana.eval.verdict import name

ANSWERS = 6  # at most, on one card
LEAST = 0.1  # nats a token: where no sentence matters as much as this, none is dark


@dataclass(frozen=True)
class Entry:
    """A line of a retrieved list."""

    title: str
    score: float
    hijacked: bool
    relevant: bool


@dataclass(frozen=True)
class Shade:
    """A sentence that was read; `share` of the darkest, 0 where the answer would be as likely without it."""

    text: str
    share: float
    loss: float  # nats per token of the answer


@dataclass(frozen=True)
class Listing:
    caption: str
    entries: tuple[Entry, ...]
    read: tuple[tuple[Shade, ...], ...] = ()  # sentences by document, where answers are explained


@dataclass(frozen=True)
class Said:
    who: str
    text: str
    right: bool | None


@dataclass(frozen=True)
class Card:
    """One sample as a reader sees it."""

    sample: str
    kind: str
    turn: str  # one of TURNS
    question: str
    references: tuple[str, ...]
    outcomes: tuple[Change, ...]
    pictures: tuple[Picture, ...]
    lists: tuple[Listing, ...]
    answers: tuple[Said, ...]


class Album:
    """Reads a run's folder and makes its cards."""

    def __init__(
        self,
        folder: Path,
        summary: Summary,
        samples: Mapping[str, Any],
        documents: Mapping[str, Any],
        explain: Explaining | None = None,
    ) -> None:
        self.folder, self.summary, self.samples, self.documents = folder, summary, samples, documents
        self.explain = explain
        self.records: dict[str, dict[str, Record]] = {}

    def of(self, cell: Cell) -> dict[str, Record]:
        """Records by sample."""
        if cell.id not in self.records:
            found = read_records(self.folder / "cells" / cell.id / "records.jsonl")
            self.records[cell.id] = {r.sample: r for r in found}
        return self.records[cell.id]

    def cards(self, topic: str) -> list[Card]:
        figures = self.summary.figures
        shown = choose(self.summary, figures[0]) if figures else None
        if shown is None:
            return []
        rows = chosen(self.of(shown.plain), self.of(shown.other), self.samples, figures)
        made = []
        with steps("explaining", len(rows), 0, shown=self.explain is not None) as advance:
            for sample, turn in rows:
                made.append(self.card(sample, turn, shown, topic, figures))
                advance(1)
        return made

    def card(self, sample: str, turn: str, shown: Shown, topic: str, figures: Sequence[Figure]) -> Card:
        known = self.samples.get(sample, {})
        plain, other = self.of(shown.plain)[sample], self.of(shown.other)[sample]
        cells = (shown.plain, shown.other, *shown.more)
        said = [(c, self.of(c)[sample]) for c in cells if sample in self.of(c)]
        relevant = set(known.get("relevant", ()))
        grounds = [self.grounds(shown.plain, plain, known), self.grounds(shown.other, other, known)]
        return Card(
            sample=sample,
            kind=plain.kind,
            turn=turn,
            question=known.get("question", ""),
            references=tuple(known.get("references", ())),
            outcomes=tuple(outcomes(plain, other, figures)),
            pictures=(
                *self.pictures(known.get("tile"), other.image),
                *self.heats(shown, known, (plain, other), grounds),
            ),
            lists=(
                self.listing(titled(shown.plain), plain.refined, relevant, topic, grounds[0]),
                self.listing(titled(shown.other), other.refined, relevant, topic, grounds[1]),
            ),
            answers=tuple(Said(titled(c), r.answer, right(r)) for c, r in said if r.answer is not None)[:ANSWERS],
        )

    def image(self, record: Record, known: Mapping[str, Any]) -> Path | None:
        """The file that was judged."""
        name = record.image or known.get("tile")
        return self.folder / name if name and (self.folder / name).exists() else None

    def grounds(self, cell: Cell, record: Record, known: Mapping[str, Any]) -> Grounds | None:
        image = self.image(record, known)
        if self.explain is None or image is None or not record.answer:
            return None
        return self.explain(cell.id, known.get("question", ""), image, record.refined, record.answer)

    def heats(
        self, shown: Shown, known: Mapping[str, Any], records: Sequence[Record], grounds: Sequence[Grounds | None]
    ) -> Iterator[Picture]:
        for cell, record, found in zip((shown.plain, shown.other), records, grounds, strict=True):
            image = self.image(record, known)
            if found is not None and image is not None:
                title = f"what the answer rests on, {titled(cell)}"
                yield Picture(title, f"heat map: {title}", encode(overlay(image, found.heat)))

    def listing(
        self, caption: str, ranking: Ranking, relevant: set[str], topic: str, grounds: Grounds | None
    ) -> Listing:
        def entry(id: str, score: float) -> Entry:
            known = self.documents.get(id, {})
            title = known.get("title") or known.get("text", "")[:60] or id
            return Entry(title, score, known.get("topic") == topic, id in relevant)

        return Listing(caption, tuple(entry(id, score) for id, score in ranking), shades(grounds))

    def pictures(self, tile: str | None, attacked: str | None) -> list[Picture]:
        """Clean, attacked, brightened difference and opacity map: whichever of them there are."""
        found: list[Picture] = []
        if tile is None or not (self.folder / tile).exists():
            return found
        found.append(Picture("clean", "the clean tile", uri(self.folder / tile)))
        path = self.folder / attacked if attacked else None
        if path is None or not path.exists():
            return found
        found.append(Picture("attacked", "the attacked tile, as it was judged", uri(path)))
        found.append(difference(self.folder / tile, path))
        cover = cover_path(path)
        if cover.exists():
            found.append(Picture("cloud map", "opacity of the clouds, white is opaque", uri(cover)))
        return found


def shades(grounds: Grounds | None) -> tuple[tuple[Shade, ...], ...]:
    if grounds is None:
        return ()
    top = max((s.loss for row in grounds.read for s in row), default=0.0)
    full = max(top, LEAST)
    return tuple(tuple(Shade(s.text, max(s.loss, 0.0) / full, s.loss) for s in row) for row in grounds.read)


def titled(cell: Cell) -> str:
    """clean; CloudWeb; CloudWeb, Smoothed, adaptive."""
    parts = [name(cell), cell.axes.get("defense", ""), cell.axes.get("attacker", "")]
    return ", ".join(p for p in parts if p not in ("", "none", "–"))


def right(record: Record) -> bool | None:
    value = record.value("answer", "Contains()")
    return None if value is None else value >= 0.5
