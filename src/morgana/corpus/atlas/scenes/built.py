"""Scenes of towns and traffic."""

from __future__ import annotations

import math

import numpy as np

from morgana.corpus.atlas.canvas import MIDDLE, Building, Canvas, Frame
from morgana.corpus.atlas.palette import PAVINGS, ROOFS, SOILS, Colour, light, mix, vary
from morgana.corpus.atlas.scenes.ground import backdrop, cars, cell, curve, dashes, grove, near_middle, road, town

CHALK: Colour = (206, 204, 194)  # road paint


def airport(c: Canvas) -> None:
    """A runway with its marks, a taxiway beside it, an apron with a terminal."""
    backdrop(c, ("meadow", "scrub", "soil"))
    frame = Frame(c.draw.uniform(0, 2 * math.pi), *near_middle(c, 6))
    paving = vary(c.draw, c.draw.choice(((84, 86, 90), (118, 118, 118), (150, 146, 140))), 10)
    side = c.draw.uniform(-18, -10)
    end, width = c.draw.uniform(-44, -30), c.draw.uniform(9, 12)
    if c.draw.random() < 0.35:
        c.line([frame(-20, side - 40), frame(60, side + 60)], light(paving, 1.1), width * 0.8)
    c.polygon(frame.box(10, side + 18, 140, 4), light(paving, 1.08))
    for u in (end + 4, c.draw.uniform(-8, 12), 40):
        c.line([frame(u, side), frame(u + 5, side + 18)], light(paving, 1.08), 4)
    c.polygon(frame.box(c.draw.uniform(-4, 8), side + 31, 62, 24), light(paving, 1.16))
    dashes(c, [frame(-60, side + 18), frame(80, side + 18)], (186, 170, 110), 6, 0.6)
    c.polygon(frame.box(end + 70, side, 140, width + 2.4), light(paving, 0.92))
    c.polygon(frame.box(end + 70, side, 140, width), light(paving, 0.82))
    for k in range(-3, 4):
        if k:
            c.polygon(frame.box(end + 5, side + k * width / 7.5, 7, 0.7), CHALK)
    dashes(c, [frame(end + 13, side), frame(90, side)], CHALK, 5, 4)
    hall = c.draw.uniform(24, 40)
    roof = vary(c.draw, c.draw.choice(ROOFS))
    parts = [Building(frame.box(2, side + 44, hall, 8), 4, roof)]
    parts += [Building(frame.box(2 + hall * k / 3.2, side + 37, 3.2, 9), 3, light(roof, 0.9)) for k in (-1, 0, 1)]
    c.build(parts)
    c.polygon(frame.box(2, side + 44, hall - 4, 1.4), light(roof, 1.2))


def residential_area(c: Canvas) -> None:
    """Rows of gabled houses with gardens along a net of streets."""
    dark, middle, pale = c.greens
    c.fill(c.field("fractal"), (mix(dark, middle, 0.6), middle, pale))
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 10))
    block, depth, plot = c.draw.uniform(34, 56), c.draw.uniform(20, 25), c.draw.uniform(7.2, 9.5)
    paving = vary(c.draw, c.draw.choice(PAVINGS), 8)
    c.trees(grove(c, c.draw.uniform(0.2, 0.4)))
    for k in range(-4, 5):
        road(c, [frame(-100, k * depth), frame(100, k * depth)], 3.0, paving)
    for k in range(-3, 4):
        road(c, [frame(k * block, -100), frame(k * block, 100)], 3.0, paving)
    spots = []
    for k in range(-3, 4):
        for side in (-1, 1):
            spots += [
                (u + c.draw.uniform(-0.6, 0.6), k * depth + side * depth * 0.3 + c.draw.uniform(-0.5, 0.5))
                for u in np.arange(-72, 72, plot)
            ]
    spots = [
        (float(u), v)
        for u, v in spots
        if abs(u / block - round(u / block)) * block > 5.5
        and max(abs(p - MIDDLE) for p in frame(u, v)) < 56
        and c.draw.random() < 0.93
    ]
    town(c, frame, spots, c.draw.uniform(4.6, 6.0))


def motorway(c: Canvas) -> None:
    """Two broad carriageways with lane marks, and often the loops of a junction."""
    backdrop(c)
    angle = c.draw.uniform(0, 2 * math.pi)
    frame = Frame(angle, *near_middle(c, 9))
    paving, bend = vary(c.draw, c.draw.choice(PAVINGS), 8), c.draw.uniform(0, 16)
    path = curve(c, frame, bend)
    if c.draw.random() < 0.65:
        cross = Frame(angle + math.pi / 2 + c.draw.uniform(-0.3, 0.3), frame.x, frame.y)
        radius = c.draw.uniform(9, 13)
        corners = c.draw.sample(((1, 1), (1, -1), (-1, 1), (-1, -1)), c.draw.randint(2, 4))
        for u, v in corners:
            loop(c, frame, u * (radius + 5), v * (radius + 5), radius, light(paving, 1.05))
        road(c, [cross(-90, 0), cross(90, 0)], 7, light(paving, 1.05), CHALK)
    c.line(path, light(paving, 0.8), 20)
    c.line(path, paving, 18.6)
    for offset, colour, width in (
        (0.0, mix(c.greens[1], (130, 126, 110), 0.5), 2.4),
        (8.6, CHALK, 0.5),
        (-8.6, CHALK, 0.5),
    ):
        c.line(beside(path, offset), colour, width)
    for offset in (-6.2, -3.6, 3.6, 6.2):
        dashes(c, beside(path, offset), CHALK, 2.6, 3.2)
    for lane in (-7.4, -4.9, -2.4, 2.4, 4.9, 7.4):
        shifted = beside(path, lane)
        for i in c.draw.sample(range(3, len(shifted) - 4), 3):
            (x0, y0), (x1, y1) = shifted[i], shifted[i + 1]
            at = Frame(math.atan2(y1 - y0, x1 - x0), (x0 + x1) / 2, (y0 + y1) / 2)
            cars(c, at, [(c.draw.uniform(-4, 4), 0)], 2.8, 1.4)


def loop(c: Canvas, frame: Frame, u: float, v: float, radius: float, colour: Colour) -> None:
    ring = [frame(u + radius * math.cos(t * 0.35), v + radius * math.sin(t * 0.35)) for t in range(19)]
    c.line(ring, light(colour, 0.8), 4.4)
    c.line(ring, colour, 3.4)


def beside(path: list[tuple[float, float]], offset: float) -> list[tuple[float, float]]:
    """The polyline moved sideways by `offset` units."""
    if not offset:
        return path
    out = []
    for i, (x, y) in enumerate(path):
        (x0, y0), (x1, y1) = path[max(0, i - 1)], path[min(len(path) - 1, i + 1)]
        length = math.hypot(x1 - x0, y1 - y0)
        out.append((x - offset * (y1 - y0) / length, y + offset * (x1 - x0) / length))
    return out


def stadium(c: Canvas) -> None:
    """An oval of stands around a striped pitch."""
    backdrop(c, ("meadow", "soil", "scrub"))
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 5))
    paving = vary(c.draw, c.draw.choice(PAVINGS), 10)
    a, b = c.draw.uniform(38, 44), c.draw.uniform(29, 34)
    power = c.draw.choice((2.0, 2.6, 4.0))
    c.polygon(oval(frame, a + 6, b + 6, power), paving)
    stand = vary(
        c.draw, c.draw.choice(((150, 150, 152), (112, 118, 130), (136, 110, 96), (186, 180, 168), (104, 120, 112))), 10
    )
    c.build([Building(oval(frame, a, b, power), 5, light(stand, 1.12))])
    for step in range(1, 6):
        c.polygon(oval(frame, a - 1.6 * step - 1, b - 1.6 * step - 1, power), light(stand, (0.82, 1.0)[step % 2]))
    for k in range(24):
        t = k * math.pi / 12
        u, v = superellipse(t, a - 1, b - 1, power)
        c.line([frame(u, v), frame(u * (1 - 9 / a), v * (1 - 9 / b))], light(stand, 0.7), 0.5)
    c.polygon(
        oval(frame, a - 10, b - 10, power),
        vary(c.draw, c.draw.choice(((146, 92, 74), (110, 124, 118), (96, 120, 84))), 6),
    )
    pitch(c, frame, (a - 13) * 0.84, (b - 13) * 0.84)


def pitch(c: Canvas, frame: Frame, a: float, b: float) -> None:
    turf = vary(c.draw, c.draw.choice(((82, 128, 64), (102, 146, 80), (66, 110, 62))), 8)
    stripes = c.draw.randint(7, 11)
    for k in range(stripes):
        c.polygon(
            frame.box(-a + (2 * k + 1) * a / stripes, 0, 2 * a / stripes + 0.2, 2 * b), light(turf, (0.93, 1.08)[k % 2])
        )
    lines = [
        frame(-a + 1, -b + 1),
        frame(a - 1, -b + 1),
        frame(a - 1, b - 1),
        frame(-a + 1, b - 1),
        frame(-a + 1, -b + 1),
    ]
    c.line(lines, CHALK, 0.5)
    c.line([frame(0, -b + 1), frame(0, b - 1)], CHALK, 0.5)
    c.line([frame(4 * math.cos(t * 0.4), 4 * math.sin(t * 0.4)) for t in range(17)], CHALK, 0.5)


def superellipse(t: float, a: float, b: float, power: float) -> tuple[float, float]:
    x, y = math.cos(t), math.sin(t)
    return a * math.copysign(abs(x) ** (2 / power), x), b * math.copysign(abs(y) ** (2 / power), y)


def oval(frame: Frame, a: float, b: float, power: float) -> list[tuple[float, float]]:
    return [frame(*superellipse(k * math.pi / 20, a, b, power)) for k in range(40)]


def railway_station(c: Canvas) -> None:
    """A sheaf of tracks with sleepers, long platforms between them, a hall across."""
    backdrop(c, ("meadow", "scrub", "soil"))
    frame = Frame(c.draw.uniform(0, 2 * math.pi), *near_middle(c, 6))
    ballast = vary(c.draw, c.draw.choice(((126, 116, 106), (104, 100, 98), (148, 132, 116))), 10)
    lanes = c.draw.randint(6, 9)
    pitch, half = 5.6, 5.6 * lanes / 2
    c.polygon(frame.box(0, 0, 190, 2 * half + 3), ballast)
    platform = vary(c.draw, c.draw.choice(((190, 184, 172), (166, 164, 162), (150, 134, 120))), 8)
    gap = c.draw.randint(2, 3)
    start, reach = c.draw.uniform(-40, -8), c.draw.uniform(50, 80)
    roofs = []
    for k in range(lanes):
        v = -half + pitch * (k + 0.5)
        if k % gap == gap - 1:
            c.polygon(frame.box(start + reach / 2 + 0.4, v + 0.6, reach, pitch * 0.9), light(ballast, 0.6))
            c.polygon(frame.box(start + reach / 2, v, reach, pitch * 0.85), platform)
            c.line([frame(start, v - 1.9), frame(start + reach, v - 1.9)], (200, 190, 150), 0.5)
            roofs.append(Building(frame.box(start + reach / 2, v, reach * 0.55, pitch * 0.5), 2, light(platform, 0.72)))
        else:
            track(c, frame, v, ballast)
    c.build(roofs)
    roof = vary(c.draw, c.draw.choice(ROOFS))
    side = c.draw.choice((-1, 1)) * (half + 7)
    c.polygon(frame.box(start + reach / 2, side, 60, 12), vary(c.draw, (164, 158, 148)))
    c.build([Building(frame.box(start + reach / 2, side, c.draw.uniform(26, 40), 8), 4, roof)], gabled=True)
    if c.draw.random() < 0.5:
        c.build([Building(frame.box(start + reach * 0.7, 0, 3, 2 * half + 6), 4, light(roof, 1.1))])


def track(c: Canvas, frame: Frame, v: float, ballast: Colour) -> None:
    for u in range(-76, 78, 3):
        c.line([frame(u, v - 1.5), frame(u, v + 1.5)], light(ballast, 0.66), 0.6)
    for rail in (-0.9, 0.9):
        c.line([frame(-80, v + rail), frame(80, v + rail)], (70, 66, 66), 0.5)


def car_park(c: Canvas) -> None:
    """Combs of marked bays on tarmac, small dull cars in many of them."""
    paving = vary(c.draw, c.draw.choice(PAVINGS), 10)
    c.fill(c.field("fractal"), (light(paving, 0.93), light(paving, 1.05)))
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 6))
    bay, deep, lane = 3.3, 5.2, c.draw.uniform(6.5, 9)
    period, busy = 2 * deep + lane, c.draw.uniform(0.25, 0.75)
    island = mix(c.greens[1], vary(c.draw, c.draw.choice(SOILS)), 0.4)
    u, v = c.axes(frame)
    _, across = cell(u / np.float32(bay))
    _, down = cell(v / np.float32(period) + np.float32(0.5))
    depth = np.abs(down - np.float32(0.5)) * np.float32(period)
    marks = (np.minimum(across, 1 - across) * np.float32(bay) < 0.3) & (depth < deep)
    c.wash(mix(paving, (222, 220, 212), 0.7), (marks | (depth < 0.35)).view(np.uint8) * np.uint8(255))
    for row in range(-4, 4):
        for side in (-1, 1):
            spots = [(u * bay + bay / 2, row * period + side * deep / 2) for u in range(-22, 22)]
            near = [s for s in spots if max(abs(p - MIDDLE) for p in frame(*s)) < 53 and c.draw.random() < busy]
            cars(c, frame, near, 1.7, 3.6)
        for end in c.draw.sample(range(-4, 5), 4):
            c.polygon(frame.box(end * 6 * bay, row * period, bay * 1.6, deep * 1.7), island)
    c.trees(np.where(depth < 1.2, np.float32(c.draw.choice((0.0, 0.12, 0.3))), np.float32(0)))
    if c.draw.random() < 0.6:
        edge = c.draw.choice((-1, 1)) * c.draw.uniform(40, 50)
        c.build([Building(frame.box(edge, 0, 26, 170), 4, vary(c.draw, c.draw.choice(ROOFS)))])
