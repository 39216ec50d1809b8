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
DRIFT = {"veil": 0.02, "soft": 0.02, "dense": 0.02, "cover": 0.02, "cloud": 0.02, "air": 0.02}  # at rate 1
MEMBERS = 512  # random skies that naturalness is measured against
SLACK = 1e-6  # of the cover, against the rounding of means


@part
class CloudOverlay:
    """Clouds A over a veil of haze h: x' = (x(1 − h) + c_air h)(1 − A) + c_cloud A.

    Mean opacity, of h + A(1 − h), is at most `max_cover` and nowhere above `max_opacity`, whatever the parameters:
    the weights of each octave's skies (`_clouds`), the cover, its share that is haze, the softness and density of
    the clouds, and two near-white colours. The paper leaves the parameterisation open; this one is ours.
    """

    max_cover: float = 0.12  # mean opacity
    max_opacity: float = 0.9
    min_cover: float = 0.0
    octaves: int = 5
    cells: float = 2.5  # cloud systems a side, in the first octave
    roughness: float = 0.5  # amplitude of an octave relative to the one before; lower is smoother
    softness: tuple[float, float] = (0.1, 0.3)  # width of a cloud's edge, from and to, in σ of the field
    density: tuple[float, float] = (1.0, 5.0)  # optical depth per σ, from thin to thick clouds
    freedom: int = 24  # skies mixed in each octave: more is stronger, and less like weather
    haze: float = 0.5  # largest share of the cover that the veil may take
    natural: float = 0.1  # weight of the naturalness penalty, in units of the objective

    def __post_init__(self) -> None:
        if not 0 <= self.min_cover <= self.max_cover <= self.max_opacity <= 1 or not self.max_cover > 0:
            raise SpecError(
                "CloudOverlay takes 0 ≤ min_cover ≤ max_cover ≤ max_opacity ≤ 1 with max_cover > 0, and got "
                f"{self.min_cover}, {self.max_cover}, {self.max_opacity}; they are opacities, not per cent"
            )
        positive = min(self.cells, self.roughness) > 0 and min(self.freedom, self.natural) >= 0
        if not (positive and ordered(self.softness) and ordered(self.density) and 1 <= self.octaves <= 6):
            raise SpecError(
                "CloudOverlay takes 1 to 6 octaves, softness and density as (from, to) above 0, cells and roughness "
                f"above 0, freedom and natural of 0 or more, and got {self!r}"
            )
        if not 0 <= self.haze <= 1:
            raise SpecError(f"CloudOverlay takes haze from 0 to 1, a share of the cover, and got {self.haze!r}")

    @property
    def sizes(self) -> dict[str, int]:
        """How many skies each octave mixes, and the haze."""
        sizes = {f"octave{n}": len(clouds.basis(self.cells, n, self.freedom)) for n in range(self.octaves)}
        return sizes | {"haze": len(clouds.basis(VEIL, 0, self.freedom))}

    def start(self, clean: Pixels) -> Params:
        """A random sky that uses the whole cover."""
        params = {name: torch.randn(len(clean), size) for name, size in self.sizes.items()}
        params["cover"] = torch.full((len(clean), 1), self.max_cover)
        params["veil"] = torch.rand(len(clean), 1) * self.haze
        params["soft"], params["dense"] = torch.rand(len(clean), 1), torch.rand(len(clean), 1)
        for name, (low, high) in WHITE.items():
            params[name] = low + (high - low) * torch.rand(len(clean), 1) - TINT * torch.rand(len(clean), 3)
        return self.project(clean, {name: value.to(clean) for name, value in params.items()})

    def fixed(self, name: str, clean: Pixels) -> Params:
        """The handcrafted sky of this name (`_skies.SKIES`), the same on every row, using the whole cover."""
        kind, number = sky(name), list(SKIES).index(name)
        params = {}
        for octave in range(self.octaves):
            skies = clouds.basis(self.cells, octave, self.freedom)
            params[f"octave{octave}"] = (skies @ clouds.layer(self.cells, octave, name, kind))[None]
        params["haze"] = functional.one_hot(torch.tensor([number]), self.sizes["haze"]).float()
        params["cover"] = torch.full((1, 1), self.max_cover)
        params["veil"] = torch.full((1, 1), kind.veil * self.haze)
        params["soft"], params["dense"] = torch.full((1, 1), kind.soft), torch.full((1, 1), kind.dense)
        for colour, (low, high) in WHITE.items():
            params[colour] = torch.full((1, 3), (low + high) / 2)
        return self.project(clean, {key: value.to(clean).repeat(len(clean), 1) for key, value in params.items()})

    def origin(self, clean: Pixels) -> Params:
        return self.fixed("cumulus", clean)

    def project(self, clean: Pixels, params: Params) -> Params:
        members = {name: clouds.unit(params[name]) for name in self.sizes}
        members["cover"] = params["cover"].clamp(self.min_cover, self.max_cover)
        members["veil"] = params["veil"].clamp(0, self.haze)
        members |= {name: params[name].clamp(0, 1) for name in ("soft", "dense")}
        for name, (low, high) in WHITE.items():
            brightest = params[name].amax(1, keepdim=True).clamp(low, high)
            members[name] = torch.minimum(torch.maximum(params[name], brightest - TINT), brightest)
        return members

    def steepest(self, grad: Params) -> Params:
        """Each block of parameters by its own length: a sky's weights turn together, as on their sphere."""
        return {name: clouds.unit(value) * value.shape[1] ** 0.5 for name, value in grad.items()}

    def step(self, params: Params, direction: Params, rate: float) -> Params:
        reach = {name: size**-0.5 for name, size in self.sizes.items()} | DRIFT
        return {name: value + rate * reach[name] * direction[name] for name, value in params.items()}

    def drift(self, params: Params) -> Tensor:
        """The field whose heights are the clouds, (B, 1, FIELD, FIELD)."""
        weights = [params[f"octave{octave}"] for octave in range(self.octaves)]
        skies = clouds.bases(self.cells, self.octaves, self.freedom, weights[0].device)
        return clouds.field(weights, skies, self.roughness)

    def layers(self, params: Params, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Opacities (B, 1, H, W) of the haze h and of the clouds A; the mean of h + A(1 − h) is the cover."""
        cover = params["cover"].flatten() * (1 - SLACK)
        skies = clouds.bases(VEIL, 1, self.freedom, params["haze"].device)
        density = resize((UNEVEN * clouds.field([params["haze"]], skies, 1.0)).exp(), size).clamp_min(0)
        share = cover * params["veil"].flatten() / clouds.mean(density)
        haze = (density * per_row(share, density)).clamp(max=self.max_opacity)
        room = self.max_opacity - haze  # the most that A(1 − h) may be
        left = cover - clouds.mean(haze)
        height = resize(self.drift(params), size)
        air = clouds.Air(between(self.softness, params["soft"]), between(self.density, params["dense"]))
        cloud = clouds.opaque(height, clouds.threshold(height, room, air, left), air)
        over = left / clouds.mean(cloud * room).clamp_min(1e-9)
        return haze, cloud * per_row(over.clamp(max=1), cloud) * room / (1 - haze).clamp_min(1e-6)

    def render(self, clean: Pixels, params: Params) -> Pixels:
        return blend(clean, params, *self.layers(params, (clean.shape[-2], clean.shape[-1])))

    def alpha(self, params: Params, size: tuple[int, int]) -> Tensor:
        """Opacity of haze and clouds together on the 8-bit grid, (B, 1, H, W), rounded down: within the budget."""
        haze, cloud = self.layers(params, size)
        return from_levels(levels(haze + cloud * (1 - haze)).floor())

    def penalty(self, params: Params) -> Tensor:
        if not self.natural:
            return params["cover"].new_zeros(len(params["cover"]))
        return self.natural * self.strangeness(params)

    def strangeness(self, params: Params) -> Tensor:
        """How unlike a random member's the clouds are, (B,); about 1 for random members (`_natural`)."""
        return family.strangeness(family.statistics(self.drift(params)), self.norm)

    @cached_property
    def norm(self) -> family.Norm:
        with seeded(0, "random skies"), torch.no_grad():
            members = self.start(torch.zeros(MEMBERS, 3, 1, 1))
            return family.norm(family.statistics(self.drift(members)))

    def finish(self, clean: Pixels, params: Params) -> Pixels:
        with torch.no_grad():
            return from_levels(levels(self.render(clean, params)).round().clamp(0, 255))

    def excess(self, clean: Pixels, pixels: Pixels, params: Params) -> Tensor:
        """The worst of: mean opacity over budget, opacity over its ceiling, pixels off the member's own image."""
        with torch.no_grad():
            member = self.project(clean, params)
            haze, cloud = self.layers(member, (clean.shape[-2], clean.shape[-1]))
            image = blend(clean, member, haze, cloud).double()
            haze, cloud = haze.double(), cloud.double()
            opacity = haze + cloud * (1 - haze)
            off = (levels(pixels) / 255 - image).abs().flatten(1).amax(1) - 0.5 / 255 - 1e-5
            over = clouds.mean(opacity) - self.max_cover
            return torch.stack([off, over, opacity.flatten(1).amax(1) - self.max_opacity - SLACK]).amax(0)


def blend(clean: Pixels, params: Params, haze: Tensor, cloud: Tensor) -> Pixels:
    """The image behind haze and clouds."""
    air, white = (params[name][:, :, None, None] for name in ("air", "cloud"))
    return (clean * (1 - haze) + air * haze) * (1 - cloud) + white * cloud


def resize(field: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(field, size=size, mode="bicubic", align_corners=False)


def ordered(bounds: object) -> bool:
    return isinstance(bounds, tuple) and len(bounds) == 2 and 0 < bounds[0] <= bounds[1]


def between(bounds: tuple[float, float], place: Tensor) -> Tensor:
    """(B, 1, 1, 1) from `bounds[0]` at 0 to `bounds[1]` at 1, in equal ratios."""
    return (bounds[0] * (bounds[1] / bounds[0]) ** place)[:, :, None, None]
