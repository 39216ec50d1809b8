"""CMAI, cross-modal attention inhibition (arXiv 2411.15453): text looks at the image through what text refers to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from morgana.generation.needs import Depth, Layers, Needs, after_image
from morgana.generation.selecting import smallest
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError

LATER = 64  # rows: room for the answer


@part
class CMAI:
    """Hides from each text row the `quantile` of visual tokens on which it is least focused.

    Focus F = A_tt A_ti: attention of text to the image, gathered through attention of text to text (rows of A_tt sum to
    one over the text behind the image). Thresholds and layers are not published as far as we could find: a quantile of
    each row, at all layers, means over heads, and the same tokens hidden for all heads. What ties with the least of
    those shown is shown, and text refers to what came before it, also in a model whose prompt sees all of itself.
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
        focus = self.focus(weights.detach(), view)
        focus = focus if visual.full else focus.masked_fill(~visual.valid[:, None], math.inf)
        counts = [math.floor(self.quantile * size + 1e-9) for size in visual.sizes]
        shown = torch.ge(focus, smallest(focus, counts), out=torch.empty_like(focus))[:, None]  # alike for all heads
        made = visual.multiply(weights.detach() if view.spent else weights.clone(), shown)
        total = made.sum(-1, keepdim=True)
        if not all(counts):
            total = torch.where(torch.tensor(counts, device=total.device)[:, None, None, None] > 0, total, 1.0)
        total = total + torch.finfo(total.dtype).tiny
        return made / total if made.requires_grad else made.mul_(total.reciprocal_())

    def focus(self, weights: Tensor, view: View) -> Tensor:
        """(B, R, V) for these rows, up to a factor, which moves no rank."""
        weight, visual = weights.sum(1), view.layout.visual
        seen = visual.take(weight[:, None])[:, 0]
        seen = seen if visual.full else seen.masked_fill(~visual.valid[:, None], 0)
        if view.layer not in view.memory:
            if not view.cached:  # nobody comes back to the layers before
                view.memory.clear()
            view.memory[view.layer] = Gazes(seen.new_empty(len(seen), 0, seen.shape[2]))
        past: Gazes = view.memory[view.layer]
        past.add(seen, view)
        if view.run and view.run.stop == view.keys and not view.cached:  # nor to this one
            view.memory.clear()
        return past.through(weight, view)


@dataclass
class Gazes:
    """What the rows of a layer attended to, in the order in which they came, with room for those to come."""

    room: Tensor  # (B, T, V)
    count: int = 0
    run: slice | None = None  # the tokens, where they follow one another
    scattered: Tensor | None = None  # (B, count) the tokens where they do not, -1: a row that does not count

    def add(self, seen: Tensor, view: View) -> None:
        start, stop = self.count, self.count + seen.shape[1]
        frozen = self.room.is_inference() and not torch.is_inference_mode_enabled()
        if stop > self.room.shape[1] or frozen:
            most = max(stop, start + view.keys - int(view.rows[0, 0])) + LATER
            self.room = moved(self.room[:, :start], most)
        self.room[:, start:stop] = seen
        if view.run and (not start or (self.run and self.run.stop == view.run.start)):
            self.run = slice(self.run.start if self.run else view.run.start, view.run.stop)
        else:
            fresh = view.rows.masked_fill(~view.mine, -1)
            self.run, self.scattered = None, torch.cat([self.tokens(fresh), fresh], 1)
        self.count = stop

    def tokens(self, like: Tensor) -> Tensor:
        """(B, count) the tokens, as numbers `like` these."""
        if self.scattered is not None:
            return self.scattered
        run = range(self.run.start, self.run.stop) if self.run else ()
        return like.new_tensor(run).expand(len(like), -1)

    def through(self, weight: Tensor, view: View) -> Tensor:
        """(B, R, V) the gazes of the tokens up to their own that rows attend to, weight (B, R, N), written over."""
        gazes = self.room[:, : self.count]
        if self.run and view.run:
            weight[..., view.run].tril_()  # where a prompt sees all of itself, later gazes are not known yet
            return weight[..., self.run] @ gazes
        known = self.tokens(view.rows)[:, None]
        share = weight.gather(-1, known.clamp(min=0).expand(-1, weight.shape[1], -1))
        return (share * ((known >= 0) & (known <= view.rows[..., None]))) @ gazes


def moved(rows: Tensor, count: int) -> Tensor:
    """(B, T, …) rows where there is room for `count`."""
    made = rows.new_empty(len(rows), count, *rows.shape[2:])
    made[:, : rows.shape[1]] = rows
    return made
