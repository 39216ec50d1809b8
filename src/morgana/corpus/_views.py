"""Random views of images and maps: turned, mirrored, shifted and zoomed in one resampling."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def view(
    images: Tensor, draw: np.random.Generator, size: tuple[int, int], zoom: tuple[float, float], tilt: float = 0.0
) -> Tensor:
    """One view of each image (B, C, H, W) as (B, C, *size), bilinear, mirrored at the border.

    A view shows `zoom` of the image's side, in any of the eight orientations, up to `tilt` radians askew, and where it
    shows less than all, anywhere inside the image.
    """
    count = len(images)
    share = draw.uniform(*zoom, count)
    angle = draw.integers(0, 4, count) * (math.pi / 2) + draw.uniform(-tilt, tilt, count)
    mirror = draw.choice((-1.0, 1.0), count)
    free = np.maximum(1 - share, 0)
    cos, sin = share * np.cos(angle), share * np.sin(angle)
    x, y = free * draw.uniform(-1, 1, count), free * draw.uniform(-1, 1, count)
    matrix = np.stack([np.stack([cos * mirror, -sin, x], 1), np.stack([sin * mirror, cos, y], 1)], 1)
    theta = torch.from_numpy(matrix).to(images)
    grid = functional.affine_grid(theta, [count, images.shape[1], *size], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
