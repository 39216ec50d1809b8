"""Pixels and the 256 grey levels that a file can hold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.types import Pixels, SpecError

NEAR = 1e-3  # of a grey level: float32 pixels read from a file are this close to their level


def levels(pixels: Pixels) -> Tensor:
    """Grey levels as float64, exact integers for pixels that came from an 8-bit file."""
    scaled = pixels.detach().double() * 255
    whole = scaled.round()
    return torch.where((scaled - whole).abs() < NEAR, whole, scaled)


def from_levels(grey: Tensor) -> Pixels:
    """float32 pixels, with the very bits that reading an 8-bit file gives."""
    return grey.float() / 255


def check_radius(name: str, epsilon: object, largest: float) -> None:
    """Refuse a radius that is not a number from 0 to `largest`, guessing at a bare count of grey levels."""
    number = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    if not isinstance(epsilon, (int, float)) or not number or not math.isfinite(epsilon) or epsilon < 0:
        raise SpecError(f"{name} takes a radius of 0 or more in pixel units, and got {epsilon!r}; say {name}(8/255)")
    if epsilon > largest:
        raise SpecError(
            f"{name} takes epsilon in pixel units, 0 to {largest:g}, and got {epsilon:g}; "
            f"{epsilon:g} grey levels are written {name}({epsilon:g}/255)"
        )


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) to (B, 1, …) so that it multiplies `like` row by row."""
    return values.view(-1, *([1] * (like.dim() - 1)))
