"""The state of one `intervening` block: who is active where, which pass is running, and what each remembers."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from morgana.generation._drawn import Drawn
from morgana.generation._parts import shared
from morgana.generation._products import masks
from morgana.generation._rows import Rows
from morgana.generation.layout import Layout
from morgana.generation.needs import Needs, Place
from morgana.generation.view import Reference, View
from morgana.types import SpecError


@runtime_checkable
class Intervention(Protocol):
    """Edits what a model computes, at the place, the layers and the rows that it asks for, and nowhere else.

    `edit` is given, and gives back, by `needs.at`:

    scores     (B, H, R, N) scaled attention scores before the softmax, -inf where masked
    weights    (B, H, R, K) attention after it; K ≤ N: keys behind the image and behind these rows' sight are left out
    shares     (B, H, R, P) how much of it each part of the keys has, see `needs.parts`; within a part nothing moves
    mask       (B, 1, R, N) what is added to the scores: 0, or -inf where masked; may come back with H heads
    states     (B, R, D) what a layer gives to the next
    positions  (B, 1, N) float positions of all tokens; may come back as (B, G, N), one for each head of the keys
    logits     (B, R, V) of the next token

    It must not write into its argument, unless `view.spent`, and gives back equal numbers where it does nothing: those
    keep their bits; with shares, where no head of the row is edited. Masks are settled first, then scores, then weights
    and shares, each in the order of the interventions.
    """

    @property
    def needs(self) -> Needs:
        """What it asks of the seam."""
        ...

    def edit(self, x: Tensor, view: View, /) -> Tensor:
        """The edited tensor."""
        ...


@dataclass(eq=False)
class Block:
    """`first` and `stop` are the tokens of the running pass: queries `first` to `stop`, keys 0 to `stop`."""

    model: Any
    interventions: tuple[Intervention, ...]
    layout: Layout
    reference: Reference | None
    base: str  # the attention that the text tower had
    calibrating: bool = False
    root: Block | None = None  # the block that this one reads again for
    fired: set[int] = field(default_factory=set)
    first: int = 0
    stop: int = 0
    memories: list[dict[Any, Any]] = field(default_factory=list)
    hidden: Tensor | None = None
    cached: bool = True  # the running pass keeps its keys and values
    known: dict[tuple[tuple[int, ...], int, int], Rows] = field(default_factory=dict)
    settled: tuple[tuple[Any, ...], Tensor, bool] | None = None  # see `hiding`
    passing: tuple[int, int, int] | None = None  # queries, keys and prompts of the running pass
    drawn: dict[tuple[Any, ...], Drawn | None] = field(default_factory=dict)  # see `_redoing.redrawn`
    angles: Any = None  # rotary positions, see _positions
    partly: set[tuple[int, ...]] = field(default_factory=set)  # interventions that together left some row as it was
    among: Tensor | None = None  # (B, M) which of the pass's first tokens a pruner has left; None: all
    sight: dict[str, Any] = field(default_factory=dict)  # what the vision tower was given
    branches: dict[int, tuple[Block, Any]] = field(default_factory=dict)  # see _hooks

    @cached_property
    def depth(self) -> int:
        """Layers of the text tower."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @cached_property
    def heads(self) -> int:
        """Query heads of the text tower."""
        return int(self.model.config.get_text_config().num_attention_heads)

    @cached_property
    def needs(self) -> tuple[Needs, ...]:
        return tuple(part.needs for part in self.interventions)

    @cached_property
    def _active(self) -> dict[tuple[Place, int], tuple[int, ...]]:
        found: dict[tuple[Place, int], tuple[int, ...]] = {}
        for i, needs in enumerate(self.needs):
            place: Place = "scores" if self.calibrating else "weights" if needs.at == "shares" else needs.at
            for layer in needs.layers.of(self.depth):
                found[place, layer] = (*found.get((place, layer), ()), i)
        return found

    def active(self, place: Place, layer: int) -> tuple[int, ...]:
        """Which interventions reach in at this place of this layer; in a calibration all of them see the scores.

        Shares are told apart where weights are edited.
        """
        return self._active.get((place, layer), ())

    def open(self, queries: int, keys: int, batch: int, layer: int) -> None:
        """Note which pass this is; SpecError when it is over other prompts than the spans describe."""
        if layer and self.passing == (queries, keys, batch):
            return
        prompts, length = len(self.layout.spans), self.layout.length
        prefill = queries == keys == length
        if batch != prompts or not (prefill or (queries < keys and keys - queries >= length)):
            raise SpecError(
                f"the spans describe {prompts} rows of {length} tokens, the model was given {batch} rows of "
                f"{queries} queries over {keys} keys; pass the spans of this very batch, with one beam and one sample "
                "a prompt"
            )
        self.first, self.stop, self.passing = keys - queries, keys, (queries, keys, batch)
        if layer == 0:
            self.settled = None
            self.drawn.clear()
        if layer == 0 and prefill:
            notes = {} if self.reference is None or self.calibrating else self.reference.notes
            self.memories = [dict(notes.get(part, {})) for part in self.interventions]

    def rows(self, active: Sequence[int]) -> Rows:
        """The rows of the running pass that these interventions ask for."""
        key = (tuple(active), self.first, self.stop)
        if key not in self.known:
            self.known = {k: v for k, v in self.known.items() if k[1:] == key[1:]}
            self.known[key] = Rows.of([self.needs[i].rows for i in active], self.layout, self.first, self.stop)
        return self.known[key]

    def hiding(self, piece: Rows, attention_mask: Tensor | None, window: int | None) -> tuple[Tensor, bool]:
        """What is added to the scores of a piece, and whether that is nothing.

        Kept, since the next layers ask again where a pass is one piece.
        """
        key = (piece, attention_mask, window)
        if self.settled is None or any(x is not y for x, y in zip(self.settled[0], key, strict=True)):
            made = masks(piece.index, attention_mask, self.first, self.stop, window, piece.even)
            self.settled = key, made, not made.any()
        return self.settled[1:]

    def edit(self, i: int, x: Tensor, layer: int, index: Tensor, mine: Tensor, **more: Any) -> Tensor:
        """What intervention `i` makes of `x`, whole."""
        view = self.view(i, layer, index, mine, **more)
        if self.needs[i].parts is None or self.calibrating:
            return self.ask(i, x, view)
        parts = self.parts(i, view)
        return x if parts is None else shared(x, parts, lambda shares: self.ask(i, shares, view))

    def ask(self, i: int, x: Tensor, view: View) -> Tensor:
        """What intervention `i` gives back. SpecError where that is no tensor of the shape that it was given."""
        after, at = self.interventions[i].edit(x, view), self.needs[i].at
        found = tuple(after.shape) if isinstance(after, Tensor) else type(after).__name__
        spread = at in ("mask", "positions") and found[:1] + found[2:] == (*x.shape[:1], *x.shape[2:])  # by heads
        if found != tuple(x.shape) and not spread:
            raise SpecError(
                f"{self.interventions[i]!r} was given {at} of shape {tuple(x.shape)} and gave back {found}; "
                "give back a tensor of the same shape"
            )
        return after

    def parts(self, i: int, view: View) -> Tensor | None:
        """(B, 1, P, N) the parts of the keys whose shares intervention `i` edits; None: it has nothing to do here."""
        of = self.needs[i].parts
        assert of is not None
        return of(view)

    def view(self, i: int, layer: int, index: Tensor, mine: Tensor, **more: Any) -> View:
        """What intervention `i` sees, which is then at work."""
        self.fired.add(i)
        return View(
            layout=self.layout,
            layer=layer,
            reference=self.reference,
            rows=index,
            mine=mine,
            depth=self.depth,
            heads=self.heads,
            keys=self.stop,
            hidden=self.hidden if self.needs[i].hidden else None,
            memory=self.memories[i],
            calibrating=self.calibrating,
            cached=self.cached,
            model=self.model,
            **more,
        )

    def check_fired(self) -> None:
        for i, part in enumerate(self.interventions):
            if i not in self.fired:
                rows = [part.needs.rows(s) for s in self.layout.spans][:4]
                raise SpecError(
                    f"{part!r} did not fire: no forward pass of {type(self.model).__name__} edited its rows "
                    f"{rows}; run the model inside the block, and inside no other"
                )


current: ContextVar[Block | None] = ContextVar("morgana_block", default=None)


def merged(before: Tensor, after: Tensor, mine: Tensor, *, whole: bool) -> Tensor:
    """`after` in the rows that are `mine` (broadcastable), `before` elsewhere."""
    return after if whole or after is before else torch.where(mine, after, before)
