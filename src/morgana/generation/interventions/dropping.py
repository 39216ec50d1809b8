"""Heads and layers without the image (arXiv 2410.06169: MLLMs need fewer efforts to see)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class DropHeads:
    """Hides the image, from every text row behind it, in the `share` of heads that give it least attention.

    After "Treat Visual Tokens as Text?", which prunes inactive visual heads from the model. Here they are chosen for
    every row, half of them by default: our choice, which needs no samples.
    """

    share: float = 0.5
    first: Depth = 0
    stop: Depth | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise SpecError(f"DropHeads' share is {self.share}; it must lie in [0, 1]")

    @property
    def needs(self) -> Needs:
        return Needs(rows=after_image, layers=Layers(self.first, self.stop), at="shares", parts=image_and_rest)

    def edit(self, shares: Tensor, view: View) -> Tensor:
        dropped = int(self.share * shares.shape[1])
        if not dropped or not view.layout.visual.index.shape[-1]:
            return shares
        seen, rest = shares.chunk(2, -1)
        least = seen.detach().argsort(dim=1, stable=True).argsort(1) < dropped
        return torch.where(least, torch.cat([torch.zeros_like(seen), seen + rest], -1), shares)


def image_and_rest(view: View) -> Tensor:
    """(B, 1, 2, N) which tokens so far are visual, and which are not."""
    seen = view.layout.visual.among(view.keys)
    return torch.cat([seen, ~seen], 2)


@part
class DropLayers:
    """From layer `first` on, text behind the image no longer sees it.

    After "Treat Visual Tokens as Text?", layers without visual computation; what it saves is had by pruning, this shows
    what it costs. The depth is our choice.
    """

    first: Depth = 0.5
    stop: Depth | None = None

    @property
    def needs(self) -> Needs:
        return Needs(rows=after_image, layers=Layers(self.first, self.stop), at="mask", steady=True)

    def edit(self, mask: Tensor, view: View) -> Tensor:
        visual = view.layout.visual
        return visual.add(mask, mask.new_tensor(-math.inf)) if visual.index.shape[-1] else mask
