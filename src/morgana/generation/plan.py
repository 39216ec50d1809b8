"""Which pruner acts where, how many tokens it leaves, and the record of what stayed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from morgana.generation.prompts import Spans
from morgana.generation.pruner import Pruner, Watched, budget
from morgana.types import SpecError


class Act(NamedTuple):
    """One stage of one pruner."""

    layer: int
    done: float
    pruner: Pruner
    number: int  # of the stage


class Kept:
    """What stayed: places in the prompts' rows by layer of the language model, -1 for filling."""

    def __init__(self, pruners: Sequence[Pruner], spans: Sequence[Spans], depth: int) -> None:
        self.spans, self.depth = tuple(spans), depth
        self.acts = acts(pruners, depth)
        self.index: dict[int, Tensor] = {0: self.whole()}  # first layer -> (B, M), valid until the next
        self.fired = False

    def whole(self, device: torch.device | None = None) -> Tensor:
        """(B, N) every token, -1 for padding."""
        if not self.spans:
            return torch.empty(0, 0, dtype=torch.long, device=device)
        all_of = torch.arange(self.spans[0].length, device=device)
        return torch.stack([all_of.masked_fill(all_of < spans.start, -1) for spans in self.spans])

    def at(self, layer: int) -> Tensor:
        """(B, M) places of the tokens that `layer` works on."""
        return self.index[max(first for first in self.index if first <= layer)]

    def images(self, layer: int) -> list[list[Tensor]]:
        """By prompt and image: which of the image's visual tokens `layer` works on, (k,) counted from its first."""
        return [
            [row[(row >= first) & (row < last)] - first for first, last in spans.image]
            for row, spans in zip(self.at(layer), self.spans, strict=True)
        ]

    def count(self, tokens: int, act: Act) -> int:
        """How many of an image's tokens a stage leaves."""
        last = budget(act.pruner.keep, tokens)
        if last >= tokens:
            return tokens
        return 0 if act.done > 1 else tokens - round((tokens - last) * act.done)

    @property
    def idle(self) -> bool:
        """Whether every stage leaves every token."""
        sizes = {last - first for spans in self.spans for first, last in spans.image}
        return all(self.count(size, act) >= size for size in sizes for act in self.acts)


def acts(pruners: Sequence[Pruner], depth: int) -> list[Act]:
    found = [Act(*stage, pruner, i) for pruner in pruners for i, stage in enumerate(pruner.stages(depth))]
    if sorted(found, key=lambda act: act.layer) != found:
        raise SpecError(f"{tuple(pruners)} prune before layers {[a.layer for a in found]}; put the earlier first")
    if strange := [act for act in found if not 0 <= act.layer < depth]:
        raise SpecError(f"{strange[0].pruner!r} prunes before layer {strange[0].layer} of a model of {depth} layers")
    return found


def union(asked: Sequence[Watched]) -> Watched:
    def all_of(layers: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(sorted({i for one in layers for i in one}))

    return Watched(
        all_of(one.vision for one in asked),
        all_of(one.text for one in asked),
        all_of(one.moves for one in asked),
        any(one.projector for one in asked),
    )
