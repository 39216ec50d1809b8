"""What lies around and between: meadow, scrub, soil, fields, wood and town, shared by all kinds of scene."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from morgana.corpus.atlas.canvas import MIDDLE, Building, Canvas, Frame, Point, byte_mask
from morgana.corpus.atlas.noise import Field
from morgana.corpus.atlas.palette import CARS, ROOFS, SOILS, Colour, light, mix, vary

BACKDROPS = ("meadow", "scrub", "soil", "fields", "wood", "meadow", "fields")


def backdrop(c: Canvas, kinds: tuple[str, ...] = BACKDROPS) -> None:
    """Cover the sheet with one of `kinds` of open country."""
    kind = c.draw.choice(kinds)
    dark, middle, pale = c.greens
    soil = vary(c.draw, c.draw.choice(SOILS), 14)
    texture = c.field("fractal") * np.float32(0.75) + c.field("fine") * np.float32(0.25)
    if kind == "meadow":
        c.fill(texture, (mix(dark, middle, 0.5), middle, pale))
        c.trees(grove(c, 0.16))
    elif kind == "scrub":
        c.fill(texture, (middle, mix(middle, soil, 0.6), soil))
        c.trees(grove(c, 0.1))
    elif kind == "soil":
        c.fill(texture, (light(soil, 0.8), soil, light(soil, 1.14)))
    elif kind == "fields":
        patchwork(c, Frame(c.draw.uniform(0, math.pi)), c.draw.uniform(16, 30), c.draw.uniform(12, 24))
        c.trees(grove(c, 0.07))
    else:
        c.fill(texture, (light(dark, 0.7), dark, middle))
        c.trees(0.35 + c.field("medium") * np.float32(0.6))


def grove(c: Canvas, share: float) -> Field:
    """A density of trees that is 0 on most of the sheet and rises to thick groves on `share` of it."""
    density: Field = np.clip((c.field("medium") - np.float32(1 - 2 * share)) * np.float32(2.2), 0, 0.8)
    return density


def patchwork(c: Canvas, frame: Frame, width: float, height: float, stripes: float = 0.9) -> None:
    """Fields of crops of many colours, staggered row by row, ploughed along or across."""
    u, v = c.axes(frame)
    bend = c.field("broad") * np.float32(8)
    u, v = u + bend, v - bend
    row, down = cell(v / np.float32(height) + np.float32(c.draw.random()))
    shift = np.asarray([c.draw.random() for _ in range(64)], np.float32)[row & 63]
    column, along = cell(u / np.float32(width) + shift)
    number = (row * 7 + column * 13) & 63
    across = (number & 1).astype(bool)
    _, furrow = cell(np.where(across, u, v) * np.float32(stripes / 1.6))
    level = (furrow * np.float32(3.99)).astype(np.uint8)
    c.paint((number << 2).astype(np.uint8) | level, crops(c))
    edge = (np.minimum(along, 1 - along) * np.float32(width) < 0.5) | (
        np.minimum(down, 1 - down) * np.float32(height) < 0.5
    )
    c.wash(light(c.greens[0], 0.85), byte_mask(edge))


def crops(c: Canvas) -> list[Colour]:
    """256 colours: 64 fields x 4 tones of furrow."""
    dark, middle, pale = c.greens
    soil = vary(c.draw, c.draw.choice(SOILS), 10)
    kinds = (
        middle,
        pale,
        mix(middle, dark, 0.5),
        soil,
        mix(pale, soil, 0.5),
        mix(pale, (214, 190, 120), 0.6),
        light(soil, 0.8),
    )
    table: list[Colour] = []
    for _ in range(64):
        colour, depth = vary(c.draw, c.draw.choice(kinds), 8), c.draw.choice((0.0, 0.04, 0.09))
        table.extend(light(colour, 1 + depth * (tone - 1.5)) for tone in range(4))
    return table


def town(c: Canvas, frame: Frame, spots: list[Point], side: float = 5.0, height: float = 3.0) -> None:
    """Houses of various roofs at `spots` of the frame."""
    roofs = [vary(c.draw, c.draw.choice(ROOFS), 12) for _ in range(4)]
    houses = []
    for u, v in spots:
        a, b = c.draw.uniform(0.8, 1.2) * side, c.draw.uniform(0.65, 1.0) * side
        houses.append(Building(frame.box(u, v, a, b), height, vary(c.draw, c.draw.choice(roofs), 6)))
    c.build(houses, gabled=True)


def road(c: Canvas, points: list[Point], width: float, colour: Colour, marks: Colour | None = None) -> None:
    """A paved way with a verge and, if `marks`, a dashed middle line."""
    c.line(points, light(colour, 0.78), width + 1.0)
    c.line(points, colour, width)
    if marks is not None:
        dashes(c, points, marks)


def dashes(c: Canvas, points: list[Point], colour: Colour, on: float = 2.2, off: float = 2.6) -> None:
    """A dashed line of half a unit along a polyline."""
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        step = on + off
        for i in range(max(1, int(length / step))):
            a, b = i * step / length, min(1.0, (i * step + on) / length)
            c.line([(x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0))], colour, 0.6)


def cars(c: Canvas, frame: Frame, spots: list[Point], length: float = 2.6, width: float = 1.3) -> None:
    """Small dull dashes; never as large or as vivid as a thing that counts."""
    for u, v in spots:
        c.polygon(frame.box(u, v, length, width), c.draw.choice(CARS))


def curve(c: Canvas, frame: Frame, bend: float, steps: int = 14, reach: float = 80.0) -> list[Point]:
    """A gently bending polyline that crosses the sheet along the frame's u axis."""
    phase, wave = c.draw.uniform(0, 6.28), c.draw.uniform(0.02, 0.04)
    at = [reach * (2 * i / steps - 1) for i in range(steps + 1)]
    return [frame(u, bend * (math.sin(u * wave + phase) - math.sin(phase))) for u in at]


def cell(values: Field) -> tuple[NDArray[np.int32], Field]:
    """The whole and the broken part of each value."""
    whole = np.floor(values)
    return whole.astype(np.int32), values - whole


def near_middle(c: Canvas, spread: float) -> Point:
    return MIDDLE + c.draw.uniform(-spread, spread), MIDDLE + c.draw.uniform(-spread, spread)
