"""From a view of a site to the pixels of its tile, with nothing left to chance but the two seeds."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from morgana.corpus.atlas import noise
from morgana.corpus.atlas.canvas import MARGIN, Canvas
from morgana.corpus.atlas.scenes import SCENES
from morgana.corpus.atlas.things import place_things
from morgana.corpus.atlas.weather import Picture, veiled
from morgana.corpus.atlas.world import View
from morgana.seeds import derive
from morgana.types import SpecError

LIGHTS = {"morning": (0.97, 0.96, 1.0), "noon": (1.03, 1.03, 1.02), "evening": (1.02, 0.96, 0.87)}
SNOWLESS = {"desert", "beach", "island", "salt works", "greenhouse complex"}
SMALLEST = 16


def render(view: View, size: int = 96) -> NDArray[np.uint8]:
    """The tile as (size, size, 3) bytes: the site's seed gives the layout, the view's seed all that changes.

    Under a clear sky, two views that differ in one group of things differ in pixels only around its place.
    """
    if size < SMALLEST:
        raise SpecError(f"a tile of {size} px was asked for; the smallest that shows anything is {SMALLEST}")
    canvas = Canvas(view, size)
    SCENES[view.site.kind](canvas)
    if view.season == "winter" and view.site.kind not in SNOWLESS:
        snow(canvas)
    for group in view.site.things:
        place_things(canvas, group, view.site.seed)
    picture = lit(cut(canvas, size), view.light, canvas.visit)
    picture = veiled(picture, view.weather, random.Random(derive(view.seed, "weather")), canvas.sun)
    return (np.clip(sensed(picture, random.Random(derive(view.seed, "sensor"))), 0, 255) + np.float32(0.5)).astype(
        np.uint8
    )


def snow(canvas: Canvas) -> None:
    """A dusting of snow on open ground, thicker in some places, others at each visit; what is dark shows through."""
    drift = noise.window("broad", canvas.visit, canvas.n) * np.float32(0.7)
    drift += noise.window("fractal", canvas.visit, canvas.n) * np.float32(0.3)
    depth = np.clip((drift - np.float32(canvas.visit.uniform(0.2, 0.6))) * np.float32(2.2), 0, 0.82)
    bright = np.asarray(canvas.image.convert("L"), np.float32)
    holds = np.clip((bright - np.float32(45)) * np.float32(1 / 90), 0.12, 1)
    mask = (depth * holds * np.float32(230)).astype(np.uint8)
    canvas.wash((224, 229, 238), np.minimum(mask, 255 - canvas.water))


def cut(canvas: Canvas, size: int) -> Picture:
    """The tile out of the sheet, a little off at each visit, averaged 2 x 2."""
    left, top = (round((MARGIN + canvas.visit.uniform(-1.5, 1.5)) * canvas.unit) for _ in range(2))
    box = (left, top, left + 2 * size, top + 2 * size)
    return np.asarray(canvas.image.reduce(2, box=box), np.float32)


def lit(picture: Picture, light: str, visit: random.Random) -> Picture:
    """The tint of the hour and a small change of brightness and contrast between visits."""
    gain = np.asarray([g * visit.uniform(0.985, 1.015) for g in LIGHTS[light]], np.float32) * np.float32(
        visit.uniform(0.94, 1.05)
    )
    tinted: Picture = picture * gain + np.float32(visit.uniform(-5, 5))
    return tinted


def sensed(picture: Picture, draw: random.Random) -> Picture:
    """The picture with the sensor's noise (standard deviation 1.5 to 3 levels)."""
    noisy: Picture = picture + noise.grain(draw, len(picture)) * np.float32(draw.uniform(1.5, 3.0))
    return noisy
