"""Scenes on and by the water."""

from __future__ import annotations

import math

import numpy as np

from morgana.corpus.atlas.canvas import Building, Canvas, Frame, byte_mask, soft_mask
from morgana.corpus.atlas.noise import Field
from morgana.corpus.atlas.palette import PAVINGS, ROOFS, SOILS, WATERS, Colour, light, mix, vary
from morgana.corpus.atlas.scenes.ground import backdrop, cell, dashes, grove, near_middle, road


def waters(c: Canvas) -> tuple[Colour, Colour]:
    deep, shallow = c.draw.choice(WATERS)
    return vary(c.draw, deep, 12), vary(c.draw, shallow, 12)


def sand(c: Canvas) -> Colour:
    return vary(c.draw, c.draw.choice(((214, 196, 150), (198, 170, 128), (222, 212, 186), (150, 138, 122))), 10)


def harbour(c: Canvas) -> None:
    """A quay with sheds, and piers out into the basin."""
    frame = Frame(c.draw.uniform(0, 2 * math.pi))
    edge = c.draw.uniform(-16, 0)
    backdrop(c, ("meadow", "scrub", "soil"))
    paving = vary(c.draw, c.draw.choice(PAVINGS), 8)
    deck = vary(c.draw, c.draw.choice(((176, 170, 158), (146, 128, 106), (120, 118, 114))), 10)
    _, v = c.axes(frame)
    tint = waters(c)
    c.flood(byte_mask(v > edge), tint)
    c.polygon(frame.box(0, edge - 8, 170, 16), paving)
    c.polygon(frame.box(0, edge, 170, 1.6), light(deck, 0.8))
    road(c, [frame(-90, edge - 18), frame(90, edge - 18)], 3.5, light(paving, 0.75), (200, 196, 180))
    u = -60 + c.draw.uniform(0, 8)
    pitch, length, finger = c.draw.uniform(15, 25), c.draw.uniform(24, 46), c.draw.random() < 0.6
    while u < 62:
        reach = length * c.draw.uniform(0.75, 1.1)
        c.polygon(frame.box(u + 1, edge + reach / 2 + 1, 2.4, reach), light(tint[0], 0.55))
        c.polygon(frame.box(u, edge + reach / 2, 2.4, reach), deck)
        for step in range(1, int(reach / 7)) if finger else ():
            c.polygon(frame.box(u, edge + 7 * step + 3, 8.5, 0.9), deck)
        c.polygon(frame.box(u, edge + reach, 7.5, 2.2), deck)
        u += pitch * c.draw.uniform(0.85, 1.2)
    sheds = [
        Building(
            frame.box(x, edge - 8 + c.draw.uniform(-1, 1), c.draw.uniform(11, 17), 8),
            3,
            vary(c.draw, c.draw.choice(ROOFS)),
        )
        for x in range(-58, 60, 20)
        if c.draw.random() < 0.75
    ]
    c.build(sheds, gabled=True)
    if c.draw.random() < 0.5:  # the mole
        c.line(
            [frame(u, edge + 58 + 0.004 * u * u) for u in range(-70, c.draw.randrange(0, 50), 10)], (112, 108, 100), 4
        )


def river(c: Canvas) -> None:
    """A stream that meanders from edge to edge between wooded banks and sand bars."""
    backdrop(c)
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, 10))
    u, v = c.axes(frame)
    wave, swing = c.draw.uniform(0.045, 0.085), c.draw.uniform(9, 19)
    middle = np.sin(u * np.float32(wave) + np.float32(c.draw.uniform(0, 6.28))) * np.float32(swing)
    wobble = (c.field("broad") - np.float32(0.5)) * np.float32(10)
    width = c.draw.uniform(5.5, 10) + (c.field("broad") - np.float32(0.5)) * np.float32(4)
    slope = np.sqrt(1 + np.square(np.cos(u * np.float32(wave)) * np.float32(swing * wave * 0.7)))
    bank = width - np.abs(v - middle + wobble) / slope
    if c.draw.random() < 0.7:
        c.wash(sand(c), soft_mask(bank + c.field("medium") * np.float32(5) - 1.2, 0.5))
    c.trees(np.where((bank < -1) & (bank > -6), np.float32(c.draw.uniform(0.1, 0.7)), np.float32(0)))
    c.flood(soft_mask(bank), waters(c), np.clip(1 - bank / 9, 0, 1) * np.float32(0.8))


def beach(c: Canvas) -> None:
    """Land, sand, surf and sea in four bands."""
    frame = Frame(c.draw.uniform(0, 2 * math.pi), *near_middle(c, 9))
    backdrop(c, ("meadow", "scrub", "wood"))
    u, v = c.axes(frame)
    bend = np.sin(u * np.float32(c.draw.uniform(0.02, 0.06)) + np.float32(c.draw.uniform(0, 6))) * np.float32(
        c.draw.uniform(2, 8)
    )
    shore = v + bend + (c.field("broad") - np.float32(0.5)) * np.float32(9)
    width = c.draw.uniform(13, 24)
    tone = sand(c)
    dune = shore + width + (c.field("medium") - np.float32(0.5)) * np.float32(7)
    c.fill(c.field("fractal"), (light(tone, 0.9), tone, light(tone, 1.1)), soft_mask(dune, 1.2))
    c.wash(light(tone, 0.78), soft_mask(shore + 2.2, 1.5))
    deep, shallow = waters(c)
    pale = mix(shallow, (206, 214, 202), 0.35)
    c.flood(
        soft_mask(shore), (pale, shallow, deep, deep), np.clip(shore / c.draw.uniform(24, 60), 0, 1) * np.float32(0.85)
    )
    foam = c.field("fine")
    for at in (0.3, c.draw.uniform(4, 6), c.draw.uniform(8, 12)):
        crest = np.float32(1.0) - np.abs(shore - at - foam * np.float32(2.4)) - foam * np.float32(0.08 * at)
        c.wash((218, 224, 222), soft_mask(crest, 0.9))


def shores(c: Canvas, spread: float = 8) -> Field:
    """Distance (units, roughly) to the rim of a bay-edged oval in the middle, positive inside."""
    frame = Frame(c.draw.uniform(0, math.pi), *near_middle(c, spread))
    u, v = c.axes(frame)
    a, b = c.draw.uniform(26, 38), c.draw.uniform(19, 29)
    distance: Field = (1 - np.hypot(u / np.float32(a), v / np.float32(b))) * np.float32(min(a, b))
    distance += (c.field("broad") - np.float32(0.5)) * np.float32(16)
    distance += (c.field("medium") - np.float32(0.5)) * np.float32(5)
    return distance


def lake(c: Canvas) -> None:
    """A closed sheet of water in open country or wood."""
    backdrop(c, ("meadow", "scrub", "fields", "wood", "wood", "soil"))
    rim = shores(c)
    c.trees(np.where((rim > -7) & (rim < -1), np.float32(c.draw.uniform(0.0, 0.8)), np.float32(0)))
    c.wash(mix(sand(c), c.greens[1], c.draw.random()), soft_mask(rim + 1.8))
    c.flood(soft_mask(rim), waters(c)[::-1], np.clip(rim / 14, 0, 1) * np.float32(0.85))


def island(c: Canvas) -> None:
    """Land with a ring of sand and shoals, water on every side."""
    deep, shallow = waters(c)
    rim = shores(c, 6)
    depth = np.clip(rim / 20 + 1, 0, 1)
    c.flood(
        np.full((c.n, c.n), 255, np.uint8),
        (deep, deep, shallow, mix(shallow, (196, 206, 190), 0.4)),
        depth * np.float32(0.85),
    )
    tone = sand(c)
    land = soft_mask(rim)
    c.water[land > 127] = 0
    c.wash((214, 220, 218), soft_mask(rim + 1.4 + c.field("fine")))
    c.fill(c.field("fractal"), (light(tone, 0.9), light(tone, 1.1)), land)
    inner = rim - c.draw.uniform(2.5, 5) - c.field("medium") * np.float32(3)
    c.fill(c.field("fractal"), c.greens, soft_mask(inner))
    c.trees(np.where(inner > 0.5, np.float32(c.draw.uniform(0.15, 0.9)) * c.field("medium"), np.float32(0)))


def wetland(c: Canvas) -> None:
    """A maze of creeks and pools in reeds."""
    dark, middle, pale = c.greens
    reed = mix(pale, c.draw.choice(SOILS), c.draw.uniform(0.1, 0.6))
    c.fill(
        c.field("fractal") * np.float32(0.6) + c.field("fine") * np.float32(0.4),
        (mix(dark, middle, 0.4), middle, reed, light(reed, 1.12)),
    )
    tint = waters(c)
    creek = np.float32(c.draw.uniform(0.05, 0.08)) - np.abs(c.field("medium") - np.float32(0.5))
    fork = np.float32(c.draw.uniform(0.03, 0.06)) - np.abs(c.field("broad") - np.float32(0.5))
    pools = c.field("medium") - np.float32(c.draw.uniform(0.86, 0.95))
    wet = np.maximum(np.maximum(creek * 30, fork * 60), pools * 40)
    c.wash(mix(tint[1], reed, 0.5), soft_mask(wet + 1.0))
    c.flood(soft_mask(wet, 0.5), tint)
    c.trees(np.where(wet < -4, grove(c, c.draw.uniform(0.02, 0.12)), np.float32(0)))


def bridge(c: Canvas) -> None:
    """A wide channel, and a deck on piers straight across it."""
    backdrop(c)
    frame = Frame(c.draw.uniform(0, 2 * math.pi), *near_middle(c, 8))
    _, v = c.axes(frame)
    half = c.draw.uniform(20, 30)
    rim = half - np.abs(v) + (c.field("broad") - np.float32(0.5)) * np.float32(8)
    c.wash(mix(sand(c), c.greens[1], 0.4), soft_mask(rim + 2))
    tint = waters(c)
    c.flood(soft_mask(rim), tint)
    deck = Frame(math.atan2(frame.sin, frame.cos) + math.pi / 2 + c.draw.uniform(-0.35, 0.35), frame.x, frame.y)
    width, paving = c.draw.uniform(6, 10), vary(c.draw, c.draw.choice(PAVINGS), 8)
    dx, dy = c.sun[0] * 5, c.sun[1] * 5 + 1.5
    rail = light(vary(c.draw, c.draw.choice(((176, 172, 164), (130, 116, 104), (100, 112, 116)))), 1.0)
    c.polygon([(x + dx, y + dy) for x, y in deck.box(0, 0, 2 * half + 6, width)], light(tint[0], 0.45))
    for u in np.arange(-half + 5, half, c.draw.uniform(9, 13)):
        c.polygon(deck.box(float(u), 0, 2.2, width + 5), light(rail, 0.8))
    c.polygon(deck.box(0, 0, 180, width), rail)
    c.polygon(deck.box(0, 0, 180, width - 1.8), paving)
    dashes(c, [deck(-90, 0), deck(90, 0)], (208, 204, 190))
    if c.draw.random() < 0.5:  # arches or cable towers
        for side in (-1, 1):
            c.polygon(deck.box(side * half * 0.5, 0, 2.4, width + 2), light(rail, 1.15))
            c.line([deck(-half, side * (width / 2 + 0.4)), deck(half, side * (width / 2 + 0.4))], light(rail, 0.7), 0.7)


def salt_works(c: Canvas) -> None:
    """Shallow rectangular pans of many colours between thin pale dykes, with heaps of salt."""
    backdrop(c, ("soil", "scrub"))
    frame = Frame(c.draw.uniform(0, math.pi))
    u, v = c.axes(frame)
    wide, high = c.draw.uniform(15, 24), c.draw.uniform(9, 15)
    row, down = cell(v / np.float32(high) + np.float32(c.draw.random()))
    column, along = cell(
        u / np.float32(wide) + np.float32(c.draw.random()) + (row & 1) * np.float32(c.draw.choice((0, 0, 0.5)))
    )
    number = ((row * 5 + column * 11) & 15).astype(np.uint8)
    brines = c.draw.choice((
        ((176, 132, 128), (150, 104, 96), (196, 164, 152), (204, 202, 194)),
        ((120, 160, 158), (84, 128, 136), (170, 192, 184), (208, 208, 200)),
        ((164, 150, 104), (128, 126, 84), (190, 178, 140), (206, 200, 184)),
        ((148, 124, 138), (112, 136, 132), (186, 172, 152), (200, 196, 196)),
    ))  # fmt: skip
    table = [vary(c.draw, c.draw.choice(brines), 12) for _ in range(16)]
    texture = (c.field("fractal") * np.float32(15.9)).astype(np.uint8)
    shades = [light(colour, 0.9 + 0.012 * step) for colour in table for step in range(16)]
    c.paint((number << 4) | texture, shades)
    rim = np.minimum(np.minimum(along, 1 - along) * np.float32(wide), np.minimum(down, 1 - down) * np.float32(high))
    dyke = vary(c.draw, c.draw.choice(((206, 198, 180), (172, 158, 134), (132, 116, 98))), 8)
    c.wash(light(dyke, 0.7), soft_mask(1.2 - rim, 0.4))
    c.wash(dyke, soft_mask(0.75 - rim, 0.4))
    base = c.draw.uniform(-30, 30)
    c.polygon(frame.box(0, base, 180, 5), light(dyke, 0.95))
    for k in range(-8, 9):
        x, y = frame(k * 6.5 + c.draw.uniform(-1, 1), base)
        c.disc(x + 0.5 + c.sun[0], y + 0.5 + c.sun[1], 1.9, light(dyke, 0.6))
        c.disc(x, y, 1.8, (222, 222, 218))
