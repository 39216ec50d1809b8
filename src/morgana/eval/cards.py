"""Cards of a report: single samples, with what was seen, retrieved and answered, clean, attacked and defended."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from morgana.corpus.images import cover_path, load, save
from morgana.eval.grounds import Explaining, Grounds, overlay
from morgana.eval.progress import steps
from morgana.eval.records import Ranking, Record
from morgana.eval.records import load as read_records
from morgana.eval.scoring import Figure
from morgana.eval.summary import Cell, Summary
from morgana.eval.verdict import extreme, name
from morgana.types import StoreError

TURNS = {"The answer got worse": 3, "Only the list of articles got worse": 2, "Nothing got worse": 1}  # cards of each
GAINS = (10, 5, 2, 1)  # of the difference image
SEEN = 0.99  # of its values are not to be brightened beyond white
ANSWERS = 6  # at most, on one card
LEAST = 0.1  # nats a token: where no sentence matters as much as this, none is dark


@dataclass(frozen=True)
class Picture:
    caption: str
    alt: str
    data: str  # a data: URI


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
class Change:
    """A headline figure before and after."""

    text: str
    mood: str  # bad, good or, where it is what it was, empty


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


@dataclass(frozen=True)
class Shown:
    """The cells that cards compare: a plain one, an attacked one (or another arm), and more whose answers are shown."""

    plain: Cell
    other: Cell
    more: tuple[Cell, ...]


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
        rows = self.interesting(shown, figures)
        made = []
        with steps("explaining", len(rows), 0, shown=self.explain is not None) as advance:
            for sample, turn in rows:
                made.append(self.card(sample, turn, shown, topic, figures))
                advance(1)
        return made

    def interesting(self, shown: Shown, figures: Sequence[Figure]) -> list[tuple[str, str]]:
        """The first samples of each of TURNS, in its order and of different tiles, with the turn that they took."""
        before, after = self.of(shown.plain), self.of(shown.other)
        found: dict[str, list[str]] = {turn: [] for turn in TURNS}
        for sample in before:
            if sample in after and (turn := turned(before[sample], after[sample], figures)):
                found[turn].append(sample)
        tiles: set[str] = set()
        chosen = []
        for turn, most in TURNS.items():
            first: dict[str, str] = {}
            for sample in found[turn]:
                first.setdefault(str(self.samples.get(sample, {}).get("tile") or sample), sample)
            new = [tile for tile in first if tile not in tiles][:most]
            chosen += [(first[tile], turn) for tile in new]
            tiles.update(new)
        return chosen

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


def choose(summary: Summary, figure: Figure) -> Shown | None:
    """The strongest undefended attack, its clean run, and the same attack defended; or the first and the worst arm."""
    cells = summary.cells
    bare = [c for c in cells if c.attack and not c.defended and c.reach == "both"]
    other = extreme([c for c in bare if c.member == "optimised"] or bare or list(cells[1:]), figure, worst=True)
    if other is None:
        return Shown(cells[0], cells[0], ()) if cells else None
    plain = next((c for c in cells if c.id == other.baseline), cells[0])
    same = [c for c in cells if c.defended and (c.attack, c.member) == (other.attack, other.member)]
    rest = [c for c in cells if c not in (plain, other)]
    return Shown(plain, other, tuple(same if other.attack else rest))


def titled(cell: Cell) -> str:
    """clean; CloudWeb; CloudWeb, Smoothed, adaptive."""
    parts = [name(cell), cell.axes.get("defense", ""), cell.axes.get("attacker", "")]
    return ", ".join(p for p in parts if p not in ("", "none", "–"))


def outcomes(before: Record, after: Record, figures: Sequence[Figure]) -> Iterator[Change]:
    """Of the figures that apply to both: 'Hit@5 100 % → 0 %', bad."""
    for figure in figures:
        was, now = (r.value(figure.stage, figure.metric) for r in (before, after))
        if was is not None and now is not None:
            mood = "" if now == was else "good" if (now > was) == figure.good else "bad"
            yield Change(f"{figure.title} {100 * was:.0f} % → {100 * now:.0f} %", mood)


def turned(before: Record, after: Record, figures: Sequence[Figure]) -> str | None:
    """Which of TURNS a sample took by the headline figures; None where none applies to both."""
    of_answers = [f for f in figures if f.stage == "answer"]
    of_lists = [f for f in figures if f.stage != "answer"]
    answer, only_list, nothing = TURNS
    for turn, some in ((answer, of_answers), (only_list, of_lists)):
        if any(o.mood == "bad" for o in outcomes(before, after, some)):
            return turn
    return nothing if any(outcomes(before, after, figures)) else None


def right(record: Record) -> bool | None:
    value = record.value("answer", "Contains()")
    return None if value is None else value >= 0.5


def uri(path: Path) -> str:
    """A PNG data: URI, whatever the file's format."""
    return encode(path.read_bytes() if path.suffix.lower() == ".png" else recoded(path))


def recoded(path: Path) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(load(path), Path(folder) / "image.png")
        return (Path(folder) / "image.png").read_bytes()


def encode(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def difference(clean: Path, attacked: Path) -> Picture:
    """|attacked − clean|, black where nothing changed, by the largest of GAINS that leaves it readable."""
    from PIL import Image

    first, second = load(clean), load(attacked)
    if first.shape != second.shape:
        raise StoreError(f"{attacked} has another size than {clean}; run `morgana eval` again into an empty folder")
    change = (second - first).abs()[0].permute(1, 2, 0).numpy()
    large = float(np.quantile(change, SEEN))
    gain = next((g for g in GAINS if g * large <= 1), 1)
    made = BytesIO()
    Image.fromarray((change * gain * 255).round().clip(0, 255).astype(np.uint8)).save(made, "PNG")
    return Picture(f"difference × {gain}", "what was changed", encode(made.getvalue()))
