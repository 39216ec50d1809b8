"""Scenes of industry and energy."""

from __future__ import annotations

import math

import numpy as np

from morgana.corpus.atlas.canvas import Building, Canvas, Frame, byte_mask, soft_mask
from morgana.corpus.atlas.palette import PAVINGS, ROOFS, SOILS, WATERS, Colour, light, mix, vary
from morgana.corpus.atlas.scenes.ground import backdrop, cell, near_middle, road


def industrial_park(c: Canvas) -> None:
    """Large flat halls with rows of skylights on paved yards."""
    backdrop(c, ("meadow", "soil", "scrub"))
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 8))
    paving = vary(c.draw, c.draw.choice(PAVINGS), 10)
    wide, high = c.draw.uniform(32, 42), c.draw.uniform(26, 34)
    halls: list[tuple[float, float, float, float, Colour]] = []
    for i in range(-2, 3):
        for j in range(-2, 3):
            if c.draw.random() < 0.85:
                c.polygon(frame.box(i * wide, j * high, wide - 4, high - 4), light(paving, c.draw.uniform(0.94, 1.1)))
                roof = light(vary(c.draw, c.draw.choice(ROOFS), 12), 1.05)
                a, b = (wide - 9) * c.draw.uniform(0.7, 1), (high - 9) * c.draw.uniform(0.7, 1)
                halls.append((i * wide + c.draw.uniform(-2, 2), j * high + c.draw.uniform(-2, 2), a, b, roof))
    for k in range(-2, 3):
        road(c, [frame((k + 0.5) * wide, -100), frame((k + 0.5) * wide, 100)], 3.4, light(paving, 0.8))
        road(c, [frame(-100, (k + 0.5) * high), frame(100, (k + 0.5) * high)], 3.4, light(paving, 0.8))
    c.build([Building(frame.box(u, v, a, b), 5, roof) for u, v, a, b, roof in halls])
    for u, v, a, b, roof in halls:
        details(c, frame, u, v, a, b, roof)


def details(c: Canvas, frame: Frame, u: float, v: float, a: float, b: float, roof: Colour) -> None:
    """What lies on a flat roof: a parapet, and skylights, saw teeth or vents."""
    c.polygon(frame.box(u, v, a, b), light(roof, 1.15))
    c.polygon(frame.box(u, v, a - 1.2, b - 1.2), roof)
    style = c.draw.randrange(3)
    for k in range(int(a / 4)):
        at = u - a / 2 + 3 + 4 * k
        if style == 0:
            c.polygon(frame.box(at, v, 1.0, b - 6), light(roof, 1.28))
        elif style == 1:
            c.polygon(frame.box(at, v, 2.0, b - 1.6), light(roof, 0.84))
        elif k % 2:
            c.polygon(frame.box(at, v + c.draw.uniform(-b / 3, b / 3), 1.8, 1.8), light(roof, 0.7))


def solar_farm(c: Canvas) -> None:
    """Ranks of dark panels with a fine grid, in blocks on grass or soil."""
    backdrop(c, ("meadow", "scrub", "soil"))
    frame = Frame(c.draw.uniform(0, math.pi))
    u, v = c.axes(frame)
    pitch, gap = c.draw.uniform(6.2, 8.6), c.draw.uniform(0.5, 0.64)
    wide, high = c.draw.uniform(30, 52), pitch * c.draw.randint(4, 7)
    _, row = cell(v / np.float32(pitch))
    column, along = cell(u / np.float32(wide) + np.float32(c.draw.random()))
    block, down = cell(v / np.float32(high))
    present = np.asarray([c.draw.random() < 0.9 for _ in range(16)])[((column * 3 + block * 5) & 15)]
    inside = (
        present
        & (np.abs(along - np.float32(0.5)) * np.float32(wide) < wide / 2 - 1.6)
        & (down * np.float32(high) > 0.3)
    )
    panel = inside & (row < gap) & (down * np.float32(high) < high - 0.25 * pitch)
    shadow = inside & (row >= gap) & (row < gap + 0.12)
    tone = vary(c.draw, c.draw.choice(((34, 46, 78), (28, 34, 46), (52, 58, 84), (44, 66, 92))), 6)
    c.wash((30, 30, 34), byte_mask(shadow))
    sheen = np.float32(0.35) + c.field("broad") * np.float32(0.4) + row * np.float32(0.35)
    c.fill(sheen, (light(tone, 0.8), tone, light(tone, 1.5)), byte_mask(panel))
    _, cross = cell(u / np.float32(2.6))
    lines = panel & ((cross < 0.16) | (np.abs(row / np.float32(gap) - np.float32(0.5)) < 0.06))
    c.wash(mix(tone, (178, 188, 204), 0.5), byte_mask(lines))
    hut = frame.box(c.draw.uniform(-30, 30), c.draw.uniform(-30, 30), 5, 4)
    c.build([Building(hut, 2.5, vary(c.draw, (176, 172, 164)))])


def quarry(c: Canvas) -> None:
    """Terraces that step down to a pit, with a haul road and a pool at the bottom."""
    backdrop(c, ("meadow", "scrub", "wood", "soil"))
    rock = vary(
        c.draw,
        c.draw.choice(
            ((188, 176, 156), (168, 164, 160), (176, 134, 100), (204, 198, 184), (128, 122, 118), (190, 160, 112))
        ),
        10,
    )
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 7))
    u, v = c.axes(frame)
    a, b = c.draw.uniform(40, 52), c.draw.uniform(32, 42)
    depth = (1 - np.hypot(u / np.float32(a), v / np.float32(b))) * np.float32(b)
    depth += (c.field("broad") - np.float32(0.5)) * np.float32(15) + (c.field("medium") - np.float32(0.5)) * np.float32(
        3
    )
    step = c.draw.uniform(4.5, 6.5)
    level, rise = cell(depth / np.float32(step))
    tone = np.float32(0.55) - level * np.float32(0.045) + (c.field("fractal") - np.float32(0.5)) * np.float32(0.3)
    face = rise < 0.3
    lit = (u * np.float32(frame.cos) - v * np.float32(frame.sin)) * np.float32(c.sun[0]) + (
        u * np.float32(frame.sin) + v * np.float32(frame.cos)
    ) * np.float32(c.sun[1])
    tone = np.where(face, np.where(lit > 0, tone + np.float32(0.3), tone - np.float32(0.4)), tone)
    pit = soft_mask(depth, 0.5)
    c.fill(tone, (light(rock, 0.42), light(rock, 0.8), rock, light(rock, 1.2)), pit)
    c.water[pit > 127] = np.maximum(c.water[pit > 127], 140)
    if c.draw.random() < 0.6:
        c.flood(soft_mask(depth - step * c.draw.uniform(3.6, 4.6)), c.draw.choice(WATERS))
    turn, way = c.draw.uniform(0, 6.28), []
    for k in range(18):  # the haul road winds down
        r = 1.15 - 0.045 * k
        way.append(frame(a * r * math.cos(turn + 0.25 * k), b * r * math.sin(turn + 0.25 * k)))
    c.line(way, light(rock, 0.86), 3.0)
    c.line(way, light(rock, 1.12), 2.2)


def greenhouse_complex(c: Canvas) -> None:
    """Blocks of adjoining glass ridges, bright and finely striped, with a basin."""
    backdrop(c, ("meadow", "soil", "scrub"))
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 8))
    yard = mix(vary(c.draw, c.draw.choice(SOILS)), (150, 146, 138), 0.4)
    glass = vary(
        c.draw, c.draw.choice(((198, 208, 206), (168, 190, 196), (206, 204, 190), (176, 196, 176), (186, 186, 192))), 8
    )
    wide, high = c.draw.uniform(38, 52), c.draw.uniform(24, 34)
    houses = [
        (i * wide + c.draw.uniform(-1, 1), j * high, wide - 6, high - c.draw.uniform(5, 8))
        for i in range(-2, 3)
        for j in range(-3, 4)
        if c.draw.random() < 0.84
    ]
    for u, v, a, b in houses:
        c.polygon(frame.box(u, v, a + 3, b + 3), yard)
    c.build([Building(frame.box(u, v, a, b), 2.5, glass) for u, v, a, b in houses])
    ridge = c.draw.uniform(3.0, 4.0)
    for u, v, a, b in houses:
        count = max(2, round(a / ridge))
        for k in range(count):
            at = u - a / 2 + a * (k + 0.5) / count
            c.polygon(frame.box(at - a / count / 4, v, a / count / 2, b), light(glass, 0.8))
            c.line([frame(at, v - b / 2), frame(at, v + b / 2)], light(glass, 1.14), 0.5)
        c.line([frame(u - a / 2, v), frame(u + a / 2, v)], light(glass, 0.62), 1.0)
    x, y = c.draw.uniform(-1.5, 1.5) * wide, (c.draw.randint(-1, 1) + 0.5) * high
    c.polygon(frame.box(x, y, 13, 9), light(yard, 0.7))
    c.polygon(frame.box(x, y, 11, 7), c.draw.choice(WATERS)[0])
