"""The sheet a scene is painted on: 104 x 104 units, twice as fine as the tile, four units of it a hidden margin.

Coordinates are units (1 unit = 1 pixel of a 96-pixel tile) from the north-west corner; arrays are (n, n) pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from morgana.corpus.atlas import noise
from morgana.corpus.atlas.noise import Bytes, Field
from morgana.corpus.atlas.palette import Colour, gradient, light, vegetation
from morgana.corpus.atlas.world import View
from morgana.seeds import derive

TILE, MARGIN = 96, 4
UNITS = TILE + 2 * MARGIN
MIDDLE = UNITS / 2
SHADOW: Colour = (18, 22, 34)
SUN = {
    "morning": (-0.9, -0.45),
    "noon": (-0.12, -0.5),
    "evening": (0.9, -0.45),
}  # where shadows fall, per unit of height

Point = tuple[float, float]


class Building(NamedTuple):
    """A footprint (corners in units), its height in units and the colour of its roof."""

    corners: Sequence[Point]
    height: float
    roof: Colour


class Frame:
    """Coordinates of one's own: origin (x, y), axes turned by `angle` radians."""

    def __init__(self, angle: float, x: float = MIDDLE, y: float = MIDDLE) -> None:
        self.x, self.y, self.cos, self.sin = x, y, math.cos(angle), math.sin(angle)

    def __call__(self, u: float, v: float) -> Point:
        return (self.x + u * self.cos - v * self.sin, self.y + u * self.sin + v * self.cos)

    def box(self, u: float, v: float, width: float, height: float) -> list[Point]:
        """Corners of the rectangle with its centre at (u, v)."""
        a, b = width / 2, height / 2
        return [self(u - a, v - b), self(u + a, v - b), self(u + a, v + b), self(u - a, v + b)]


class Canvas:
    """Everything a scene needs: its own randomness, fields of noise, paint, shapes, trees and shadows.

    `draw` follows the site alone, so a scene has one layout for ever; season and light only change colours.
    """

    def __init__(self, view: View, size: int) -> None:
        self.draw = random.Random(derive(view.site.seed, "layout"))
        self.visit = random.Random(derive(view.seed, "visit"))
        self.season = view.season
        self.sun = SUN[view.light]
        self.n = round(2 * size * UNITS / TILE)
        self.unit = self.n / UNITS
        self.image = Image.new("RGB", (self.n, self.n))
        self.pen = ImageDraw.Draw(self.image)
        self.water = np.zeros((self.n, self.n), np.uint8)  # where snow does not settle
        self.greens = vegetation(self.draw, view.season)

    def field(self, name: str) -> Field:
        """(n, n) noise in [0, 1]; the names are those of `noise.SCALES`."""
        return noise.window(name, self.draw, self.n)

    def axes(self, frame: Frame) -> tuple[Field, Field]:
        """The coordinates (u, v) of every pixel in `frame`, in units."""
        line = centres(self.n)
        x, y = line - np.float32(frame.x), line - np.float32(frame.y)
        c, s = np.float32(frame.cos), np.float32(frame.sin)
        return (x * c)[None, :] + (y * s)[:, None], (y * c)[:, None] - (x * s)[None, :]

    def tinted(self, field: Field | Bytes, colours: Sequence[Colour]) -> Image.Image:
        """An image that runs through `colours` as the field goes from 0 to 1 (bytes: from 0 to 255)."""
        index = field if field.dtype == np.uint8 else (np.clip(field, 0, 1) * np.float32(255)).astype(np.uint8)
        sheet = Image.fromarray(np.ascontiguousarray(index))
        sheet.putpalette(gradient(colours))
        return sheet.convert("RGB")

    def fill(self, field: Field | Bytes, colours: Sequence[Colour], mask: Bytes | None = None) -> None:
        """Paint the field in `colours`, everywhere or where `mask` (0 … 255) says."""
        self.image.paste(self.tinted(field, colours), (0, 0), None if mask is None else Image.fromarray(mask))

    def paint(self, index: Bytes, table: Sequence[Colour], mask: Bytes | None = None) -> None:
        """Paint colour number `index` of a table of up to 256."""
        sheet = Image.fromarray(index)
        sheet.putpalette([level for colour in table for level in colour])
        self.image.paste(sheet.convert("RGB"), (0, 0), None if mask is None else Image.fromarray(mask))

    def wash(self, colour: Colour, mask: Bytes) -> None:
        """Lay one colour on with `mask` as its opacity."""
        self.image.paste(colour, (0, 0, self.n, self.n), Image.fromarray(mask))

    def polygon(self, corners: Iterable[Point], colour: Colour) -> None:
        self.pen.polygon([(x * self.unit, y * self.unit) for x, y in corners], fill=colour)

    def line(self, points: Iterable[Point], colour: Colour, width: float) -> None:
        """A polyline with round joints; `width` in units."""
        path = [(x * self.unit, y * self.unit) for x, y in points]
        self.pen.line(path, fill=colour, width=max(1, round(width * self.unit)), joint="curve" if width > 2 else None)

    def disc(self, x: float, y: float, a: float, colour: Colour, b: float | None = None) -> None:
        """An ellipse with half axes a (east) and b (south)."""
        b = a if b is None else b
        s = self.unit
        self.pen.ellipse(((x - a) * s, (y - b) * s, (x + a) * s, (y + b) * s), fill=colour)

    def build(self, buildings: Sequence[Building], *, gabled: bool = False) -> None:
        """Cast all the shadows, then set the roofs; a gabled roof has one half in the light."""
        mask = Image.new("L", (self.n, self.n))
        pen = ImageDraw.Draw(mask)
        for corners, height, _ in buildings:
            for reach in (0.5, 1.0):
                dx, dy = self.sun[0] * height * reach, self.sun[1] * height * reach
                pen.polygon([((x + dx) * self.unit, (y + dy) * self.unit) for x, y in corners], fill=120)
        self.image.paste(SHADOW, (0, 0, self.n, self.n), mask)
        for corners, _, roof in buildings:
            self.polygon(corners, roof)
            if gabled:
                a, b, c, d = corners
                self.polygon((a, b, halfway(b, c), halfway(d, a)), light(roof, 1.18))

    def trees(self, density: Field | float, colours: Sequence[Colour] | None = None, height: float = 2.0) -> None:
        """Stand trees where the order of a crown is below the density (0 … 1), with their shadows."""
        order, lit = noise.canopy(self.draw, self.n)
        limit = density * 254 if isinstance(density, float) else density * np.float32(254)
        where = order < limit
        dx, dy = (round(d * height * self.unit) for d in self.sun)
        shade = ImageChops.offset(Image.fromarray(where.view(np.uint8) * np.uint8(128)), dx, dy)
        self.image.paste(SHADOW, (0, 0, self.n, self.n), shade)
        mask = byte_mask(where)
        self.fill(lit, self.greens if colours is None else colours, mask)

    def flood(self, mask: Bytes, colours: Sequence[Colour], depth: Field | None = None) -> None:
        """Water where `mask` says, in `colours` from deep to shallow, with ripples."""
        ripple = self.field("fine") * np.float32(0.16)
        level = self.field("fractal") * np.float32(0.6) if depth is None else depth
        self.fill(level + ripple, colours, mask)
        np.maximum(self.water, mask, out=self.water)


@cache
def centres(n: int) -> Field:
    """Where the n pixels of a row have their centres, in units."""
    return ((np.arange(n, dtype=np.float32) + np.float32(0.5)) * np.float32(UNITS / n)).astype(np.float32)


def byte_mask(where: NDArray[np.bool_]) -> Bytes:
    """255 where true."""
    return where.view(np.uint8) * np.uint8(255)


def soft_mask(distance: Field, edge: float = 0.7) -> Bytes:
    """255 where `distance` (units, positive inside) is clearly positive, over a seam of 2 x `edge` units."""
    share: Field = np.clip(distance * np.float32(0.5 / edge) + np.float32(0.5), 0, 1)
    return (share * np.float32(255)).astype(np.uint8)


def halfway(a: Point, b: Point) -> Point:
    return ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
