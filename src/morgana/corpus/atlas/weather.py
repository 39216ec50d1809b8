"""Haze and clouds between the eye and the ground: multi-octave noise, warped, with soft edges and shadows."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morgana.corpus.atlas import noise
from morgana.corpus.atlas.noise import SIDE, Field

Picture = NDArray[Any]  # float32 (size, size, 3), 0 … 255


def veiled(picture: Picture, weather: str, draw: random.Random, sun: tuple[float, float]) -> Picture:
    """The picture under one of `world.WEATHERS`; 'clear' returns it as it came. Shadows fall towards `sun`."""
    if weather == "haze":
        return haze(picture, draw)
    if weather == "thin cloud":
        return thin_cloud(picture, draw)
    if weather == "thick cloud":
        return thick_cloud(picture, draw, sun)
    return picture


def haze(picture: Picture, draw: random.Random) -> Picture:
    """A pale veil whose density varies slowly."""
    n = len(picture)
    level, swing = np.float32(draw.uniform(0.34, 0.46)), np.float32(0.3)
    density = level + swing * (sky("broad", draw, n, 1.2) - np.float32(0.5))
    tint = np.asarray(draw.choice(((206, 212, 219), (214, 210, 200), (198, 206, 217))), np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    return over(picture + (grey - picture) * np.float32(0.25), tint, density[..., None])


def thin_cloud(picture: Picture, draw: random.Random) -> Picture:
    """Translucent wisps, drawn out along the wind, over 15 to 40 % of the tile."""
    n = len(picture)
    turn, stretch = draw.uniform(0, 2 * math.pi), draw.uniform(1.0, 2.6)
    body = sky("cloud", draw, n, 2.0, turn, stretch) * np.float32(0.7) + sky(
        "fractal", draw, n, 2.4, turn, stretch
    ) * np.float32(0.3)
    thickness = ramp((body - level_of(body, draw.uniform(0.15, 0.4))) * np.float32(2.0) + np.float32(0.46))
    wisps = np.float32(0.75) + np.float32(0.5) * (sky("fractal", draw, n, 3.0, turn, stretch * 1.5) - np.float32(0.5))
    return over(picture, WHITE, (thickness * wisps * np.float32(draw.uniform(0.74, 0.9)))[..., None])


def thick_cloud(picture: Picture, draw: random.Random, sun: tuple[float, float]) -> Picture:
    """Heaped clouds, lit from one side, over 30 to 60 % of the tile, with their shadow beside them."""
    n = len(picture)
    turn = draw.uniform(0, 2 * math.pi)
    body = sky("cloud", draw, n, draw.uniform(1.5, 2.1), turn) * np.float32(0.8)
    detail = sky("fractal", draw, n, 2.6, turn) * np.float32(0.2)
    body += detail
    level = level_of(body, draw.uniform(0.3, 0.55))
    thickness = ramp((body - level) * np.float32(4.2) + np.float32(0.42))
    dx, dy = (round(d * n / 11) for d in sun)
    under = ramp((moved(body, dx, dy) - level) * np.float32(3.4) + np.float32(0.4))
    picture = picture * (1 - np.float32(0.42) * under[..., None])
    step = max(1, n // 48)
    relief = moved(body, round(math.copysign(step, -sun[0])), step) - body  # the side away from the shadow is lit
    bulge = np.clip((body - level) * np.float32(60), 0, 16)
    white = np.clip(np.float32(226) - relief * np.float32(190) + bulge, 168, 253)
    tint = white[..., None] * (
        SHADE + (np.float32(1) - SHADE) * ((white - np.float32(168)) / np.float32(85))[..., None]
    )
    return over(picture, tint, (thickness * np.float32(draw.uniform(0.84, 0.93)))[..., None])


WHITE = np.asarray((236, 240, 245), np.float32)
SHADE = np.asarray((0.965, 0.985, 1.03), np.float32)  # the dark side of a cloud is bluish


def sky(name: str, draw: random.Random, n: int, zoom: float, turn: float | None = None, stretch: float = 1.0) -> Field:
    """(n, n) noise from a bank: `zoom` bank pixels a tile pixel (at 96 px), turned, drawn out along its own x axis."""
    turn = draw.uniform(0, 2 * math.pi) if turn is None else turn
    pixel = zoom * 96 / n
    across, along = pixel, pixel / stretch
    cos, sin = math.cos(turn), math.sin(turn)
    reach = 0.72 * n * pixel  # half the diagonal of what is read
    x, y = (draw.uniform(reach, SIDE - reach) if reach < SIDE / 2 else SIDE / 2 for _ in range(2))
    a, b, d, e = cos * along, sin * along, -sin * across, cos * across
    centre = (n - 1) / 2
    data = (a, b, x - (a + b) * centre, d, e, y - (d + e) * centre)
    layer = sheets(name)[draw.randrange(noise.LAYERS)]
    return np.asarray(layer.transform((n, n), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))


@cache
def sheets(name: str) -> list[Image.Image]:
    """The layers of a bank as images."""
    return [Image.fromarray(layer) for layer in noise.bank(name)]


def level_of(body: Field, cover: float) -> Field:
    """The value that a share `cover` of the field exceeds."""
    at = int((1 - cover) * (body.size - 1))
    level: Field = np.partition(body, at, axis=None)[at]
    return level


def moved(body: Field, dx: int, dy: int) -> Field:
    """The field shifted by whole pixels, its edge repeated."""
    n = len(body)
    rows, columns = np.clip(np.arange(n) - dy, 0, n - 1), np.clip(np.arange(n) - dx, 0, n - 1)
    shifted: Field = body[rows][:, columns]
    return shifted


def ramp(values: Field) -> Field:
    """Smoothstep of values clipped to [0, 1]."""
    t: Field = np.clip(values, 0, 1)
    smooth: Field = t * t * (3 - 2 * t)
    return smooth


def over(picture: Picture, colour: Picture | Field, alpha: Field) -> Picture:
    """`colour` laid over the picture."""
    mixed: Picture = picture + (colour - picture) * alpha
    return mixed
