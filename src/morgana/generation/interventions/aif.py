"""AIF (CVPR 2026, arXiv 2604.15809): visual tokens that text attends to alike at all layers are hidden from text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.layout import Columns
from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError

RATIOS = tuple(i / 10 for i in range(1, 10))


@part
class AIF:
    """Hides from the text behind the image the visual tokens of highest entropy over layers, after one more pass.

    d_i(l) is the largest attention that text gives to visual token i at layer l, and its entropy over l the token's;
    low is important. `ratio` None takes of 0.1 … 0.9 the one that moves the entropy of attention over the tokens kept
    farthest from that over all. The paper is known to us second-hand: heads are averaged, and both entropies are
    divided by the log of their number of tokens, else fewer would always win. Attention among visual tokens stays.
    """

    ratio: float | None = None
    first: Depth = 0
    stop: Depth | None = None

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise SpecError(f"AIF's ratio is {self.ratio}; it must lie in [0, 1]")

    @property
    def needs(self) -> Needs:
        return Needs(
            rows=after_image,
            layers=Layers(self.first, self.stop),
            at="mask",
            steady=True,
            calibration="none" if self.ratio == 0 else "whole",
        )

    def edit(self, x: Tensor, view: View) -> Tensor:
        visual = view.layout.visual
        if self.ratio == 0 or not visual.index.shape[-1]:
            return x
        if view.calibrating:
            self.watch(x, view)
            return x
        if "hidden" not in view.memory:
            if "peaks" not in view.memory:
                raise SpecError("AIF needs a pass over the whole prompt first: use HF(..., interventions=(AIF(),))")
            peaks = torch.stack([view.memory["peaks"][i] for i in sorted(view.memory["peaks"])])
            view.memory["hidden"] = unimportant(peaks, view.memory["total"], visual, self.ratio)
        hidden: Tensor = view.memory["hidden"][:, None, None] & visual.mask
        return visual.add(x, torch.where(hidden, -math.inf, 0.0))

    def watch(self, scores: Tensor, view: View) -> None:
        """The largest attention (B, V) of each layer, and the sum over layers and rows."""
        visual, rows = view.layout.visual, view.mine[..., None]
        seen = visual.take(scores.softmax(-1)).masked_fill(~visual.mask, 0).mean(1) * rows  # (B, R, V)
        peaks, peak = view.memory.setdefault("peaks", {}), seen.amax(1)
        if not torch.equal(view.memory.setdefault("valid", visual.valid), visual.valid):
            raise SpecError(
                f"AIF compares visual tokens over all layers, and layer {view.layer} has fewer than those before it; "
                "prune before the language model (UniformGrid, MMTok), or give AIF the layers between two stages"
            )
        peaks[view.layer] = torch.maximum(peaks[view.layer], peak) if view.layer in peaks else peak
        view.memory["total"] = view.memory.get("total", 0) + seen.sum(1)


def unimportant(peaks: Tensor, total: Tensor, visual: Columns, ratio: float | None) -> Tensor:
    """(B, V) the tokens to hide, from the peaks (L, B, V) and the attention (B, V) of all layers."""
    share = peaks / peaks.sum(0).clamp(min=1e-30)
    chaos = (-(share * share.clamp(min=1e-30).log()).sum(0)).masked_fill(~visual.valid, math.inf)
    rank = chaos.argsort(dim=-1, stable=True).argsort(-1)  # 0: the most important
    count = visual.valid.sum(-1, keepdim=True)

    def hidden(ratio: float) -> Tensor:
        return (rank >= count - (ratio * count).floor()) & visual.valid

    if ratio is not None:
        return hidden(ratio)
    start = flatness(total, visual.valid)
    moved = torch.stack([(flatness(total, visual.valid & ~hidden(r)) - start).abs() for r in RATIOS])
    best = moved.argmax(0)  # (B,)
    return torch.stack([hidden(r) for r in RATIOS])[best, torch.arange(len(best), device=best.device)]


def flatness(total: Tensor, kept: Tensor) -> Tensor:
    """(B,) entropy of the attention over the tokens kept, as a share of the largest possible."""
    p = total.masked_fill(~kept, 0)
    p = p / p.sum(-1, keepdim=True).clamp(min=1e-30)
    return -(p * p.clamp(min=1e-30).log()).sum(-1) / kept.sum(-1).clamp(min=2).log()
