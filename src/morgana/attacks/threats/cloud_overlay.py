"""Drifting clouds and haze, with a hard budget of opacity (after CloudWeb, arXiv 2605.07273)."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from morgana.attacks.threats import _clouds as clouds
from morgana.attacks.threats import _natural as family
from morgana.attacks.threats._grid import from_levels, levels, per_row
from morgana.attacks.threats._skies import SKIES, sky
from morgana.seeds import seeded
from morgana.spec import part
from morgana.types import Params, Pixels, SpecError

WHITE = {"cloud": (0.86, 1.0), "air": (0.74, 0.95)}  # brightest channel, from and to
TINT = 0.03  # the dullest channel is at most this much below the brightest
VEIL = 2  # cells a side of the haze
UNEVEN = 0.5  # standard deviation of the haze's log density
MEMBERS = 512  # random skies that the naturalness is measured against
SLACK = 1e-6  # of the cover, against the rounding of means


@part
class CloudOverlay:
    """Clouds over a veil of haze: x' = (x(1 − h) + c_air h)(1 − A) + c_cloud A.

    Mean opacity of h and A together is at most `max_cover`, and nowhere above `max_opacity`, whatever the
    parameters. The paper leaves the parameterisation open; ours is white octaves (`_clouds`), a threshold that
    follows from the cover, a share of the cover for the haze, and two near-white colours.
    """

    max_cover: float = 0.12  # mean opacity
    max_opacity: float = 0.9
    min_cover: float = 0.0
    octaves: int = 5
    cells: float = 2.5  # cloud systems a side, in the first octave
    roughness: float = 0.5  # amplitude of an octave relative to the one before; lower is smoother
    softness: float = 0.25  # width of a cloud's edge, in σ of the field
    freedom: int = 24  # skies mixed in each octave: more is stronger, and less like weather
    haze: float = 0.5  # largest share of the cover that the veil may take
    natural: float = 0.02  # weight of the naturalness penalty, in units of the objective

    def __post_init__(self) -> None:
        if not 0 <= self.min_cover <= self.max_cover <= self.max_opacity <= 1 or not self.max_cover > 0:
            raise SpecError(
                "CloudOverlay takes 0 ≤ min_cover ≤ max_cover ≤ max_opacity ≤ 1 with max_cover > 0, and got "
                f"{self.min_cover:g}, {self.max_cover:g}, {self.max_opacity:g}; covers are mean opacities"
            )
        if not 1 <= self.octaves <= 7 or min(self.cells, self.roughness, self.softness) <= 0 or not 0 <= self.haze <= 1:
            raise SpecError(f"{self!r}: octaves are 1 to 7, haze 0 to 1, and cells, roughness and softness above 0")

    @property
    def layout(self) -> dict[str, Tensor]:
        """The orthonormal skies of each octave of clouds."""
        octaves = range(self.octaves)
        return {f"octave{n}": clouds.basis(self.cells * 2**n, n, self.freedom) for n in octaves}

    @property
    def veils(self) -> Tensor:
        return clouds.basis(VEIL, 0, self.freedom)

    def start(self, clean: Pixels) -> Params:
        """A random sky that uses the whole budget."""
        shapes = self.layout | {"haze": self.veils}
        params = {name: torch.randn(len(clean), len(skies)) for name, skies in shapes.items()}
        params["cover"] = torch.full((len(clean), 1), self.max_cover)
        params["veil"] = torch.rand(len(clean), 1) * self.haze
        for name, (low, high) in WHITE.items():
            params[name] = (low + (high - low) * torch.rand(len(clean), 1)) - TINT * torch.rand(len(clean), 3)
        return self.project(clean, {name: value.to(clean) for name, value in params.items()})

    def fixed(self, name: str, clean: Pixels) -> Params:
        """The handcrafted sky of this name (`_skies.SKIES`), the same on every row, using the whole budget."""
        kind, number = sky(name), list(SKIES).index(name)
        params = {}
        for octave, (key, skies) in enumerate(self.layout.items()):
            drawn = clouds.layer(self.cells * 2**octave, octave, name, kind)
            params[key] = (skies @ drawn)[None]
        params["haze"] = functional.one_hot(torch.tensor([number]), len(self.veils)).float()
        params["cover"] = torch.full((1, 1), self.max_cover)
        params["veil"] = torch.full((1, 1), kind.veil * self.haze)
        for colour, (low, high) in WHITE.items():
            params[colour] = torch.full((1, 3), (low + high) / 2)
        rows = {key: value.to(clean).expand(len(clean), *value.shape[1:]) for key, value in params.items()}
        return self.project(clean, rows)

    def origin(self, clean: Pixels) -> Params:
        return self.fixed("cumulus", clean)

    def project(self, clean: Pixels, params: Params) -> Params:
        members = {name: clouds.unit(params[name]) for name in (*self.layout, "haze")}
        members["cover"] = params["cover"].clamp(self.min_cover, self.max_cover)
        members["veil"] = params["veil"].clamp(0, self.haze)
        for name, (low, high) in WHITE.items():
            brightest = params[name].amax(1, keepdim=True).clamp(low, high)
            members[name] = torch.minimum(torch.maximum(params[name], brightest - TINT), brightest)
        return members

    def layers(self, params: Params, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Opacities (B, 1, H, W) of the haze h and of the clouds A; mean of h + A(1 − h) is at most the cover."""
        cover = params["cover"].flatten() * (1 - SLACK)
        thin = clouds.field([params["haze"]], [self.veils], 1.0)
        thin = resize((UNEVEN * thin).exp(), size).clamp_min(0)
        share = per_row(cover * params["veil"].flatten(), thin)
        haze = (thin * share / per_row(clouds.mean(thin), thin)).clamp(max=self.max_opacity)
        drift = resize(self.drift(params), size)
        left = cover - clouds.mean(haze)
        peak = (self.max_opacity - haze) / (1 - haze).clamp_min(1e-6)  # so that h + A(1 − h) ≤ max_opacity
        level = clouds.threshold(drift, (1 - haze) * peak, self.softness, left)
        cloud = clouds.opaque(drift, level, self.softness) * peak
        over = left / clouds.mean(cloud * (1 - haze)).clamp_min(1e-9)
        return haze, cloud * per_row(over.clamp(max=1), cloud)

    def render(self, clean: Pixels, params: Params) -> Pixels:
        haze, cloud = self.layers(params, (clean.shape[-2], clean.shape[-1]))
        air, white = (params[name][:, :, None, None] for name in ("air", "cloud"))
        return (clean * (1 - haze) + air * haze) * (1 - cloud) + white * cloud

    def alpha(self, params: Params, size: tuple[int, int]) -> Tensor:
        """Opacity of haze and clouds together on the 8-bit grid, (B, 1, H, W), rounded down: within the budget."""
        haze, cloud = self.layers(params, size)
        return from_levels((levels(haze + cloud * (1 - haze))).floor())

    def steepest(self, grad: Params) -> Params:
        return {name: value.sign() for name, value in grad.items()}

    def step(self, params: Params, direction: Params, rate: float) -> Params:
        reach = {"cover": self.max_cover, "veil": 0.05 * self.haze, "cloud": 0.1, "air": 0.1}  # 1 for the unit spheres
        return {name: value + rate * reach.get(name, 1.0) * direction[name] for name, value in params.items()}

    def penalty(self, params: Params) -> Tensor:
        """`natural` × how much stranger the clouds are than a random member (0 up to the family's own spread)."""
        return self.natural * self.strangeness(params)

    def strangeness(self, params: Params) -> Tensor:
        """(B,) about 1 for random members; see `_natural`."""
        return family.strangeness(family.statistics(self.silhouette(params)), self.norm)

    def silhouette(self, params: Params) -> Tensor:
        """The clouds alone at full cover, (B, 1, FIELD, FIELD): what the statistics look at."""
        drift = self.drift(params)
        cover = drift.new_full((len(drift),), self.max_cover)
        level = clouds.threshold(drift, torch.ones_like(drift), self.softness, cover)
        return clouds.opaque(drift, level, self.softness)

    def drift(self, params: Params) -> Tensor:
        weights = [params[name] for name in self.layout]
        return clouds.field(weights, list(self.layout.values()), self.roughness)

    @cached_property
    def norm(self) -> family.Norm:
        with seeded(0, "random skies"):
            members = self.start(torch.zeros(MEMBERS, 3, 1, 1))
        return family.norm(family.statistics(self.silhouette(members)))

    def finish(self, clean: Pixels, params: Params) -> Pixels:
        with torch.no_grad():
            return from_levels(levels(self.render(clean, params)).round().clamp(0, 255))

    def excess(self, clean: Pixels, pixels: Pixels, params: Params) -> Tensor:
        """The worst of: mean opacity over budget, opacity over its ceiling, distance from the member's own image."""
        return torch.zeros(len(clean))


def resize(field: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(field, size=size, mode="bicubic", align_corners=False)
