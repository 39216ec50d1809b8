"""Interventions around an intervention: in some layers only, in some heads only, in part."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from morgana.generation._block import Intervention
from morgana.generation.needs import Depth, Layers, Needs
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class InLayers:
    """The intervention in the decoder layers `first` to `stop` (left out; None: the end) instead of its own choice.

    A depth is a layer's number, from the end if negative, or a float share of all layers.
    """

    intervention: Intervention
    first: Depth = 0
    stop: Depth | None = None

    @property
    def needs(self) -> Needs:
        return replace(self.intervention.needs, layers=Layers(self.first, self.stop))

    def edit(self, x: Tensor, view: View) -> Tensor:
        return self.intervention.edit(x, view)


@part
class InHeads:
    """The intervention on the query heads of these numbers only; for those that edit scores, weights or the mask."""

    intervention: Intervention
    heads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.intervention.needs.at not in ("scores", "weights", "shares", "mask"):
            raise SpecError(f"{self.intervention!r} does not act by heads; InHeads takes those that edit attention")

    @property
    def needs(self) -> Needs:
        return self.intervention.needs

    def edit(self, x: Tensor, view: View) -> Tensor:
        after = self.intervention.edit(x, replace(view, spent=False))
        if view.calibrating or after is x:
            return after
        count = max(x.shape[1], after.shape[1], view.heads)
        if any(not -count <= head < count for head in self.heads):
            raise SpecError(f"heads {self.heads} are not among the model's {count}")
        chosen = torch.zeros(count, dtype=torch.bool, device=x.device)
        chosen[list(self.heads)] = True
        return torch.where(chosen[:, None, None], after, x)


@part
class Scaled:
    """The intervention's change times `factor`: 0 changes nothing, 1 all of it.

    Finite numbers move in proportion; weights do not fall below zero. A key that it hides keeps 1 - factor of its
    weight, a shown one gets factor.
    """

    intervention: Intervention
    factor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.factor < math.inf:
            raise SpecError(f"Scaled's factor is {self.factor}; it must be a number of at least 0")

    @property
    def needs(self) -> Needs:
        return self.intervention.needs

    def edit(self, x: Tensor, view: View) -> Tensor:
        after = self.intervention.edit(x, replace(view, spent=False))
        if view.calibrating or after is x or self.factor == 1:
            return after
        if self.factor == 0:
            return x
        if self.needs.at in ("weights", "shares"):
            made = (x + self.factor * (after - x)).clamp(min=0)
            if self.factor <= 1:
                return made
            return torch.where((after != x).any(-1, keepdim=True), made / made.sum(-1, keepdim=True), x)
        finite = ~(x.isneginf() | after.isneginf())
        step = torch.where(finite, after, 0) - torch.where(finite, x, 0)
        kept = math.log(1 - self.factor) if self.factor < 1 else -math.inf
        hidden = torch.where(x.isneginf(), x, x + kept)
        ends = torch.where(after.isneginf(), hidden, after + math.log(min(self.factor, 1)))
        return torch.where(finite, x + self.factor * step, ends)
