"""Attention debiasing (arXiv 2508.17807): later visual tokens and padded ones get less."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation._packs import square
from morgana.generation.layout import Layout
from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class DebiasedAttention:
    """Attention to visual tokens times w_j, from 1 at the first to `last` at the last; padded ones times `padding`.

    The paper corrects pruning scores by a decreasing curve fitted for each method (FastV: 1 to 0.36 over 576 tokens);
    we apply it to the attention itself, with an exponential between the same ends. Patches count as padded as in the
    paper, when more than half of them is: `aspect` is the width / height of an image that was padded to a square, None
    if it was not; SpecError where the model sees the image in several views.
    """

    last: float = 0.36
    aspect: float | None = None
    padding: float = 0.0
    first: Depth = 0
    stop: Depth | None = None

    def __post_init__(self) -> None:
        if not self.last > 0 or self.padding < 0 or (self.aspect is not None and not self.aspect > 0):
            raise SpecError(f"{self!r}: wanted last > 0, padding >= 0 and an aspect > 0")

    @property
    def needs(self) -> Needs:
        return Needs(rows=after_image, layers=Layers(self.first, self.stop), at="mask", steady=True)

    def edit(self, mask: Tensor, view: View) -> Tensor:
        visual = view.layout.visual
        if not visual.index.shape[-1] or (self.last == 1 and self.aspect is None):
            return mask
        place, last = view.layout.patches[:, None, None], (view.layout.tokens - 1).clamp(min=1)
        weight = math.log(self.last) * place / last[:, None, None, None]
        if self.aspect is not None:
            square(view.model, view.layout.spans, "leave out aspect")
            lost = math.log(self.padding) if self.padding else -math.inf
            weight = torch.where(padded(view.layout, self.aspect)[:, None, None], weight + lost, weight)
        return visual.add(mask, weight)


def padded(layout: Layout, aspect: float) -> Tensor:
    """(B, V) the patches of a square of which more than half is padding."""
    counts, place = layout.tokens[:, None], layout.patches
    side = counts.float().sqrt().round()
    if not torch.equal(side.square(), counts.float()):
        raise SpecError(f"images of {counts.flatten().tolist()} tokens are no squares; leave out aspect")
    along = torch.div(place, side.clamp(min=1), rounding_mode="floor") if aspect > 1 else place % side.clamp(min=1)
    margin = side * (1 - min(aspect, 1 / aspect)) / 2
    inside = (torch.minimum(along + 1, side - margin) - torch.maximum(along, margin)).clamp(min=0)
    return inside < 0.5
