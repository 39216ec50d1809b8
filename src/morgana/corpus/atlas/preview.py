"""Contact sheets: the first picture of the bundled world that a newcomer sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from morgana.corpus.atlas.render import render
from morgana.corpus.atlas.world import (
    COLOURS,
    KINDS,
    LIGHTS,
    OBJECTS,
    SEASONS,
    WEATHERS,
    Site,
    Things,
    View,
    site,
    view,
)
from morgana.types import SpecError, StoreError

PAPER, INK, FAINT = (16, 20, 27), (236, 239, 243), (140, 151, 166)
GAP, SEAM, MARGIN = 18, 3, 36  # between blocks, between tiles of a block, around the sheet (pixels)
CAPTION, HEADING, TITLE = 15, 21, 44  # heights of type (pixels)

Block = tuple[str, Image.Image]


def contact_sheet(
    views: Sequence[View], size: int = 96, columns: int = 8, captions: Sequence[str] | None = None
) -> Image.Image:
    """The views' tiles in rows of `columns`, each over its caption (its kind of scene unless told otherwise)."""
    if not views or columns < 1:
        raise SpecError(f"a contact sheet of {len(views)} views in {columns} columns: it needs at least one of both")
    texts = [v.site.kind for v in views] if captions is None else captions
    return page([mosaic(list(zip(texts, map_tiles(views, size), strict=True)), columns, GAP // 2)])


def write_preview(path: Path | str, seed: int = 0) -> Path:
    """Write the poster of world `seed` as a PNG: every kind, one site through the year, all things in all colours."""
    path = Path(path)
    sheet = poster(seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG", optimize=True)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"cannot write the preview to {path}: {error}; name a .png file in a writable folder"
        ) from error
    return path


def poster(seed: int = 0, size: int = 96) -> Image.Image:
    """The whole preview as an image, about 1,300 pixels wide at 96-pixel tiles."""
    kinds = [(kind, quad([view(seed, s, 0, "clear") for s in sites(seed, kind, 4)], size)) for kind in KINDS]
    parts = [
        title("Atlas", "a small world with exact ground truth, seen from above"),
        heading("Twenty-four kinds of scene", "four sites of each, under a clear sky"),
        mosaic(kinds, 6, GAP),
        heading(
            "One site through seasons, lights and weathers", "the layout belongs to the site; the rest to the visit"
        ),
        *(mosaic(visits(seed, kind, size), 11, GAP + 2) for kind in ("golf course", "lake")),
        heading("Five things to count, in six colours", "one to four of a kind, at one of nine places"),
        mosaic([(f"{name}s", things(seed, name, size)) for name in OBJECTS], len(OBJECTS), GAP + 4),
    ]
    return page(parts)


def sites(seed: int, kind: str, number: int) -> list[Site]:
    """The first sites of a kind in the world."""
    return list(islice((s for s in (site(seed, i) for i in count()) if s.kind == kind), number))


def visits(seed: int, kind: str, size: int) -> list[Block]:
    """One site in every season, light and weather, one thing changed at a time."""
    home = next(s for s in sites(seed, kind, 60) if len(s.things) == 2)
    base = replace(view(seed, home, 0, "clear"), season="summer", light="noon")
    changed = [replace(base, season=season) for season in SEASONS]
    changed += [replace(base, light=light) for light in LIGHTS]
    changed += [replace(base, weather=weather) for weather in WEATHERS]
    return list(zip((*SEASONS, *LIGHTS, *WEATHERS), map_tiles(changed, size), strict=True))


def things(seed: int, name: str, size: int) -> Image.Image:
    """One object in each colour on some ground, close up: the middle cell of a larger tile."""
    close = []
    for number, colour in enumerate(COLOURS):
        ground = site(seed, 7 * number + 3 * OBJECTS.index(name))
        group = Things(name, colour, 1 + (number + OBJECTS.index(name)) % 4, "centre")
        tile = render(replace(view(seed, ground, 0, "clear"), site=replace(ground, things=(group,))), 2 * size)
        near = size - 19 * size // 48
        far = near + 19 * size // 24
        cell = tile[near:far, near:far]
        close.append(Image.fromarray(cell.copy()))
    return tight(close, 3)


def quad(views: Sequence[View], size: int) -> Image.Image:
    return tight(map_tiles(views, size), 2)


def map_tiles(views: Iterable[View], size: int) -> list[Image.Image]:
    return [Image.fromarray(render(v, size)) for v in views]


def tight(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Tiles of one size side by side, a seam apart."""
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + SEAM) - SEAM, rows * (height + SEAM) - SEAM), PAPER)
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * (width + SEAM), i // columns * (height + SEAM)))
    return sheet


def mosaic(blocks: Sequence[Block], columns: int, gap: int) -> Image.Image:
    """Blocks of one size in rows, each over its caption."""
    width, height = blocks[0][1].size
    columns, step = min(columns, len(blocks)), height + CAPTION + 8
    rows = -(-len(blocks) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (step + gap // 2) - gap // 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (caption, block) in enumerate(blocks):
        x, y = i % columns * (width + gap), i // columns * (step + gap // 2)
        sheet.paste(block, (x, y))
        pen.text((x + 1, y + height + 3), caption, FAINT, font(CAPTION))
    return sheet


def heading(text: str, note: str) -> Image.Image:
    """A section's head: what it shows, and a remark in fainter type on the same line."""
    strip = Image.new("RGB", (1200, HEADING + 10), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((0, HEADING), text, INK, font(HEADING), anchor="ls")
    pen.text((pen.textlength(text, font(HEADING)) + 14, HEADING), note, FAINT, font(CAPTION), anchor="ls")
    return strip


def title(text: str, note: str) -> Image.Image:
    strip = Image.new("RGB", (1200, TITLE + 6), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.text((-2, TITLE - 4), text, INK, font(TITLE), anchor="ls")
    pen.text((pen.textlength(text, font(TITLE)) + 16, TITLE - 4), note, FAINT, font(HEADING), anchor="ls")
    return strip


def page(parts: Sequence[Image.Image]) -> Image.Image:
    """The parts one below the other on paper."""
    width = max(part.width for part in parts) + 2 * MARGIN
    sheet = Image.new("RGB", (width, sum(part.height + GAP for part in parts) - GAP + 2 * MARGIN), PAPER)
    y = MARGIN
    for part in parts:
        sheet.paste(part, (MARGIN, y))
        y += part.height + GAP
    return sheet


def font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)
