"""Which pruner acts where, how many tokens it leaves, and the record of what stayed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from morgana.generation.prompts import Spans
from morgana.generation.pruner import Pruner, Watched, budget, checked, known
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
        """By prompt and image: which of the image's visual tokens `layer` works on, (k,) counted from its first.

        SpecError for a layer that the model does not have, and before it has seen the prompts.
        """
        if layer not in range(self.depth):
            raise SpecError(f"layer {layer} of a model of {self.depth} layers; give 0 to {self.depth - 1}")
        if not self.fired and not self.idle:
            raise SpecError("the model has not seen the prompts yet, so nothing is chosen; ask after its pass")
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
    """Every stage of every pruner, in order. SpecError for what cannot be one of them."""
    if not isinstance(pruners, Sequence):
        raise SpecError(f"{pruners!r} is no tuple of pruners; for one of them write (FastV(0.25),)")
    found = [act for pruner in pruners for act in own(known(pruner), depth)]
    if sorted(found, key=lambda act: act.layer) != found:
        raise SpecError(f"{tuple(pruners)} prune before layers {[a.layer for a in found]}; put the earlier first")
    if strange := [act for act in found if not 0 <= act.layer < depth]:
        raise SpecError(f"{strange[0].pruner!r} prunes before layer {strange[0].layer} of a model of {depth} layers")
    return found


def own(pruner: Pruner, depth: int) -> list[Act]:
    """The stages of one pruner. SpecError unless it ends at a budget, and reads layers that the model has."""
    try:
        checked(pruner.keep)
    except SpecError as error:
        raise SpecError(f"{pruner!r}: {error}") from None
    stages = pruner.stages(depth)
    if not isinstance(stages, Sequence) or not all(staged(stage) for stage in stages):
        raise SpecError(f"{pruner!r} has the stages {stages!r}; give a tuple of them, such as (Stage(2, 1.0),)")
    done = (0.0, *(share for _, share in stages))
    if not all(before <= after for before, after in pairwise(done)) or not done[-1] >= 1:
        raise SpecError(
            f"{pruner!r} has {list(done[1:])} of what goes gone by its stages; let them rise to 1 at the last, where "
            "`keep` are left"
        )
    read = pruner.watched(depth, depth)
    if not isinstance(read, Watched) or not all(isinstance(layers, tuple) for layers in read[:3]):
        raise SpecError(f"{pruner!r} watches {read!r}; give a Watched of tuples of layers, such as Watched(text=(1,))")
    if strange := [layer for layer in (*read.text, *read.moves) if layer not in range(depth)]:
        raise SpecError(f"{pruner!r} watches layer {strange[0]} of a model of {depth} layers; give 0 to {depth - 1}")
    return [Act(*stage, pruner, i) for i, stage in enumerate(stages)]


def staged(stage: object) -> bool:
    """Whether it is a layer and a share."""
    if not isinstance(stage, tuple) or len(stage) != 2:
        return False
    return isinstance(stage[0], int) and isinstance(stage[1], int | float)


def union(asked: Sequence[Watched]) -> Watched:
    def all_of(layers: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(sorted({i for one in layers for i in one}))

    return Watched(
        all_of(one.vision for one in asked),
        all_of(one.text for one in asked),
        all_of(one.moves for one in asked),
        any(one.projector for one in asked),
    )
