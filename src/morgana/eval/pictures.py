"""PNG pictures of a run: a contact sheet of tiles under each condition, and curves with intervals over a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from morgana.eval.statistics import Estimate
from morgana.types import SpecError

PAPER, INK, FAINT, ALARM = (16, 20, 27), (236, 239, 243), (140, 151, 166), (255, 138, 101)
TILE, GAP, LINES = 150, 8, 3  # pixels; lines of text below a tile
COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed")


@dataclass(frozen=True)
class Shot:
    """One picture of a sheet: an image file, a line about it, and whether it is what the attacker wanted."""

    image: Path
    caption: str
    alarm: bool = False


def contact_sheet(rows: Sequence[Sequence[Shot]], heads: Sequence[str], path: Path) -> None:
    """Write a PNG: a row for each tile, a column for each condition; captions of alarms are orange."""
    from PIL import Image, ImageDraw, ImageFont

    if not rows or any(len(row) != len(heads) for row in rows):
        raise SpecError(f"a contact sheet of {len(rows)} rows with {len(heads)} heads; give each row one shot a head")
    head, small, text = 26, ImageFont.load_default(10), ImageFont.load_default(13)
    high = TILE + LINES * 12 + GAP
    sheet = Image.new("RGB", (GAP + len(heads) * (TILE + GAP), head + GAP + len(rows) * high), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(heads):
        pen.text((GAP + column * (TILE + GAP), 8), title, INK, font=text)
    for number, row in enumerate(rows):
        for column, shot in enumerate(row):
            left, top = GAP + column * (TILE + GAP), head + GAP + number * high
            with Image.open(shot.image) as image:
                sheet.paste(image.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))
            for line, words in enumerate(wrapped(shot.caption, 30)[:LINES]):
                colour = ALARM if shot.alarm else FAINT
                pen.text((left, top + TILE + 2 + 12 * line), words, colour, font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def curves(
    panels: Mapping[str, Mapping[str, Mapping[float, Estimate]]], x_label: str, path: Path, title: str = ""
) -> None:
    """Write a PNG of panels side by side: {panel: {curve: {x: estimate}}}, with 95 % intervals as bars.

    A curve has one colour in every panel.
    """
    from matplotlib.figure import Figure

    drawn = {name: curve for name, curve in panels.items() if any(curve.values())}
    if not drawn:
        raise SpecError("no curve has a point; measure something first")
    names = list(dict.fromkeys(name for panel in drawn.values() for name in panel))
    figure = Figure(figsize=(4.2 * len(drawn), 3.6), layout="constrained")
    for axes, (label, panel) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        for name, points in panel.items():
            xs = sorted(points)
            seen = [points[x] for x in xs]
            bars = [[e.value - e.low for e in seen], [e.high - e.value for e in seen]]
            colour = COLOURS[names.index(name) % len(COLOURS)]
            axes.errorbar(xs, [e.value for e in seen], bars, label=name, color=colour, marker="o", ms=4, capsize=3)
        axes.set(title=label, xlabel=x_label)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
