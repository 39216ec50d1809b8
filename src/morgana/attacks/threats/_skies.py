"""Named skies, the handcrafted baselines: the same on every image."""

from __future__ import annotations

from typing import NamedTuple

from morgana.spec import nearest
from morgana.types import SpecError


class Sky(NamedTuple):
    """How a kind of sky differs from an even scatter of heaps."""

    stretch: float = 1.0  # of the clouds along the wind
    wind: float = 0.0  # radians
    ramp: float = 0.0  # of the first octave across the tile along the wind: a front on one side
    veil: float = 0.1  # share of the largest veil
    soft: float = 0.3  # edges, from the hardest (0) to the softest (1)
    dense: float = 0.8  # from the thinnest clouds (0) to the thickest (1)


SKIES = {
    "cumulus": Sky(),
    "cirrus": Sky(stretch=6.0, wind=0.5, veil=0.4, soft=1.0, dense=0.2),
    "front": Sky(wind=1.2, ramp=6.0, veil=0.2),
    "bank": Sky(stretch=2.5, wind=2.5, ramp=-4.0, veil=0.3),
    "veil": Sky(veil=1.0, soft=1.0, dense=0.0),
}


def sky(name: str) -> Sky:
    if name not in SKIES:
        known = list(SKIES)
        raise SpecError(f"no sky is called {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return SKIES[name]
