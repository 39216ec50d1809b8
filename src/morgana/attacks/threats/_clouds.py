"""Cloud fields with a natural spectrum: a few random skies for each octave, mixed on a sphere.

An octave of sky is white noise on a lattice of one cell size, interpolated; a field is the sum of octaves whose
amplitudes fall as 1/f. Free grids let an optimiser align the octaves into hard-edged blobs, so each octave is
confined to the span of a few such skies, made orthonormal, and its coefficients to the unit sphere: every member has
exactly the spectrum of a random one, and the optimiser chooses which weather, not how weather looks.
"""

from __future__ import annotations

import math
from functools import cache

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
HALVINGS = 30


@cache
def basis(cells: float, number: int, freedom: int) -> Tensor:
    """(D, FIELD²) orthonormal skies of one octave, of mean 0 and unit variance; the named skies are in their span.

    A coarse octave has few cells, and then D is less than the named skies plus `freedom`.
    """
    skies = [layer(cells, number, name, sky) for name, sky in SKIES.items()]
    freedom = min(freedom, math.ceil(1.5 * cells**2))
    skies += [layer(cells, number, str(draw), Sky()) for draw in range(freedom)]
    rows, _ = torch.linalg.qr(torch.stack(skies).double().T)
    return (rows.T * FIELD).float().contiguous()


def layer(cells: float, number: int, name: str, sky: Sky) -> Tensor:
    """One octave of one sky, (FIELD²,) of mean 0."""
    white = rng(0, "sky", name, number).standard_normal((WHITE, WHITE))
    turn = 0.5 + TURN * number if sky.stretch == 1 else sky.wind
    side = (torch.arange(FIELD) + 0.5) / FIELD - 0.5
    x, y = torch.meshgrid(side, side, indexing="xy")
    along, across = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    places = torch.stack([along * cells / sky.stretch, across * cells], -1) * 2 / (WHITE - 1)
    noise = torch.from_numpy(white.astype(np.float32))[None, None]
    read = functional.grid_sample(noise, places[None], mode="bicubic", padding_mode="reflection", align_corners=True)
    flat = read.flatten() + (
        sky.ramp * (x * math.cos(sky.wind) + y * math.sin(sky.wind)).flatten() if number == 0 else 0
    )
    return flat - flat.mean()


def field(weights: list[Tensor], bases: list[Tensor], roughness: float) -> Tensor:
    """(B, 1, FIELD, FIELD) of unit variance from unit weights (B, D) of each octave."""
    total = math.sqrt(sum(roughness ** (2 * number) for number in range(len(bases))))
    rows = torch.cat([row * (roughness**number / total) for number, row in enumerate(weights)], 1)
    return (rows @ torch.cat(bases).to(rows)).view(-1, 1, FIELD, FIELD)


def unit(weights: Tensor) -> Tensor:
    """Rows of length 1; the zero row becomes the first sky."""
    length = weights.square().sum(1, keepdim=True).sqrt()
    first = torch.zeros_like(weights)
    first[:, 0] = 1
    return torch.where(length > 1e-9, weights / length.clamp_min(1e-9), first)


def threshold(field: Tensor, open_sky: Tensor, softness: float, cover: Tensor) -> Tensor:
    """The level at which clouds of a field cover `cover` (B,) of the open sky, (B, 1, 1, 1).

    Found by bisection; its gradient is the implicit function's, so that moving a cloud in pushes the others out.
    """
    low, high = field.new_full((len(field),), -20.0), field.new_full((len(field),), 20.0)
    with torch.no_grad():
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            much = mean(opaque(field, per_row(middle, field), softness) * open_sky) > cover
            low, high = torch.where(much, middle, low), torch.where(much, high, middle)
        shape = opaque(field, per_row(high, field), softness)
        slope = mean(shape * (1 - shape) * open_sky) / softness  # minus the derivative in the level
    amount = mean(opaque(field, per_row(high, field), softness) * open_sky)
    return per_row(high + (amount - cover) / slope.clamp_min(1e-4), field)


def opaque(field: Tensor, level: Tensor, softness: float) -> Tensor:
    """Opacity in [0, 1] of a field where it rises above a level; `softness` is the width of an edge, in σ."""
    return torch.sigmoid((field - level) / softness)


def mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))
