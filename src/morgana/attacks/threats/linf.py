"""The L∞ ball: every channel of every pixel may move by epsilon."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.attacks.threats._grid import check_radius, from_levels, levels
from morgana.spec import part
from morgana.types import Params, Pixels


@part
class Linf:
    """Images within `epsilon` of the clean one in every channel; 8/255 is 8 grey levels.

    The parameters are the pixels themselves, and step, projection and clamp come in the order of torchattacks
    and foolbox, so that iterates agree with theirs bit for bit.
    """

    epsilon: float = 8 / 255  # pixel units

    def __post_init__(self) -> None:
        check_radius("Linf", self.epsilon, 1)

    def start(self, clean: Pixels) -> Params:
        noise = torch.empty(clean.shape).uniform_(-self.epsilon, self.epsilon).to(clean)
        return {"pixels": (clean + noise).clamp(0, 1)}

    def origin(self, clean: Pixels) -> Params:
        return {"pixels": clean}

    def render(self, clean: Pixels, params: Params) -> Pixels:
        return params["pixels"]

    def project(self, clean: Pixels, params: Params) -> Params:
        moved = (params["pixels"] - clean).clamp(-self.epsilon, self.epsilon)
        return {"pixels": (clean + moved).clamp(0, 1)}

    def steepest(self, grad: Params) -> Params:
        return {"pixels": grad["pixels"].sign()}

    def step(self, params: Params, direction: Params, rate: float) -> Params:
        return {"pixels": params["pixels"] + rate * self.epsilon * direction["pixels"]}

    def penalty(self, params: Params) -> Tensor:
        return params["pixels"].new_zeros(len(params["pixels"]))

    def finish(self, clean: Pixels, params: Params) -> Pixels:
        centre, radius = levels(clean), 255 * self.epsilon + 1e-9
        low, high = (centre - radius).ceil(), (centre + radius).floor()
        nearest = levels(params["pixels"]).round()
        return from_levels(torch.minimum(torch.maximum(nearest, low), high).clamp(0, 255))

    def excess(self, clean: Pixels, pixels: Pixels, params: Params) -> Tensor:
        moved = (levels(pixels) - levels(clean)).abs().flatten(1).amax(1)
        return moved / 255 - self.epsilon
