"""What an intervention asks of the seam: where it reaches in, at which layers and rows, and after which pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from morgana.generation.prompts import Spans
from morgana.generation.view import View
from morgana.types import SpecError

Depth: TypeAlias = int | float  # a layer's number, from the end if negative; a float is a share of all layers
RowSet: TypeAlias = Callable[[Spans], range]  # rows of one prompt and its answer, in tokens of its row in the batch
Place: TypeAlias = Literal["scores", "weights", "shares", "mask", "states", "positions", "logits"]
Calibration: TypeAlias = Literal["none", "bare", "whole"]


def last(spans: Spans) -> range:
    """The last prompt row, which says the answer's first token."""
    return range(spans.stop - 1, spans.stop)


def answering(spans: Spans) -> range:
    """The rows that say the answer: the last of the prompt, and every decode row."""
    return range(spans.stop - 1, spans.length)


def question(spans: Spans) -> range:
    """The rows of the question; the last prompt row if it has none."""
    return range(*spans.question) or last(spans)


def asking(spans: Spans) -> range:
    """From the question on: the rest of the prompt and the answer."""
    return range(min(spans.question[0], spans.stop - 1), spans.length)


def after_image(spans: Spans) -> range:
    """Every row behind the image, the answer's too; without an image the rows that answer."""
    return range(min(spans.image[-1][1], spans.stop - 1), spans.length) if spans.image else answering(spans)


def image(spans: Spans) -> range:
    """From the first visual row to the last; without an image the last prompt row."""
    return range(spans.image[0][0], spans.image[-1][1]) if spans.image else last(spans)


def every(spans: Spans) -> range:
    """All rows but padding."""
    return range(spans.start, spans.length)


@dataclass(frozen=True)
class Layers:
    """A run of decoder layers, `stop` left out; None is the end."""

    first: Depth = 0
    stop: Depth | None = None

    def of(self, count: int) -> range:
        """The layers' numbers in a model of `count`; SpecError if there are none."""
        stop = count if self.stop is None else numbered(self.stop, count)
        found = range(numbered(self.first, count), min(stop, count))
        if not found:
            raise SpecError(f"layers {self.first} to {self.stop} are none of {count}; give shares of 0 to 1")
        return found


def numbered(depth: Depth, count: int) -> int:
    """The number of a layer.

    >>> numbered(12, 32), numbered(12 / 32, 16), numbered(-1, 16)
    (12, 6, 15)
    """
    if isinstance(depth, float):
        if not 0 <= depth <= 1:
            raise SpecError(f"a depth of {depth}; a float is a share of the layers in [0, 1], an int a layer's number")
        return int(depth * count + 1e-9)
    if depth < -count:
        raise SpecError(f"layer {depth} of a model of {count}; a negative number counts from the end, to -{count}")
    return depth + count if depth < 0 else depth


@dataclass(frozen=True)
class Needs:
    """What the seam has to do for one intervention; rows and layers that nobody asks for cost nothing.

    at: what `edit` is given and gives back, see `attention.Intervention`.
    calibration: "bare" is one pass over image and question without documents, whose last prompt row is remembered in
        `view.reference`; "whole" is one pass over the very prompt, in which `edit` sees the scores of its rows with
        `view.calibrating` set, and what it puts into `view.memory` is there in the passes that follow.
    hidden: `view.hidden` holds what the layer was given.
    steady: a mask's edit is the same in every layer, so that each pass asks for it once.
    parts: for shares, (B, 1, P, N) which keys belong to which part, as truth values; every key to one. It gives None
        where there is nothing to edit in this layer. Without it, each key is a part of its own: shares are weights.
    """

    rows: RowSet = last
    layers: Layers = Layers()
    at: Place = "scores"
    calibration: Calibration = "none"
    hidden: bool = False
    steady: bool = False
    parts: Callable[[View], Tensor | None] | None = None

    def __post_init__(self) -> None:
        for name, given, known in (("at", self.at, Place), ("calibration", self.calibration, Calibration)):
            if given not in get_args(known):
                raise SpecError(f"Needs has {name}={given!r}; it must be one of {', '.join(get_args(known))}")
        if self.parts and self.at != "shares":
            raise SpecError(f"Needs has parts with at={self.at!r}; only shares have parts: give at='shares'")
