"""What a pruner of visual tokens is asked, how many it may keep, and what every one of them checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from morgana.generation.sight import Sight
from morgana.generation.watching import Taken
from morgana.types import SpecError

Keep = int | float  # a count of visual tokens an image, or a share of them in (0, 1]


class Stage(NamedTuple):
    """Before which layer of the language model tokens go (0: before the model), and what share has gone by then."""

    layer: int
    done: float  # above 1: they all go


class Watched(NamedTuple):
    """The layers whose attention (`vision`, `text`) and whose changes of the hidden states (`moves`) are read.

    Who reads the vision tower, the projector or the grid is asked view by view where an image has several (LLaVA-NeXT).
    """

    vision: tuple[int, ...] = ()  # may be negative, counted from the end
    text: tuple[int, ...] = ()
    moves: tuple[int, ...] = ()
    projector: bool = False  # what goes into it
    grid: bool = False  # where tokens lie in the image


@dataclass(frozen=True, eq=False)
class Choice:
    """Sorted unique indices (k,) among the tokens seen, and their new states (k, D) where they were merged."""

    index: Tensor
    states: Tensor | None = None


@runtime_checkable
class Pruner(Protocol):
    """Chooses which visual tokens of an image go on; one question, asked at every stage and of every image."""

    @property
    def keep(self) -> Keep: ...
    def stages(self, depth: int) -> tuple[Stage, ...]:
        """Where in a language model of `depth` layers it acts, in order."""
        ...

    def watched(self, depth: int, eyes: int) -> Watched:
        """What it reads of a language model of `depth` and a vision tower of `eyes` layers."""
        ...

    def choose(self, sight: Sight, count: int) -> Choice:
        """At most `count` of the tokens in sight; `count` is below their number."""
        ...


@runtime_checkable
class Scored(Protocol):
    """A pruner that ranks tokens by one score each, and asks `self.scores` for them, so that they can be weighted."""

    def scores(self, sight: Sight) -> Tensor:
        """(n,), larger is kept; differentiable in the pixels where the paper's are."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """A pruner that may leave a prompt alone."""

    def due(self, sights: tuple[Sight, ...]) -> bool: ...


@runtime_checkable
class Narrowing(Protocol):
    """A pruner that works inside the vision tower: tokens that it closes are seen by no later layer of it."""

    def narrow(
        self, layer: int, taken: Taken, open: Tensor, scores: Tensor | None, depth: int
    ) -> tuple[Tensor, Tensor]:
        """After a watched layer: which of one image's tokens (P,) stay open, CLS always, and scores for the next."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A pruner that divides a prompt's budget among its images."""

    def share(self, sights: tuple[Sight, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
        """New counts of the same sum, none above its image's tokens."""
        ...


BEFORE = (Stage(0, 1.0),)  # one shot, before the language model


def checked(keep: Keep) -> None:
    """SpecError unless `keep` is a count of at least 0 or a share in (0, 1]."""
    whole = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 0
    if not whole and not (isinstance(keep, float) and 0 < keep <= 1):
        raise SpecError(f"keep={keep!r} is neither a count (an int of at least 0) nor a share (a float in (0, 1])")


def known(pruner: object) -> Pruner:
    """The pruner itself. SpecError for whatever else stands in its place, its class too."""
    if isinstance(pruner, type) or not isinstance(pruner, Pruner):
        raise SpecError(
            f"{pruner!r} is no pruner; give one that is built, such as FastV(0.25) (`morgana list pruner` shows "
            "those there are)"
        )
    return pruner


def weights(**given: float) -> None:
    """SpecError unless each is finite and at least 0."""
    for name, value in given.items():
        if not 0 <= value < math.inf:
            raise SpecError(f"{name}={value} is no weight; give a finite number of at least 0")


def heats(**given: float) -> None:
    """SpecError unless each is finite and above 0."""
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise SpecError(f"{name}={value} divides; give a finite number above 0")


def budget(keep: Keep, tokens: int) -> int:
    """Tokens that may stay of an image's: a share is rounded, to at least one.

    >>> budget(0.11, 576), budget(64, 576), budget(64, 16), budget(0.01, 16)
    (63, 64, 16, 1)
    """
    return min(tokens, keep if isinstance(keep, int) else max(1, round(keep * tokens)))


def at(layer: int | float, depth: int) -> int:
    """A layer of the language model: an int as it is, a float in [0, 1) as a share of the depth; from 1 on.

    >>> at(2, 32), at(0.25, 32), at(0.25, 3)
    (2, 8, 1)
    """
    if isinstance(layer, float) and not 0 <= layer < 1:
        raise SpecError(f"layer {layer} is no share of the depth in [0, 1); an int counts layers")
    found = layer if isinstance(layer, int) else max(1, int(layer * depth))
    if not 0 < found < depth:
        raise SpecError(f"layer {layer} is not inside a language model of {depth} layers; give 1 to {depth - 1}")
    return found


def asked(sight: Sight) -> Tensor:
    """(Q,) places of the question, or of all words behind the images where it is empty. SpecError without either."""
    words = sight.question if len(sight.question) else sight.behind
    if not len(words):
        raise SpecError(
            "the prompt has no question and no words behind its images, so nothing says which tokens matter; ask a "
            "question, or use a pruner that reads none (FasterVLM, ToDRE)"
        )
    return words


def top(scores: Tensor, count: int) -> Choice:
    """The best `count`, ties to the earlier, in the order in which they stand."""
    order = scores.detach().argsort(descending=True, stable=True)
    return Choice(order[:count].sort().values)


def even(scores: Tensor) -> Tensor:
    """Scores scaled to [0, 1]; all 0 where they are equal."""
    low, high = scores.amin(), scores.amax()
    return (scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny)
