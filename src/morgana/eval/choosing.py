"""Which samples and cells a report shows: what turned, by the headline figures, and what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morgana.eval.records import Record
from morgana.eval.scoring import Figure
from morgana.eval.summary import Cell, Summary
from morgana.eval.verdict import extreme

TURNS = {"The answer got worse": 3, "Only the list of articles got worse": 2, "Nothing got worse": 1}  # cards of each


@dataclass(frozen=True)
class Change:
    """A headline figure before and after."""

    text: str
    mood: str  # bad, good or, where it is what it was, empty


@dataclass(frozen=True)
class Shown:
    """The cells that cards compare: a plain one, an attacked one (or another arm), and more whose answers are shown."""

    plain: Cell
    other: Cell
    more: tuple[Cell, ...]


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


def chosen(
    before: Mapping[str, Record], after: Mapping[str, Record], samples: Mapping[str, Any], figures: Sequence[Figure]
) -> list[tuple[str, str]]:
    """The first samples of each of TURNS, in its order and of different tiles, with the turn that they took."""
    found: dict[str, list[str]] = {turn: [] for turn in TURNS}
    for sample in before:
        if sample in after and (turn := turned(before[sample], after[sample], figures)):
            found[turn].append(sample)
    tiles: set[str] = set()
    made = []
    for turn, most in TURNS.items():
        first: dict[str, str] = {}
        for sample in found[turn]:
            first.setdefault(str(samples.get(sample, {}).get("tile") or sample), sample)
        new = [tile for tile in first if tile not in tiles][:most]
        made += [(first[tile], turn) for tile in new]
        tiles.update(new)
    return made


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
