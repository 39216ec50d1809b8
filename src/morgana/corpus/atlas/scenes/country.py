"""Scenes of open country."""

from __future__ import annotations

import math

import numpy as np

from morgana.corpus.atlas.canvas import Building, Canvas, Frame, byte_mask, soft_mask
from morgana.corpus.atlas.palette import ROOFS, SOILS, WATERS, Colour, light, mix, vary
from morgana.corpus.atlas.scenes.ground import cell, curve, grove, near_middle, patchwork, road, town


def farmland(c: Canvas) -> None:
    """Fields of many crops; some farms water theirs in circles."""
    frame = Frame(c.draw.uniform(0, math.pi))
    wide, high = c.draw.uniform(22, 36), c.draw.uniform(15, 26)
    patchwork(c, frame, wide, high, c.draw.uniform(0.5, 1.0))
    dark, middle, pale = c.greens
    if c.draw.random() < 0.35:
        radius = c.draw.uniform(13, 19)
        for i in range(-3, 4):
            for j in range(-3, 4):
                if c.draw.random() < 0.75:
                    x, y = frame(2.1 * radius * i, 2.1 * radius * j)
                    tone = vary(c.draw, c.draw.choice((dark, middle, pale, mix(pale, (206, 180, 120), 0.6))), 10)
                    c.disc(x, y, radius, light(tone, 0.86))
                    c.disc(x, y, radius - 1, tone)
                    turn = c.draw.uniform(0, 6.28)
                    c.line([(x, y), (x + radius * math.cos(turn), y + radius * math.sin(turn))], light(tone, 0.75), 0.5)
    lane = c.draw.uniform(-20, 20)
    road(c, [frame(-90, lane), frame(90, lane + c.draw.uniform(-8, 8))], 1.6, vary(c.draw, (176, 160, 130)))
    yard = c.draw.uniform(-30, 30)
    c.polygon(frame.box(yard, lane + 6, 15, 9), (150, 138, 116))
    town(c, frame, [(yard - 4, lane + 5), (yard + 3, lane + 4), (yard + 1, lane + 9)], 5.0)
    c.trees(grove(c, c.draw.uniform(0.02, 0.08)))


def forest(c: Canvas) -> None:
    """A closed canopy with a glade or two and a track."""
    dark, middle, pale = c.greens
    c.fill(c.field("fractal"), (light(dark, 0.55), light(dark, 0.8), middle))
    soil = vary(c.draw, c.draw.choice(SOILS))
    glade = c.field("broad") - np.float32(c.draw.uniform(0.8, 0.97))
    c.fill(c.field("fractal"), (middle, pale, mix(pale, soil, 0.5)), soft_mask(glade * 40, 1.5))
    if c.draw.random() < 0.6:
        c.line(
            curve(c, Frame(c.draw.uniform(0, 6.28), *near_middle(c, 25)), c.draw.uniform(4, 14)),
            soil,
            c.draw.uniform(1.2, 2.2),
        )
        path = np.asarray(c.image.convert("L"), np.float32) / 255
        open_ground = path > np.float32(sum(soil) / 765 - 0.03)
    else:
        open_ground = np.zeros((c.n, c.n), np.bool_)
    density = np.float32(c.draw.uniform(0.65, 0.95)) + (c.field("medium") - np.float32(0.5)) * np.float32(0.5)
    c.trees(np.where((glade > 0) | open_ground, np.float32(0.04), density), (light(dark, 0.6), dark, middle, pale))
    if c.draw.random() < 0.5:  # a second species in stands
        c.trees(
            np.where(c.field("broad") > 0.62, density * np.float32(0.7), np.float32(0)),
            (light(dark, 0.5), dark, mix(middle, pale, 0.5)),
        )


def desert(c: Canvas) -> None:
    """Dunes in lit and shaded ripples across bare sand."""
    tone = vary(
        c.draw, c.draw.choice(((206, 172, 118), (190, 132, 90), (222, 206, 170), (168, 146, 118), (204, 158, 104))), 10
    )
    frame = Frame(c.draw.uniform(0, 2 * math.pi))
    u, _ = c.axes(frame)
    warp = (c.field("broad") - np.float32(0.5)) * np.float32(c.draw.uniform(18, 34))
    pitch = c.draw.uniform(9, 19)
    _, phase = cell((u + warp) / np.float32(pitch))
    crest = c.draw.uniform(0.6, 0.8)  # dunes rise slowly and fall steeply
    slope = np.where(phase < crest, phase / np.float32(crest), (1 - phase) / np.float32(1 - crest) * np.float32(0.35))
    power = np.clip(c.field("broad") * 2, 0.15, 1)
    ripple = c.field("fine") * np.float32(0.14)
    level = np.float32(0.42) + (slope - np.float32(0.42)) * power + ripple
    c.fill(level, (light(tone, 0.66), light(tone, 0.86), tone, light(tone, 1.16)))
    if c.draw.random() < 0.5:
        flat = soft_mask((c.field("broad") - np.float32(c.draw.uniform(0.7, 0.9))) * 30, 2)
        c.fill(c.field("fine"), (mix(tone, (150, 140, 130), 0.5), mix(tone, (196, 190, 176), 0.5)), flat)
    c.trees(c.draw.choice((0.0, 0.006, 0.015)), (mix(tone, (60, 62, 44), 0.75), mix(tone, (96, 98, 70), 0.6)), 1.0)


def golf_course(c: Canvas) -> None:
    """Pale fairways and round greens in dark rough, with bunkers and a pond."""
    dark, middle, pale = c.greens
    c.fill(c.field("fractal"), (mix(dark, middle, 0.3), middle))
    c.trees(grove(c, c.draw.uniform(0.2, 0.3)))
    frame = Frame(c.draw.uniform(0, math.pi))
    tone = vary(c.draw, c.draw.choice(((226, 214, 176), (214, 196, 150), (232, 226, 204))), 6)
    u, v = c.axes(frame)
    _, mown = cell((u + v * np.float32(c.draw.choice((0.0, 1.0)))) / np.float32(c.draw.uniform(3, 5)))
    first = c.draw.uniform(-34, -26)
    lanes = [(c.draw.uniform(-9, 9), first + 27 * i, c.draw.uniform(26, 38)) for i in range(3)]
    wobble = (c.field("broad") - np.float32(0.5)) * np.float32(9)
    shape = np.full((c.n, c.n), -99, np.float32)
    for middle_u, at, half in lanes:
        shape = np.maximum(shape, 8.5 - np.hypot(np.maximum(np.abs(u - middle_u) - half, 0), v - at + wobble))
    c.fill((mown > 0.5).view(np.uint8) * np.uint8(255), (pale, light(pale, 1.09)), soft_mask(shape))
    for middle_u, at, half in lanes:
        end = middle_u + half * c.draw.choice((-1, 1)) * 0.8
        pin = frame(end, at)
        c.disc(*pin, 5.6, mix(middle, pale, 0.4))
        c.disc(*pin, 4.8, light(mix(pale, (150, 200, 120), 0.4), 1.08))
        for _ in range(4):
            x, y = frame(end + c.draw.uniform(-14, 14), at + c.draw.choice((-8, 8)) + c.draw.uniform(-1.5, 1.5))
            bunker(c, x, y, tone)
    if c.draw.random() < 0.6:
        pond = 7 - np.hypot(u - c.draw.uniform(-25, 25), v - first - 13.5) + wobble
        c.flood(soft_mask(pond), c.draw.choice(WATERS))


def bunker(c: Canvas, x: float, y: float, tone: Colour) -> None:
    """A kidney of sand."""
    for _ in range(3):
        c.disc(
            x + c.draw.uniform(-1.8, 1.8),
            y + c.draw.uniform(-1.8, 1.8),
            c.draw.uniform(1.2, 2.1),
            tone,
            c.draw.uniform(1.2, 2.1),
        )


def vineyard(c: Canvas) -> None:
    """Blocks of close rows of vines on bare soil, each block with its own direction."""
    soil = vary(c.draw, c.draw.choice(SOILS), 12)
    frame = Frame(c.draw.uniform(0, math.pi))
    c.fill(c.field("fractal"), (light(soil, 0.9), light(soil, 1.08)))
    u, v = c.axes(frame)
    bend = (c.field("broad") - np.float32(0.5)) * np.float32(c.draw.uniform(2, 9))
    wide, high, pitch = c.draw.uniform(34, 60), c.draw.uniform(30, 46), c.draw.uniform(3.4, 4.8)
    row, down = cell((v + bend) / np.float32(high) + np.float32(c.draw.random()))
    column, along = cell((u - bend) / np.float32(wide) + np.float32(c.draw.random()))
    number = (row * 3 + column * 5) & 7
    turns = np.asarray([c.draw.uniform(0, math.pi) for _ in range(8)], np.float32)
    across = (u * np.cos(turns)[number] + v * np.sin(turns)[number] + bend * np.float32(0.6)) / np.float32(pitch)
    beside = (u * -np.sin(turns)[number] + v * np.cos(turns)[number]) / np.float32(2.4)
    _, rows = cell(across)
    _, bush = cell(beside)
    vine = np.float32(0.27) - np.abs(rows - np.float32(0.5)) - np.float32(0.1) * np.abs(bush - np.float32(0.5))
    path = np.minimum(np.minimum(along, 1 - along) * np.float32(wide), np.minimum(down, 1 - down) * np.float32(high))
    planted = path > 1.6
    dark, middle, pale = c.greens
    c.wash(light(soil, 0.62), byte_mask((vine > -0.1) & planted))
    c.fill(
        c.field("fine"),
        (dark, mix(dark, middle, 0.6), mix(middle, pale, 0.4)),
        soft_mask(np.where(planted, vine * np.float32(pitch), -9), 0.4),
    )
    x, y = c.draw.uniform(-28, 28), c.draw.uniform(-28, 28)
    c.polygon(frame.box(x, y, 14, 10), light(soil, 1.1))
    c.build([Building(frame.box(x, y, 8, 5), 3, vary(c.draw, c.draw.choice(ROOFS)))], gabled=True)


def mountain(c: Canvas) -> None:
    """Ridges and gullies in slanting light; snow or scree on top, woods below."""
    rough = c.field("fractal")
    ridge = 1 - np.abs(c.field("broad") - np.float32(0.5)) * np.float32(2)
    height = (
        ridge * np.float32(0.75) + rough * np.float32(0.25) + (1 - np.abs(c.field("medium") * 2 - 1)) * np.float32(0.16)
    )
    dx, dy = (-1, -1) if c.sun[0] > 0 else (1, -1)
    slope = height - np.roll(height, (dy * 3, dx * 3), (0, 1))
    lit = np.clip(np.float32(0.5) + slope * np.float32(4.2), 0, 1)
    rock = vary(
        c.draw, c.draw.choice(((128, 120, 112), (146, 112, 88), (112, 116, 124), (160, 146, 124), (96, 88, 82))), 12
    )
    c.fill(lit, (light(rock, 0.34), light(rock, 0.78), rock, light(rock, 1.4)))
    below = np.float32(c.draw.uniform(0.25, 0.6)) - height + (rough - np.float32(0.5)) * np.float32(0.3)
    dark, middle, pale = c.greens
    c.fill(lit, (light(dark, 0.5), dark, mix(dark, middle, 0.6), pale), soft_mask(below * 25, 1))
    snow = height - np.float32(c.draw.choice((0.68, 0.78, 0.9, 1.2)) - 0.14 * (c.season == "winter"))
    c.fill(lit, ((104, 120, 148), (176, 188, 204), (226, 230, 236)), soft_mask(snow * 30, 1))
    if c.draw.random() < 0.4:
        c.trees(np.where(below > 0.08, np.float32(0.4), np.float32(0)), None, 1.2)
