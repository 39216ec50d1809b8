"""Banks of smooth random fields, made once a process: the raw material of ground, canopy and cloud.

Every bank tiles (its edges meet) and is `SIDE` pixels wide, drawn at two pixels a unit of the world (see `canvas`).
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from morgana.seeds import rng

Field = NDArray[Any]  # float32
Bytes = NDArray[Any]  # uint8

SIDE = 512
WINDOW = 208  # pixels that a tile of 96 px takes of a bank: 2 x (96 + 2 x 4 of margin)
LAYERS = 4  # independent fields a bank
SCALES = {
    "broad": (70.0, 6.0),
    "medium": (28.0, 6.0),
    "fine": (9.0, 4.0),
    "fractal": (110.0, 1.6),
    "cloud": (150.0, 2.3),
}
"""Per bank the longest wavelength in pixels and the exponent by which the amplitude falls beyond it."""


class Crowns(NamedTuple):
    """Tree tops as seen from above: a number for each tree (255: no tree) and its lighting."""

    order: Bytes
    light: Bytes


@cache
def bank(name: str) -> Field:
    """(LAYERS, SIDE, SIDE) in [0, 1], uniformly distributed, so a threshold is the share of area below it."""
    wavelength, fall = SCALES[name]
    draw = rng(0, "atlas noise", name)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]) * wavelength
    amplitude = 1 / (1 + frequency**2) ** (fall / 2)
    amplitude[0, 0] = 0
    layers = [np.fft.irfft2(np.fft.rfft2(draw.standard_normal((SIDE, SIDE))) * amplitude) for _ in range(LAYERS)]
    return np.stack([uniform(layer) for layer in layers])


@cache
def crowns() -> Crowns:
    """About 4,000 round tree tops of 5 to 10 pixels, lit from the north-west."""
    draw = rng(0, "atlas crowns")
    pitch = 8
    grid = np.moveaxis(np.mgrid[0:SIDE:pitch, 0:SIDE:pitch], 0, -1).reshape(-1, 2)
    centre = grid + draw.integers(0, pitch, grid.shape)
    radius = draw.uniform(2.6, 5.4, len(grid))
    tone, number = draw.uniform(-0.14, 0.14, len(grid)), draw.integers(0, 255, len(grid))
    height = np.zeros((SIDE, SIDE))
    order, light = np.full((SIDE, SIDE), 255, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    for dy, dx in np.ndindex(11, 11):
        y, x = dy - 5, dx - 5
        top = 1 - (x * x + y * y) / radius**2
        rows, columns = ((centre + np.asarray((y, x))) % SIDE).T
        wins = (top > 0) & (top * radius > height[rows, columns])
        rows, columns = rows[wins], columns[wins]
        height[rows, columns] = (top * radius)[wins]
        order[rows, columns] = number[wins]
        shade = 0.5 + tone - 0.32 * (x + y) / radius + 0.15 * top
        light[rows, columns] = np.clip(255 * shade[wins], 0, 255)
    return Crowns(order, light)


@cache
def static() -> Field:
    """(SIDE, SIDE, 3) of independent standard normal numbers."""
    return rng(0, "atlas static").standard_normal((SIDE, SIDE, 3), np.float32)


def grain(draw: random.Random, n: int) -> Field:
    """(n, n, 3) out of `static`, wrapped around its edges."""
    y, x = draw.randrange(SIDE), draw.randrange(SIDE)
    rows, columns = (y + np.arange(n)) % SIDE, (x + np.arange(n)) % SIDE
    return static()[rows][:, columns]


def window(name: str, draw: random.Random, n: int = WINDOW) -> Field:
    """An (n, n) view into one layer of a bank at a random place, turned or mirrored, stretched if n is not WINDOW."""
    layers = bank(name)
    cut = turned(layers[draw.randrange(LAYERS)], draw)
    if n == WINDOW:
        return cut
    return np.asarray(Image.fromarray(np.ascontiguousarray(cut)).resize((n, n), Image.Resampling.BILINEAR))


def canopy(draw: random.Random, n: int = WINDOW) -> Crowns:
    """An (n, n) window into the tree tops."""
    order, light = crowns()
    y, x = draw.randrange(SIDE - WINDOW), draw.randrange(SIDE - WINDOW)
    cut = Crowns(order[y : y + WINDOW, x : x + WINDOW], light[y : y + WINDOW, x : x + WINDOW])
    if n == WINDOW:
        return cut
    return Crowns(*(np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((n, n), 0)) for part in cut))


def turned(layer: Field, draw: random.Random) -> Field:
    y, x, turn = draw.randrange(SIDE - WINDOW), draw.randrange(SIDE - WINDOW), draw.randrange(8)
    cut = layer[y : y + WINDOW, x : x + WINDOW]
    cut = cut[::-1] if turn & 1 else cut
    cut = cut[:, ::-1] if turn & 2 else cut
    return cut.T if turn & 4 else cut


def uniform(values: NDArray[np.float64]) -> Field:
    """Each value replaced by its rank, in [0, 1]."""
    ranks = np.empty(values.size, np.float32)
    ranks[np.argsort(values, axis=None, kind="stable")] = np.linspace(0, 1, values.size, dtype=np.float32)
    return ranks.reshape(values.shape)
