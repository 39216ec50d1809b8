"""The L2 ball, with the 8-bit grid inside it (docs/decisions/0002-l2-on-the-eight-bit-grid.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.attacks.threats._grid import check_radius, from_levels, levels, per_row
from morgana.spec import part
from morgana.types import Params, Pixels

TINY = 1e-12
HALVINGS = 40  # of the interval that holds the largest scale


@part
class L2:
    """Images within Euclidean distance `epsilon` of the clean one, over all pixels and channels."""

    epsilon: float = 1.0  # pixel units

    def __post_init__(self) -> None:
        check_radius("L2", self.epsilon, 1000)

    def start(self, clean: Pixels) -> Params:
        """Uniform in the ball: a Gaussian direction and a radius ~ u^(1/n)."""
        noise = torch.randn(clean.shape)
        radius = torch.rand(len(clean)).pow(1 / noise[0].numel()) * self.epsilon
        noise = noise * per_row(radius / norms(noise), noise)
        return {"pixels": (clean + noise.to(clean)).clamp(0, 1)}

    def origin(self, clean: Pixels) -> Params:
        return {"pixels": clean}

    def render(self, clean: Pixels, params: Params) -> Pixels:
        return params["pixels"]

    def project(self, clean: Pixels, params: Params) -> Params:
        """Scale towards the clean image, then clamp to [0, 1], which only brings it nearer."""
        moved = params["pixels"] - clean
        factor = (self.epsilon / norms(moved)).clamp(max=1)
        return {"pixels": (clean + moved * per_row(factor, moved)).clamp(0, 1)}

    def steepest(self, grad: Params) -> Params:
        unit = grad["pixels"] * per_row(1 / norms(grad["pixels"]), grad["pixels"])
        return {"pixels": unit * unit[0].numel() ** 0.5}

    def step(self, params: Params, direction: Params, rate: float) -> Params:
        reach = rate * self.epsilon / direction["pixels"][0].numel() ** 0.5
        return {"pixels": params["pixels"] + reach * direction["pixels"]}

    def penalty(self, params: Params) -> Tensor:
        return params["pixels"].new_zeros(len(params["pixels"]))

    def finish(self, clean: Pixels, params: Params) -> Pixels:
        """The largest multiple of the perturbation that, rounded to grey levels, is still inside the ball.

        The rounded norm grows with the multiple, so bisection finds it; where the perturbation is below half
        a level everywhere, this spends the radius on the pixels that the search moved most.
        """
        centre, radius = levels(clean), 255 * self.epsilon
        moved = params["pixels"].detach().double() * 255 - centre
        largest = moved.abs().flatten(1).amax(1).clamp_min(TINY)
        low, high = torch.zeros_like(largest), 510 / largest
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            inside = distance(rounded(centre, moved, middle), centre) <= radius
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return from_levels(rounded(centre, moved, low))

    def excess(self, clean: Pixels, pixels: Pixels, params: Params) -> Tensor:
        return distance(levels(pixels), levels(clean)) / 255 - self.epsilon


def rounded(centre: Tensor, moved: Tensor, scale: Tensor) -> Tensor:
    return (centre + moved * per_row(scale, moved)).clamp(0, 255).round()


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).flatten(1).square().sum(1).sqrt()


def norms(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1).sqrt().clamp_min(TINY)
