"""CMAI, cross-modal attention inhibition (arXiv 2411.15453): text looks at the image through what text refers to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class CMAI:
    """Hides from each text row the `quantile` of visual tokens on which it is least focused.

    Focus F = A_tt A_ti: attention of text to the image, gathered through attention of text to text (rows of A_tt sum to
    one over the text behind the image). Thresholds and layers are not published as far as we could find: a quantile of
    each row, at all layers, means over heads, and the same tokens hidden for all heads.
    """

    quantile: float = 0.5
    first: Depth = 0
    stop: Depth | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.quantile < 1:
            raise SpecError(f"CMAI's quantile is {self.quantile}; it must lie in [0, 1)")

    @property
    def needs(self) -> Needs:
        return Needs(rows=after_image, layers=Layers(self.first, self.stop), at="weights")

    def edit(self, weights: Tensor, view: View) -> Tensor:
        visual = view.layout.visual
        if self.quantile == 0 or not visual.index.shape[-1]:
            return weights
        count = (self.quantile * visual.valid.sum(-1)).floor().long()[:, None, None]
        most = int(count.max())
        focus = self.focus(weights.detach(), view).masked_fill(~visual.valid[:, None], math.inf)
        least = focus.topk(most, largest=False, sorted=not visual.full).indices
        left = torch.where(torch.arange(most, device=count.device) < count, 0.0, 1.0).to(weights.dtype)
        shown = torch.ones_like(focus).scatter_(-1, least, left.expand(least.shape))[:, None]
        made = weights * visual.put(weights.new_ones(len(weights), 1, *weights.shape[2:]), shown)  # alike for all heads
        total = torch.where(count[:, None] > 0, made.sum(-1, keepdim=True), 1.0)
        return made / total if made.requires_grad else made.div_(total)

    def focus(self, weights: Tensor, view: View) -> Tensor:
        """(B, R, V) for these rows; what earlier rows of the layer attended to is remembered."""
        weight, visual = weights.mean(1), view.layout.visual
        seen = visual.take(weight[:, None])[:, 0].masked_fill(~visual.valid[:, None], 0)
        rows = view.rows.masked_fill(~view.mine, -1)
        if view.layer in view.memory:
            before, gazes = view.memory[view.layer]
            known, gazes = torch.cat([before, rows], 1), torch.cat([gazes, seen], 1)
        else:
            known, gazes = rows, seen
            if not view.cached:  # nobody comes back to the layers before
                view.memory.clear()
        view.memory[view.layer] = known, gazes
        through = weight.gather(-1, known.clamp(min=0)[:, None].expand(-1, weight.shape[1], -1))
        through = through * (known >= 0)[:, None]
        return through @ gazes / through.sum(-1, keepdim=True).clamp(min=1e-12)
