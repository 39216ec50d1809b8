"""GIFT (ICML 2026, arXiv 2510.22067): gaze shifts while reading the question say where to look while answering."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.layout import Columns
from morgana.generation.needs import Depth, Layers, Needs, numbered
from morgana.generation.prompts import Spans
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError

FADED = 3.0  # standard deviations at which saliency is clipped


def reading(spans: Spans) -> range:
    """From the row before the question to the end of the answer."""
    return range(max(spans.start, min(spans.question[0], spans.stop) - 1), spans.length)


@part
class GIFT:
    """Saliency of visual tokens by how much attention moves to them from word to word, spent while answering.

    At layer `source`, max(A_i - A_(i-1), 0) over the rows i of the question, mean over them and over the `share` of
    heads that move most, clipped at three deviations, scaled to [0, 1]: S. From layer `first` to `stop`, in the `share`
    of heads that see most and on the rows that answer, visual attention times exp(alpha S), question attention times
    beta times the visual gain, renormalised. The paper reads content words only, found by a tagger; without one we read
    every token of the question. Depths are those of LLaVA-1.5-7B (11, 12-22 of 32), as shares.
    """

    alpha: float = 5.0
    beta: float = 1.0
    source: Depth = 11 / 32
    first: Depth = 12 / 32
    stop: Depth | None = 23 / 32
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta <= 0 or not 0 < self.share <= 1:
            raise SpecError(f"{self!r}: wanted alpha >= 0, beta > 0 and a share in (0, 1]")

    @property
    def needs(self) -> Needs:
        return Needs(rows=reading, layers=Layers(self.source, self.stop))

    def edit(self, scores: Tensor, view: View) -> Tensor:
        if not view.layout.visual.index.shape[-1]:
            return scores
        source, first = numbered(self.source, view.depth), numbered(self.first, view.depth)
        if max(first, source + 1) not in self.needs.layers.of(view.depth):
            raise SpecError(f"{self!r} has no layer to enhance behind its source in a model of {view.depth}; set stop")
        if view.layer == source:
            self.watch(scores, view)
        if view.layer < max(first, source + 1):
            return scores
        stop = torch.tensor([s.stop for s in view.layout.spans], device=scores.device)[:, None]
        return torch.where((view.rows >= stop - 1)[:, None, :, None], self.enhance(scores, view), scores)

    def watch(self, scores: Tensor, view: View) -> None:
        """Add up the shifts (B, H, V) of the question's rows, which may come in pieces."""
        first, stop = (torch.tensor([s.question[i] for s in view.layout.spans], device=scores.device) for i in (0, 1))
        asked = (view.rows >= first[:, None]) & (view.rows < stop[:, None]) & view.mine
        seen = view.layout.visual.take(scores.softmax(-1)).masked_fill(~view.layout.visual.mask, 0)
        before = torch.cat([view.memory.get("row", seen[:, :, :1]), seen[:, :, :-1]], 2)
        moved = ((seen - before).relu() * asked[:, None, :, None]).sum(2)
        view.memory["row"] = seen[:, :, -1:]
        view.memory["moved"] = view.memory["moved"] + moved if "moved" in view.memory else moved

    def enhance(self, scores: Tensor, view: View) -> Tensor:
        visual, moved = view.layout.visual, view.memory.get("moved")
        if moved is None:
            raise SpecError(f"{self!r} has not read the question: layer {self.source} is not among its layers here")
        if moved.shape[-1] != visual.index.shape[1]:
            raise SpecError(
                f"{self!r} watched {moved.shape[-1]} visual tokens, and layer {view.layer} has {visual.index.shape[1]};"
                " prune before the language model (UniformGrid, MMTok), or outside the layers from source to stop"
            )
        salient = saliency(moved, visual, self.share)[:, None, None]
        weight = scores.softmax(-1)
        seen = visual.take(weight).masked_fill(~visual.mask, 0)
        mass = seen.sum(-1, keepdim=True)
        gain = (seen * (self.alpha * salient).exp()).sum(-1, keepdim=True) / mass.clamp(min=1e-12)
        made = visual.put(scores, visual.take(scores) + self.alpha * salient)
        asked = view.layout.question
        if asked.index.shape[-1]:
            made = asked.put(made, asked.take(made) + gain.clamp(min=1e-12).log() + math.log(self.beta))
        return torch.where(most(mass, self.share) & (visual.count > 0) & (mass > 0), made, scores)


def saliency(moved: Tensor, visual: Columns, share: float) -> Tensor:
    """(B, V) in [0, 1] from shifts (B, H, V)."""
    heads = most(moved.sum(-1)[..., None, None], share)[:, :, 0]
    mean = (moved * heads).sum(1) / heads.sum(1)
    valid, count = visual.valid, visual.valid.sum(-1, keepdim=True).clamp(min=1)
    middle = mean.sum(-1, keepdim=True) / count
    spread = (((mean - middle).square() * valid).sum(-1, keepdim=True) / count).sqrt()
    mean = torch.minimum(torch.maximum(mean, middle - FADED * spread), middle + FADED * spread)
    low = mean.masked_fill(~valid, math.inf).amin(-1, keepdim=True)
    high = mean.masked_fill(~valid, -math.inf).amax(-1, keepdim=True)
    made = (mean - low) / (high - low).clamp(min=1e-12)
    return made.masked_fill(~valid, 0).nan_to_num()


def most(mass: Tensor, share: float) -> Tensor:
    """(B, H, R, 1) which heads have the largest mass: the `share` of all, at least one."""
    kept = max(1, math.ceil(share * mass.shape[1]))
    return mass.argsort(dim=1, descending=True, stable=True).argsort(1) < kept
