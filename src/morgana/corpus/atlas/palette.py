"""Colours of the ground: dull on purpose, so that only the things that can be counted are vivid."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

VEGETATION: dict[str, tuple[Colour, Colour, Colour]] = {  # dark, middle, light
    "spring": ((54, 84, 42), (94, 128, 62), (144, 170, 92)),
    "summer": ((38, 70, 36), (68, 104, 52), (110, 140, 74)),
    "autumn": ((86, 68, 40), (138, 106, 60), (178, 148, 90)),
    "winter": ((72, 70, 60), (110, 106, 90), (150, 146, 128)),
}
CONIFERS: tuple[Colour, Colour, Colour] = ((26, 52, 40), (48, 80, 58), (82, 112, 82))
BIOMES: tuple[tuple[Colour, float], ...] = (
    ((0, 0, 0), 0.0), ((196, 172, 116), 0.4), ((40, 92, 62), 0.35), ((120, 124, 84), 0.5), ((26, 44, 30), 0.35),
)  # fmt: skip
SOILS: tuple[Colour, ...] = (
    (188, 162, 120), (160, 104, 74), (150, 146, 138), (98, 80, 62), (208, 196, 166), (132, 116, 84), (176, 138, 98),
)  # fmt: skip
WATERS: tuple[tuple[Colour, Colour], ...] = (  # deep, shallow
    ((26, 62, 100), (62, 114, 146)), ((20, 84, 98), (74, 152, 154)), ((44, 76, 60), (92, 120, 88)),
    ((98, 86, 64), (140, 126, 96)), ((50, 62, 74), (94, 106, 114)), ((22, 44, 62), (50, 84, 98)),
    ((34, 110, 132), (124, 190, 186)), ((72, 92, 92), (118, 136, 128)),
)  # fmt: skip
PAVINGS: tuple[Colour, ...] = (
    (74, 76, 80),
    (112, 112, 112),
    (150, 148, 142),
    (178, 172, 162),
    (138, 126, 112),
    (92, 92, 88),
)
ROOFS: tuple[Colour, ...] = (
    (158, 102, 80), (94, 100, 110), (142, 142, 144), (122, 96, 78), (190, 180, 158), (106, 122, 112), (100, 114, 132),
    (172, 170, 166), (146, 120, 96), (84, 78, 76),
)  # fmt: skip
CARS: tuple[Colour, ...] = (
    (60, 62, 66),
    (128, 130, 132),
    (172, 172, 170),
    (88, 98, 108),
    (112, 86, 78),
    (146, 138, 120),
)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of `b` in it."""
    return (
        round(a[0] + (b[0] - a[0]) * share), round(a[1] + (b[1] - a[1]) * share), round(a[2] + (b[2] - a[2]) * share),
    )  # fmt: skip


def light(colour: Colour, gain: float) -> Colour:
    """`colour` made brighter (gain > 1) or darker."""
    return (min(255, int(colour[0] * gain)), min(255, int(colour[1] * gain)), min(255, int(colour[2] * gain)))


def vary(draw: random.Random, colour: Colour, amount: int = 10) -> Colour:
    """`colour` with some other brightness and a little other hue."""
    level = draw.randint(-amount, amount)
    shifted = [min(255, max(0, c + level + draw.randint(-amount // 3, amount // 3))) for c in colour]
    return (shifted[0], shifted[1], shifted[2])


def vegetation(draw: random.Random, season: str) -> tuple[Colour, Colour, Colour]:
    """Dark, middle and light green of a site (its biome is drawn, the season is given)."""
    tint, share = draw.choice(BIOMES)
    level = draw.uniform(0.88, 1.14)
    evergreen = draw.choice((0.0, 0.0, 0.2, 0.5))
    tones = [mix(tone, pine, evergreen) for tone, pine in zip(VEGETATION[season], CONIFERS, strict=True)]
    dark, middle, pale = (light(mix(tone, light(tint, 0.7 + 0.3 * i), share), level) for i, tone in enumerate(tones))
    return dark, middle, pale


def gradient(colours: Sequence[Colour]) -> bytes:
    """A palette of 256 RGB entries that passes through `colours` at equal steps."""
    table = weights(len(colours)) @ np.asarray(colours, np.float32)
    return table.astype(np.uint8).tobytes()


@cache
def weights(count: int) -> NDArray[np.float32]:
    """(256, count): how much of each colour there is in each entry."""
    at = np.linspace(0, count - 1, 256, dtype=np.float32)[:, None]
    shares: NDArray[np.float32] = np.clip(1 - np.abs(at - np.arange(count, dtype=np.float32)), 0, 1).astype(np.float32)
    return shares
