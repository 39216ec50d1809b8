"""The objects that can be counted: vivid, outlined, shadowed and apart, so that ground truth can be seen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from morgana.corpus.atlas.canvas import MARGIN, SHADOW, TILE, Canvas, Frame, Point
from morgana.corpus.atlas.palette import Colour, light, mix
from morgana.corpus.atlas.world import Things
from morgana.seeds import derive

PAINTS: dict[str, Colour] = {
    "red": (216, 30, 32), "blue": (32, 84, 226), "yellow": (252, 214, 20), "white": (248, 248, 248),
    "black": (24, 24, 28), "pink": (255, 112, 190),
}  # fmt: skip
GRID: dict[str, tuple[int, int]] = {  # row, column of the 3 x 3 grid; north is up
    "north-west": (0, 0), "north": (0, 1), "north-east": (0, 2), "west": (1, 0), "centre": (1, 1), "east": (1, 2),
    "south-west": (2, 0), "south": (2, 1), "south-east": (2, 2),
}  # fmt: skip
CELL = TILE / 3
SPRITE = 18  # units: room for an object and its shadow
FINE = 2  # the sprite is drawn so many times finer than the canvas
PITCH = 7.8  # units: half the distance between neighbours of a cluster

SHADE = 140  # opacity of the shadow, of 255
DARK: Colour = (22, 22, 26)
PALE: Colour = (232, 232, 236)


class Sprite:
    """A small transparent sheet with its origin in the middle and its axes turned; units as on the canvas."""

    def __init__(self, scale: float, angle: float, rim: Colour) -> None:
        side = round(SPRITE * scale)
        self.image = Image.new("RGBA", (side, side))
        self.mask = Image.new("L", (side, side))
        self.scale, self.rim, self.frame = scale, rim, Frame(angle, side / 2 / scale, side / 2 / scale)
        self.pens = ImageDraw.Draw(self.image), ImageDraw.Draw(self.mask)

    def outline(self, *shapes: list[Point], width: float = 1.3) -> None:
        """Draw the rim of all the shapes; paint them afterwards."""
        for shape in shapes:
            path = self.pixels([*shape, *shape[:2]])
            self.pens[0].line(path, self.rim, round(width * self.scale), "curve")
            self.pens[1].polygon(path, fill=SHADE)

    def polygon(self, shape: list[Point], colour: Colour) -> None:
        self.pens[0].polygon(self.pixels(shape), fill=colour)

    def disc(self, radius: float, colour: Colour, u: float = 0, v: float = 0) -> None:
        ((x, y),) = self.pixels([(u, v)])
        r = radius * self.scale
        box = (x - r, y - r, x + r, y + r)
        self.pens[0].ellipse(box, fill=colour)
        self.pens[1].ellipse(box, fill=SHADE)

    def pixels(self, shape: list[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in (self.frame(u, v) for u, v in shape)]


def rectangle(u: float, v: float, width: float, height: float) -> list[Point]:
    a, b = width / 2, height / 2
    return [(u - a, v - b), (u + a, v - b), (u + a, v + b), (u - a, v + b)]


def tones(paint: Colour) -> tuple[Colour, Colour]:
    """A shade and a highlight that keep the colour's name."""
    if sum(paint) < 120:
        return (8, 8, 10), (66, 66, 74)
    return light(paint, 0.74), mix(paint, (255, 255, 255), 0.35)


def boat(s: Sprite, paint: Colour) -> None:
    shade, pale = tones(paint)
    hull: list[Point] = [
        (5.6, 0),
        (3.2, -2.1),
        (0.5, -2.6),
        (-4.8, -2.3),
        (-5.4, 0),
        (-4.8, 2.3),
        (0.5, 2.6),
        (3.2, 2.1),
    ]
    s.outline(hull)
    s.polygon(hull, paint)
    s.polygon([(3.6, 0), (1.6, -1.3), (-3.9, -1.3), (-3.9, 1.3), (1.6, 1.3)], shade)
    s.polygon(rectangle(-1.4, 0, 2.8, 2.0), pale)


def plane(s: Sprite, paint: Colour) -> None:
    shade, pale = tones(paint)
    body: list[Point] = [(5.6, 0), (4.5, -0.95), (-4.8, -0.75), (-5.2, 0), (-4.8, 0.75), (4.5, 0.95)]
    wings = [[(2.0, k * 0.6), (-1.5, k * 5.3), (-3.0, k * 5.3), (-1.2, k * 0.6)] for k in (-1.0, 1.0)]
    tail = [[(-3.7, k * 0.4), (-4.9, k * 2.4), (-5.6, k * 2.4), (-5.1, k * 0.4)] for k in (-1.0, 1.0)]
    s.outline(body, *wings, *tail, width=1.2)
    for part in (*wings, *tail):
        s.polygon(part, paint)
    s.polygon(body, paint)
    s.polygon([(3.6, -0.5), (-3.4, -0.35), (-3.4, 0.35), (3.6, 0.5)], pale if sum(paint) < 600 else shade)


def truck(s: Sprite, paint: Colour) -> None:
    shade, pale = tones(paint)
    trailer, cab, coupling = rectangle(-1.65, 0, 7.2, 4.6), rectangle(3.95, 0, 2.6, 4.2), rectangle(2.3, 0, 1.0, 1.4)
    s.outline(trailer, cab, coupling)
    s.polygon(coupling, DARK)
    s.polygon(trailer, paint)
    s.polygon(rectangle(-1.65, 0, 5.8, 0.9), pale if sum(paint) < 600 else shade)
    s.polygon(cab, shade if sum(paint) > 120 else pale)
    s.polygon(rectangle(4.5, 0, 0.9, 3.2), (176, 200, 214) if sum(paint) < 700 else (90, 110, 126))


def tank(s: Sprite, paint: Colour) -> None:
    shade, pale = tones(paint)
    s.disc(5.4, s.rim)
    s.disc(4.8, paint)
    s.disc(3.5, shade)
    s.disc(2.8, paint)
    s.disc(1.0, pale, -0.7, -0.7)


def tent(s: Sprite, paint: Colour) -> None:
    shade, pale = tones(paint)
    a = 4.0
    corners: list[Point] = [(-a, -a), (a, -a), (a, a), (-a, a)]
    s.outline(corners)
    for tone, i in ((pale, 0), (paint, 1), (shade, 2), (paint, 3)):
        s.polygon([corners[i], corners[(i + 1) % 4], (0, 0)], tone)
    for corner in corners:
        s.pens[0].line(s.pixels([corner, (0, 0)]), mix(shade, s.rim, 0.35), max(1, round(0.45 * s.scale)))


DRAWN: dict[str, Callable[[Sprite, Colour], None]] = {
    "boat": boat,
    "plane": plane,
    "truck": truck,
    "tank": tank,
    "tent": tent,
}


def place_things(c: Canvas, group: Things, seed: int) -> None:
    """Draw the group in its cell; it depends on the site's seed and the place, not on what else there is."""
    draw = random.Random(derive(seed, "things", group.place))
    angle = draw.uniform(0, 2 * math.pi)
    for x, y in spots(draw, group.count, group.place):
        stamp(c, group, x, y, angle + draw.gauss(0, 0.12))


def spots(draw: random.Random, count: int, place: str) -> list[Point]:
    """Where the objects of a group stand, in units: a loose cluster about the middle of the cell, none touching."""
    row, column = GRID[place]
    loose = 3.0 if count == 1 else 0.6
    x = MARGIN + (column + 0.5) * CELL + draw.uniform(-loose, loose)
    y = MARGIN + (row + 0.5) * CELL + draw.uniform(-loose, loose)
    if count == 1:
        return [(x, y)]
    turn = draw.uniform(0, 2 * math.pi) if count < 4 else draw.uniform(-0.15, 0.15) + math.pi / 4
    reach = {2: 1.03, 3: 1.16, 4: math.sqrt(2)}[count] * PITCH
    return [
        (x + reach * math.cos(turn + k * 2 * math.pi / count), y + reach * math.sin(turn + k * 2 * math.pi / count))
        for k in range(count)
    ]


def stamp(c: Canvas, group: Things, x: float, y: float, angle: float) -> None:
    """One object and its shadow at (x, y) units."""
    paint = PAINTS[group.colour]
    sprite = Sprite(c.unit * FINE, angle, PALE if group.colour in ("black", "blue") else DARK)
    DRAWN[group.object](sprite, paint)
    image, mask = sprite.image.reduce(FINE), sprite.mask.reduce(FINE)
    left, top = round(x * c.unit - image.width / 2), round(y * c.unit - image.height / 2)
    dx, dy = round(c.sun[0] * c.unit), round(c.sun[1] * c.unit)
    c.image.paste(SHADOW, (left + dx, top + dy), mask)
    c.image.paste(image, (left, top), image)
