"""How unlike a random sky a sky is: areas and outlines of the field at several heights, against the family's own.

For Gaussian fields these Minkowski functionals follow from the spectrum, so what departs from them is what an
optimiser has drawn: plateaus, walls, figures.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HEIGHTS = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # σ of the field
LAGS = (1, 4)  # points of the field: fine and coarse outlines
EDGE = 0.15  # σ over which a height is smoothed, so that counting is differentiable
LEAST = 1e-3  # of the field, below which areas are not told apart


class Norm(NamedTuple):
    """Mean and standard deviation of each statistic over random members, (S,)."""

    mean: Tensor
    deviation: Tensor


def statistics(field: Tensor) -> Tensor:
    """(B, S) logarithms of the area above each height and of its outline, for fields (B, 1, F, F)."""
    found = []
    for height in HEIGHTS:
        above = torch.sigmoid((field - height) / EDGE)
        found.append(above.mean((1, 2, 3)))
        for lag in LAGS:
            down = (above[:, :, lag:] - above[:, :, :-lag]).abs().mean((1, 2, 3))
            along = (above[..., lag:] - above[..., :-lag]).abs().mean((1, 2, 3))
            found.append(down + along)
    return (torch.stack(found, 1) + LEAST).log()


def norm(members: Tensor) -> Norm:
    """The family's norm from the statistics of random members, (M, S)."""
    return Norm(members.mean(0), members.std(0))


def strangeness(statistics: Tensor, norm: Norm) -> Tensor:
    """(B,) mean squared deviation from the family, in its own standard deviations: 1 for random members."""
    away = (statistics - norm.mean.to(statistics)) / norm.deviation.to(statistics)
    return away.square().mean(1)
