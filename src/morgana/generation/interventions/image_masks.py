"""Masks for the rows of the image: two that models are trained with, one that needs no training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation._packs import square
from morgana.generation.layout import Columns, Layout
from morgana.generation.needs import Depth, Layers, Needs, image
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class ModalityMutual:
    """Lets image rows see the question behind them (MMA, of AKI; ICML 2026, arXiv 2503.02597).

    The mask of AKI: causal, plus image rows x question columns; never the answer's. It helps models that were trained
    with it; others it disturbs. `documents` opens the retrieved text too, which the paper does not have.
    """

    documents: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(rows=image, at="mask", steady=True)

    def edit(self, mask: Tensor, view: View) -> Tensor:
        opened = (view.layout.question, view.layout.documents) if self.documents else (view.layout.question,)
        for columns in opened:
            if columns.index.shape[-1]:
                seen = columns.take(mask)
                mask = columns.put(mask, torch.where(own(view, mask.shape[-1]), 0.0, seen))
        return mask


@part
class NAAViT:
    """No attention among visual tokens (NAAViT, of SAISA; arXiv 2502.02458): text before it, and itself.

    It helps models that were trained with it; others it disturbs. That a token keeps sight of itself is our choice:
    where no text stands before the image, it would see nothing.
    """

    first: Depth = 0
    stop: Depth | None = None

    @property
    def needs(self) -> Needs:
        return Needs(rows=image, layers=Layers(self.first, self.stop), at="mask", steady=True)

    def edit(self, mask: Tensor, view: View) -> Tensor:
        visual = view.layout.visual
        if not visual.index.shape[-1]:
            return mask
        other = visual.index[:, None, None] != view.rows[:, None, :, None]
        return visual.put(mask, visual.take(mask).masked_fill(own(view, mask.shape[-1]) & other, -math.inf))


@part
class NeighbourAware:
    """Visual tokens see, of the image, only tokens at most `radius` rows and columns away (arXiv 2410.06169).

    Neighbour-aware visual attention of "Treat Visual Tokens as Text? But Your MLLM Only Needs Fewer Efforts to See";
    that the neighbourhood is a square, and its radius, are our choice. `width` is the tokens in a row of the image;
    None takes the square root of each image's count; SpecError where the model sees it in several views.
    """

    radius: int = 7
    width: int | None = None
    first: Depth = 0
    stop: Depth | None = None

    def __post_init__(self) -> None:
        if self.radius < 0 or (self.width is not None and self.width < 1):
            raise SpecError(f"{self!r}: wanted a radius of at least 0 and a width of at least 1")

    @property
    def needs(self) -> Needs:
        return Needs(rows=image, layers=Layers(self.first, self.stop), at="mask", steady=True)

    def edit(self, mask: Tensor, view: View) -> Tensor:
        count, visual = mask.shape[-1], view.layout.visual
        if not visual.index.shape[-1]:
            return mask
        if self.width is None:
            square(view.model, view.layout.spans, "say NeighbourAware(width=…) if their rows are of one length")
        rows, away = view.rows.clamp(max=count - 1), mask.new_zeros(())
        for place in self.grid(view.layout):  # (B, V)
            here = spread(place, visual, count).gather(-1, rows)
            away = torch.maximum(away, (place.to(mask.dtype)[:, None] - here[..., None]).abs_())
        far = own(view, count) & (away > self.radius)[:, None]
        return visual.put(mask, visual.take(mask).masked_fill(far, -math.inf))

    def grid(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """(B, V) column and row of every visual token, where it stood before pruners took others out."""
        counts, place = layout.tokens, layout.patches
        width = counts.float().sqrt().round().long() if self.width is None else torch.full_like(counts, self.width)
        if self.width is None and not torch.equal(width * width, counts):
            raise SpecError(f"images of {counts.tolist()} tokens are no squares; say NeighbourAware(width=…)")
        width = width.clamp(min=1)[:, None]
        return place % width, place // width


def own(view: View, count: int) -> Tensor:
    """(B, 1, R, 1) which of the rows are visual tokens: other text may stand between the parts of an image."""
    seen = view.layout.visual.among(count)[:, 0, 0]
    return seen.gather(1, view.rows.clamp(max=count - 1))[:, None, :, None]


def spread(values: Tensor, columns: Columns, count: int) -> Tensor:
    """(B, N) `values` (B, K) in these columns, 0 elsewhere."""
    return columns.spread(values[:, None, None].float(), count)[:, 0, 0]
