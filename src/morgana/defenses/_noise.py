"""Gaussian noise in pixel units, and the range of its parameters."""

from __future__ import annotations

import torch

from morgana.types import Pixels, SpecError


def noisy(pixels: Pixels, sigma: float, copies: int, source: torch.Generator | None = None) -> Pixels:
    """`copies` noisy versions of each image, (B, copies, 3, H, W) in [0, 1]; differentiable in the pixels.

    Without a source the noise comes from the current seeded scope, fresh at each call; a source is a
    generator on the CPU, so that the noise is the same on every device.
    """
    shape = (len(pixels), copies, *pixels.shape[1:])
    noise = torch.randn(shape, generator=source, device="cpu" if source else pixels.device)
    return (pixels.unsqueeze(1) + sigma * noise.to(pixels)).clamp(0, 1)


def check_noise(sigma: float, copies: int, part: object) -> None:
    """SpecError unless sigma lies in [0, 1] and copies is a whole number of at least 0."""
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 <= sigma <= 1:
        raise SpecError(f"sigma = {sigma!r} in {part!r}: wanted pixel units from 0 to 1; 8 grey levels are 8/255")
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 0:
        raise SpecError(f"n = {copies!r} in {part!r}: wanted a whole number of noisy copies, 0 or more")
