"""How much a row of attention gives to the image, and how sharply: mathematics, and the probe that measures it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from morgana.generation.layout import Layout, edge
from morgana.generation.needs import Needs
from morgana.generation.view import Reference, View


def sharpness(logits: Tensor, count: Tensor) -> Tensor:
    """1 - H(softmax) / log N over the last axis, which keeps its place: 1 = one-hot, 0 = uniform; 1 for N < 2.

    `logits` may hold -inf as filling; `count` is N, broadcastable to the result (…, 1).
    """
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0)).sum(-1, keepdim=True)
    return torch.where(count > 1, 1 - entropy / count.clamp(min=2).to(logits.dtype).log(), 1.0)


def log_sum(logits: Tensor) -> Tensor:
    """`logsumexp` of the last axis, which keeps its place, in half its operations: for a row between two layers each
    costs 20 µs, as its code has left the processor's caches. NaN where all is -inf.
    """
    if not logits.shape[-1]:
        return logits.logsumexp(-1, keepdim=True)
    top = logits.amax(-1, keepdim=True)
    return (logits - top).exp().sum(-1, keepdim=True).log() + top


@dataclass(eq=False)
class Probe:
    """An intervention that changes nothing and remembers what the last prompt row of every layer attended to."""

    log_odds: dict[int, Tensor] = field(default_factory=dict)  # (B, H)
    sharpness: dict[int, Tensor] = field(default_factory=dict)  # (B, H), NaN without an image
    boundary: dict[int, Tensor] = field(default_factory=dict)  # (B, H)
    scores: dict[int, Tensor] = field(default_factory=dict)  # (B, H, 1, N)
    layout: Layout | None = None

    @property
    def needs(self) -> Needs:
        return Needs()

    def edit(self, scores: Tensor, view: View) -> Tensor:
        layout, layer = view.layout, view.layer
        self.layout, self.scores[layer] = layout, scores
        text, place = layout.text.take(scores), torch.arange(layout.text.index.shape[1], device=scores.device)
        all_text = text.logsumexp(-1, keepdim=True)
        width, count = edge(layout.text.count), layout.text.count
        outer = ((place < width) | ((place >= count - width) & (place < count))).expand_as(text)
        ends = text.masked_fill(~outer, float("-inf")).logsumexp(-1, keepdim=True)
        seen = layout.visual.take(scores)
        visual = seen.logsumexp(-1, keepdim=True) if seen.shape[-1] else torch.full_like(all_text, float("-inf"))
        self.log_odds[layer] = (visual - all_text)[:, :, -1, 0]
        spread = sharpness(seen, layout.visual.count) if seen.shape[-1] else torch.full_like(all_text, float("nan"))
        self.sharpness[layer] = spread.masked_fill(layout.visual.count == 0, float("nan"))[:, :, -1, 0]
        self.boundary[layer] = (ends - torch.logaddexp(visual, all_text)).exp()[:, :, -1, 0]
        return scores

    def reference(self) -> Reference:
        return Reference(self.log_odds, self.sharpness, self.scores, self.layout)
