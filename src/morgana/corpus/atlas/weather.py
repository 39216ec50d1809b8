"""Haze and clouds between the eye and the ground: multi-octave noise, warped, with soft edges and shadows."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morgana.corpus.atlas import noise
from morgana.corpus.atlas.noise import Field

Picture = NDArray[np.float32]  # (size, size, 3), 0 … 255


def veiled(picture: Picture, weather: str, draw: random.Random) -> Picture:
    """The picture under one of `world.WEATHERS`; 'clear' returns it as it came."""
    if weather == "haze":
        return haze(picture, draw)
    if weather == "thin cloud":
        return cloud(
            picture, draw, cover=draw.uniform(0.2, 0.4), opacity=draw.uniform(0.5, 0.68), edge=0.34, shadow=0.0
        )
    if weather == "thick cloud":
        return cloud(
            picture, draw, cover=draw.uniform(0.32, 0.58), opacity=draw.uniform(0.86, 0.94), edge=0.2, shadow=0.34
        )
    return picture


def haze(picture: Picture, draw: random.Random) -> Picture:
    """A pale veil whose density varies slowly."""
    n = len(picture)
    density = np.float32(draw.uniform(0.3, 0.42)) + np.float32(0.3) * (sky("broad", draw, n) - np.float32(0.5))
    tint = np.asarray(draw.choice(((208, 214, 220), (216, 212, 202), (200, 208, 218))), np.float32)
    flat = picture.mean(axis=2, keepdims=True)
    picture = picture + (flat - picture) * np.float32(0.2)
    return over(picture, tint, density[..., None])


def cloud(picture: Picture, draw: random.Random, cover: float, opacity: float, edge: float, shadow: float) -> Picture:
    """Fractal clouds over about `cover` of the tile; `edge`: how slowly they fade; `shadow`: how dark below."""
    n = len(picture)
    body = billows(draw, n)
    level = np.partition(body.ravel(), int((1 - cover) * body.size))[int((1 - cover) * body.size)]
    thickness = ramp((body - level) / np.float32(edge) + np.float32(0.5))
    if shadow:
        move = max(1, n // 12)
        under = np.roll(ramp((body - level) / np.float32(edge * 1.3) + np.float32(0.35)), (move, -move), (0, 1))
        picture = picture * (1 - np.float32(shadow) * under[..., None])
    relief = body - np.roll(body, (2, 2), (0, 1))  # lit from the north-west
    white = np.clip(np.float32(232) + relief * np.float32(160) + thickness * np.float32(14), 178, 252)
    tint = white[..., None] * np.asarray((0.99, 1.0, 1.01), np.float32)
    return over(picture, tint, (thickness * np.float32(opacity))[..., None])


def billows(draw: random.Random, n: int) -> Field:
    """A cloud field in [0, 1] about: fractal noise drawn along by a smooth flow, plus wisps."""
    base, flow, other = sky("cloud", draw, n), sky("broad", draw, n), sky("broad", draw, n)
    reach = np.float32(n * draw.uniform(0.08, 0.2))
    rows = np.arange(n, dtype=np.float32)
    y = np.clip(rows[:, None] + (flow - np.float32(0.5)) * reach, 0, n - 1).astype(np.intp)
    x = np.clip(rows[None, :] + (other - np.float32(0.5)) * reach, 0, n - 1).astype(np.intp)
    return base[y, x] * np.float32(0.84) + sky("fractal", draw, n) * np.float32(0.16)


def sky(name: str, draw: random.Random, n: int) -> Field:
    """(n, n) noise from a bank, at half the bank's resolution (so as smooth as the tile needs)."""
    window = noise.window(name, draw)
    return np.asarray(Image.fromarray(np.ascontiguousarray(window)).resize((n, n), Image.Resampling.BILINEAR))


def ramp(values: Field) -> Field:
    """Smoothstep of values clipped to [0, 1]."""
    t = np.clip(values, 0, 1)
    return t * t * (3 - 2 * t)


def over(picture: Picture, colour: Picture | Field, alpha: Field) -> Picture:
    """`colour` laid over the picture."""
    mixed: Picture = picture + (colour - picture) * alpha
    return mixed
