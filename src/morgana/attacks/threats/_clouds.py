"""Cloud fields with a natural spectrum: a few random skies for each octave, mixed on a sphere.

An octave of sky is white noise on a lattice of one cell size, interpolated; a field is the sum of octaves whose
amplitudes fall as 1/f. Free grids let an optimiser align the octaves into hard-edged blobs, so each octave is
confined to the span of a few such skies, made orthonormal, and its coefficients to the unit sphere: every member has
the variance of a random one in every octave, and the optimiser chooses which weather, not how weather looks.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from morgana.attacks.threats._grid import per_row
from morgana.attacks.threats._skies import SKIES, Sky
from morgana.seeds import rng

FIELD = 64  # side of a field; images take it by bicubic interpolation
TURN = 2.4  # radians between the lattices of successive octaves, so that no axis shows
WHITE = 64  # side of the noise that the lattices read
COPY = 24  # side of the small copy on which levels are sought
HALVINGS = 20


class Air(NamedTuple):
    """How height above the level becomes opacity; each (B, 1, 1, 1)."""

    softness: Tensor  # width of a cloud's edge, in σ of the field
    density: Tensor  # optical depth per σ


@cache
def basis(cells: float, octave: int, freedom: int) -> Tensor:
    """(D, FIELD²) orthonormal skies of one octave, of mean 0 and unit variance; the named skies are in their span.

    `cells` counts the first octave's. A coarse octave has few cells, and then D is less than the named skies plus
    `freedom`.
    """
    skies = [layer(cells, octave, name, sky) for name, sky in SKIES.items()]
    room = math.ceil(1.5 * (cells * 2**octave) ** 2)
    skies += [layer(cells, octave, str(draw), Sky()) for draw in range(min(freedom, room))]
    columns: Tensor = torch.linalg.qr(torch.stack(skies).double().T)[0]
    return (columns.T * FIELD).float().contiguous()


@cache
def bases(cells: float, octaves: int, freedom: int, device: torch.device) -> Tensor:
    """The bases of all octaves, one below the other."""
    return torch.cat([basis(cells, octave, freedom) for octave in range(octaves)]).to(device)


def layer(cells: float, octave: int, name: str, sky: Sky) -> Tensor:
    """One octave of one sky, (FIELD²,) of mean 0."""
    white = rng(0, "sky", name, octave).standard_normal((WHITE, WHITE)).astype(np.float32)
    turn = 0.5 + TURN * octave if sky.stretch == 1 else sky.wind
    side = (torch.arange(FIELD) + 0.5) / FIELD - 0.5
    x, y = torch.meshgrid(side, side, indexing="xy")
    along, across = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    places = torch.stack([along / sky.stretch, across], -1)[None] * cells * 2**octave * 2 / (WHITE - 1)
    noise = torch.from_numpy(white)[None, None]
    read = functional.grid_sample(noise, places, mode="bicubic", padding_mode="reflection", align_corners=True)
    flat = read.flatten()
    if octave == 0:
        flat = flat + sky.ramp * (x * math.cos(sky.wind) + y * math.sin(sky.wind)).flatten()
    return flat - flat.mean()


def field(weights: list[Tensor], skies: Tensor, roughness: float) -> Tensor:
    """(B, 1, FIELD, FIELD) of about unit variance, from unit weights (B, D) of each octave and all their bases."""
    total = math.sqrt(sum(roughness ** (2 * octave) for octave in range(len(weights))))
    rows = torch.cat([row * (roughness**octave / total) for octave, row in enumerate(weights)], 1)
    return (rows @ skies.to(rows)).view(-1, 1, FIELD, FIELD)


def unit(weights: Tensor) -> Tensor:
    """Rows of length 1; the zero row becomes the first sky."""
    length = weights.square().sum(1, keepdim=True).sqrt()
    first = torch.zeros_like(weights)
    first[:, 0] = 1
    return torch.where(length > 1e-9, weights / length.clamp_min(1e-9), first)


def threshold(field: Tensor, ceiling: Tensor, air: Air, cover: Tensor) -> Tensor:
    """The level at which clouds of a field, times `ceiling`, have the mean `cover` (B,); (B, 1, 1, 1).

    Bisection on a small copy, then Newton's steps. The last one carries the gradient, which is the implicit function's,
    so that moving a cloud in pushes the others out.
    """
    with torch.no_grad():
        small, above = (functional.adaptive_avg_pool2d(x, COPY) for x in (field, ceiling))
        low, high = field.new_full((len(field),), -20.0), field.new_full((len(field),), 20.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            much = mean(opaque(small, per_row(middle, field), air) * above) > cover
            low, high = torch.where(much, middle, low), torch.where(much, high, middle)
        level = high + newton(field, high, ceiling, air, cover)
    return per_row(level + newton(field, level, ceiling, air, cover), field)


def newton(field: Tensor, level: Tensor, ceiling: Tensor, air: Air, cover: Tensor) -> Tensor:
    """The step in the level (B,) that brings the mean to the cover; differentiable in the mean, not in its slope."""
    clouds = opaque(field, per_row(level, field), air)
    with torch.no_grad():
        rise = air.density * torch.sigmoid((field - per_row(level, field)) / air.softness)
        slope = mean((1 - clouds) * rise * ceiling).clamp_min(1e-4)  # minus the derivative in the level
    return ((mean(clouds * ceiling) - cover) / slope).clamp(-1, 1)


def opaque(field: Tensor, level: Tensor, air: Air) -> Tensor:
    """Opacity in [0, 1) of a field above a level: 1 − exp(−optical depth), so that thin clouds have texture."""
    depth = functional.softplus((field - level) / air.softness) * air.softness
    return 1 - (-air.density * depth).exp()


def mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))
