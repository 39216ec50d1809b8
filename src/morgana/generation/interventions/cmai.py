"""CMAI, cross-modal attention inhibition (arXiv 2411.15453): text looks at the image through what text refers to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.selecting import smallest
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class CMAI:
    """Hides from each text row the `quantile` of visual tokens on which it is least focused.

    Focus F = A_tt A_ti: attention of text to the image, gathered through attention of text to text (rows of A_tt sum to
    one over the text behind the image). Thresholds and layers are not published as far as we could find: a quantile of
    each row, at all layers, means over heads, and the same tokens hidden for all heads. What ties with the least of
    those shown is shown.
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
        focus = self.focus(weights.detach(), view).masked_fill(~visual.valid[:, None], math.inf)
        counts = [math.floor(self.quantile * size) for size in visual.sizes]
        shown = (focus >= smallest(focus, counts)).to(weights.dtype)[:, None]  # alike for all heads
        made = visual.multiply(weights.detach() if view.spent else weights.clone(), shown)
        total = made.sum(-1, keepdim=True)
        if not all(counts):
            total = torch.where(torch.tensor(counts, device=total.device)[:, None, None, None] > 0, total, 1.0)
        return made / total if made.requires_grad else made.div_(total)

    def focus(self, weights: Tensor, view: View) -> Tensor:
        """(B, R, V) for these rows, each times a number; what earlier rows of the layer attended to is remembered."""
        weight, visual = weights.mean(1), view.layout.visual
        seen = visual.take(weight[:, None])[:, 0]
        seen = seen if visual.full else seen.masked_fill(~visual.valid[:, None], 0)
        known, run, gazes = view.rows.masked_fill(~view.mine, -1), view.run, seen
        if view.layer in view.memory:
            before, past, earlier = view.memory[view.layer]
            known, gazes = torch.cat([before, known], 1), torch.cat([earlier, gazes], 1)
            run = slice(past.start, run.stop) if past and run and past.stop == run.start else None
        elif not view.cached:  # nobody comes back to the layers before
            view.memory.clear()
        view.memory[view.layer] = known, run, gazes
        if run:
            return weight[..., run] @ gazes
        through = weight.gather(-1, known.clamp(min=0)[:, None].expand(-1, weight.shape[1], -1))
        return (through * (known >= 0)[:, None]) @ gazes
