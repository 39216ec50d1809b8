"""Curves of a report as plain geometry: the template draws them, so text stays text and colours follow the theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from morgana.eval.labels import NOTHING
from morgana.eval.scoring import Figure
from morgana.eval.summary import Row, Summary
from morgana.eval.verdict import name

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 60, 350, 12, 208  # of the plotting area
MARK = 13  # pixels across a hollow mark, with some air


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    low: float  # of the interval, in y
    high: float
    title: str
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    name: str
    colour: int  # index of a class of the style sheet
    points: tuple[Point, ...]

    @property
    def line(self) -> str:
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)


@dataclass(frozen=True)
class Tick:
    place: float
    label: str


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    joined: bool  # a series is a curve, not only a group


@dataclass(frozen=True)
class Dot:
    """A value to be placed: x as it is, y in [0, 1] with its interval."""

    group: str
    x: float
    row: Row
    title: str
    hollow: bool = False


def charts(summary: Summary) -> list[Chart]:
    """What the study can show: success against change, and what a defense costs and brings."""
    figures = summary.figures
    if not figures or not any(c.attack for c in summary.cells):
        return []
    return [c for c in (price(summary, figures[0]), trade(summary, figures)) if c]


def price(summary: Summary, figure: Figure) -> Chart | None:
    """Success of every attack on the undefended system against how much it changed the image."""
    rows = [
        (c, row)
        for c in summary.cells
        if c.attack and not c.defended and c.reach == "both" and "rms" in c.perturbation and (row := c.figure(figure))
    ]
    lines = families([c.axes.get("attack", NOTHING) for c, _ in rows])
    dots = [
        Dot(line, 255 * c.perturbation["rms"], row, f"{name(c)}: {percent(row)}")
        for (c, row), line in zip(rows, lines, strict=True)
    ]
    clean = next((c for c in summary.cells if not c.attack and not c.defended), None)
    start = clean.figure(figure) if clean else None
    if clean and start:
        dots.insert(0, Dot("clean", 0.0, start, f"clean: {percent(start)}"))
    return chart(
        f"{figure.title} against the size of the change",
        "Undefended; bars are 95 % intervals.",
        "mean change of a pixel (grey levels, root mean square)",
        figure.title,
        dots,
    )


def trade(summary: Summary, figures: Sequence[Figure]) -> Chart | None:
    """For each defense its clean use against its success under attack: hollow naive, filled adaptive."""
    main, use = figures[0], next((f for f in reversed(figures) if f.good), None)
    shields = dict.fromkeys(c.axes.get("defense", "none") for c in summary.cells)
    if use is None or len(shields) < 2:
        return None
    dots = []
    for shield in shields:
        mine = [c for c in summary.cells if c.axes.get("defense", "none") == shield]
        clean = next((row for c in mine if not c.attack and (row := c.figure(use))), None)
        for c in (c for c in mine if c.member == "optimised" and c.reach == "both"):
            row = c.figure(main)
            if clean and row:
                told = f"{shield} against {name(c)}, {c.knowledge}: {percent(row)}; clean {use.title} {percent(clean)}"
                dots.append(Dot(shield, 100 * clean.estimate.value, row, told, c.knowledge == "naive" and c.defended))
    title = "What a defense costs, and what it brings"
    note = (
        "Each mark is an optimised attack, better to the lower right; hollow: by one who does not know of the defense. "
        "Defenses that cost about the same are moved apart sideways."
    )
    return chart(title, note, f"{use.title} on clean images (%)", f"{main.title} under attack", dots, joined=False)


def chart(
    title: str, note: str, x_label: str, y_label: str, dots: Sequence[Dot], *, joined: bool = True
) -> Chart | None:
    if len(dots) < 2:
        return None
    low, high = (0.0, max(d.x for d in dots)) if joined else padded([d.x for d in dots])
    ticks = nice(low, high)
    low, high = ticks[0], ticks[-1]

    def across(x: float) -> float:
        return LEFT + (RIGHT - LEFT) * (x - low) / (high - low)

    def point(d: Dot) -> Point:
        e = d.row.estimate
        return Point(across(d.x), up(e.value), up(e.low), up(e.high), d.title, d.hollow)

    groups = dict.fromkeys(d.group for d in dots)
    series = tuple(
        Series(group, number % 8, tuple(point(d) for d in sorted(dots, key=lambda d: d.x) if d.group == group))
        for number, group in enumerate(groups)
    )
    if not joined:
        series = side_by_side(series)
    return Chart(
        title,
        note,
        x_label,
        y_label,
        tuple(Tick(across(t), f"{t:g}") for t in ticks),
        tuple(Tick(up(m / 100), f"{m} %") for m in range(0, 101, 25)),
        series,
        joined,
    )


def side_by_side(series: Sequence[Series]) -> tuple[Series, ...]:
    """Series of one x each, moved so far apart that no mark hides another's; their order from left to right stays."""
    places = [s.points[0].x for s in series]
    moved: dict[int, float] = {}
    last = -math.inf
    for number in sorted(range(len(places)), key=places.__getitem__):
        moved[number] = last = max(places[number], last + MARK)
    back = sum(moved[n] - x for n, x in enumerate(places)) / len(places)
    return tuple(
        replace(s, points=tuple(replace(p, x=moved[n] - back) for p in s.points)) for n, s in enumerate(series)
    )


def up(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def padded(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    return max(0.0, min(found) - 5), min(100.0, max(found) + 5)


def nice(low: float, high: float, most: int = 6) -> list[float]:
    """Round marks that enclose [low, high], at most `most` of them.

    >>> nice(0, 23)
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    """
    span = max(high - low, 1e-6)
    scale = 10.0
    while scale > span / 100:
        scale /= 10
    for step in (base * scale * 10**power for power in range(6) for base in (1, 2, 5)):
        first = int(low // step)
        last = -int(-high // step)
        if last - first < most:
            last += last == first
            return [round(step * i, 10) for i in range(first, last + 1)]
    return [low, high]


def families(attacks: Sequence[str]) -> list[str]:
    """The line that each attack is on: those that differ in a number alone form one, others keep their number.

    >>> families(["PGD Linf(2/255)", "PGD Linf(8/255)", "Noise Linf(8/255)", "Noise Linf(8/255)"])
    ['PGD Linf', 'PGD Linf', 'Noise Linf(8/255)', 'Noise Linf(8/255)']
    """
    spelt: dict[str, set[str]] = {}
    for attack in attacks:
        spelt.setdefault(attack.split("(")[0], set()).add(attack)
    return [short if len(spelt[short := attack.split("(")[0]]) > 1 else attack for attack in attacks]


def percent(row: Row) -> str:
    return f"{100 * row.estimate.value:.1f} %"
