"""How natural the images of a run look: its saved images and opacity maps against the clean tiles and real clouds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from morgana.corpus.clouds import maps_for, real_clouds
from morgana.corpus.images import cover_path, load
from morgana.eval.naturalness import FIELD, ssim, tell_apart
from morgana.eval.statistics import Estimate, estimate
from morgana.seeds import rng
from morgana.types import SpecError, StoreError

SIZE = (150, 150)  # pixels at which real maps are cut


@dataclass(frozen=True, eq=False)
class Look:
    """The images of one condition: SSIM to the clean tiles, mean opacity, and the maps themselves, if there are any."""

    ssim: Estimate
    cover: Estimate | None
    groups: tuple[str, ...]  # one a map; maps of a group are not independent
    maps: Tensor  # (N, 1, FIELD, FIELD)


def look(images: Mapping[str, tuple[Path, Path]]) -> Look:
    """Of sample ids with their clean image and the image that was judged; `NAME.cover.png` beside it is its opacity."""
    if not images:
        raise SpecError("no images to look at; give at least one clean image with the one that was judged")
    likeness, covers, maps = [], [], []
    for clean, judged in images.values():
        likeness.append(float(ssim(load(clean), load(judged))))
        path = cover_path(judged)
        if path.is_file():
            alpha = load(path)[:, :1]
            covers.append(float(alpha.mean()))
            maps.append(shrunk(alpha))
    whole = len(maps) == len(images)
    close = estimate(likeness, name="ssim")
    if close is None:
        raise StoreError("no image could be compared")
    return Look(
        ssim=close,
        cover=estimate(covers, name="cover") if whole else None,
        groups=tuple(images) if whole else (),
        maps=torch.cat(maps) if whole else torch.zeros(0, 1, FIELD, FIELD),
    )


def shrunk(alpha: Tensor) -> Tensor:
    return functional.interpolate(alpha, (FIELD, FIELD), mode="bilinear", antialias=True)


def real_maps(folder: Path, count: int, cover: float, seed: int = 0) -> tuple[Tensor, tuple[str, ...]]:
    """About `count` views of all real maps at this mean cover, on the 8-bit grid, and the map that each is cut from.

    Maps that cannot give as much cover are left out.
    """
    maps, made, groups = maps_for(folder, "all"), [], []
    for number in range(len(maps)):
        draw = rng(seed, "real maps", number)
        for _ in range(-(-count // len(maps))):
            try:
                alpha = real_clouds(maps[number : number + 1], draw, SIZE, cover)
            except SpecError:
                break
            made.append(shrunk((alpha * 255).floor() / 255))
            groups.append(f"map {number}")
    if not made:
        raise SpecError(f"none of the {len(maps)} maps of {folder} reaches a mean cover of {cover:g}")
    return torch.cat(made), tuple(groups)


def told_apart(one: Look, other: Look, seed: int = 0) -> Estimate | None:
    """AUC between the opacity maps of two conditions; None where one has no maps or there are too few."""
    return separated((one.maps, one.groups), (other.maps, other.groups), seed)


def separated(
    one: tuple[Tensor, Sequence[str]], other: tuple[Tensor, Sequence[str]], seed: int = 0, least: int = 20
) -> Estimate | None:
    """`tell_apart`, or None with fewer than `least` maps of a kind."""
    if min(len(one[0]), len(other[0])) < least:
        return None
    return tell_apart(one[0], other[0], (one[1], other[1]), seed=seed)
