"""How unlike a random sky a sky is: a few statistics of its opacity, measured against the family's own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LAGS = (1, 2, 4, 8, 16)  # points of the field
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)  # of opacity


class Norm(NamedTuple):
    """Mean of the statistics over random members, and the matrix that whitens them."""

    mean: Tensor  # (S,)
    whiten: Tensor  # (S, S)


def statistics(opacity: Tensor) -> Tensor:
    """(B, S) of an opacity map (B, 1, F, F): its histogram, and log moments of its differences at several lags."""
    found = [torch.sigmoid((opacity - level) / 0.05).mean((1, 2, 3)) for level in LEVELS]
    for lag in LAGS:
        for axis in (2, 3):
            size = opacity.shape[axis] - 2 * lag
            before, here, after = (opacity.narrow(axis, start, size) for start in (0, lag, 2 * lag))
            slope, bend = (here - before).abs(), (before - 2 * here + after).abs()
            found += [slope.mean((1, 2, 3)), slope.square().mean((1, 2, 3)), bend.square().mean((1, 2, 3))]
    return torch.stack(found, 1).clamp_min(1e-9).log()


def norm(members: Tensor) -> Norm:
    """The family's norm from the statistics of random members, (M, S) with M well above S."""
    values = members.double()
    centre = values.mean(0)
    covariance = (values - centre).T @ (values - centre) / (len(values) - 1)
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(centre), dtype=torch.float64)
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance + ridge))
    return Norm(centre.float(), whiten.float())


def strangeness(statistics: Tensor, norm: Norm) -> Tensor:
    """(B,) squared Mahalanobis distance from the family per statistic: about 1 for its random members."""
    away = (statistics - norm.mean.to(statistics)) @ norm.whiten.to(statistics).T
    return away.square().mean(1)
