"""Edited rows, computed again from their queries: their mask, scores, weights or shares, each in the quickest way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TypeAlias

import torch
from torch import Tensor

from morgana.generation._block import Block, merged
from morgana.generation._drawn import Drawn
from morgana.generation._parts import FLASH, Parted
from morgana.generation._products import HIDDEN, attention, differing, grouped, reach, scores, sighted
from morgana.generation._rows import Rows
from morgana.generation._sparing import States

Redone: TypeAlias = tuple[Tensor, Tensor | None] | None  # (B, R, H, D) rows, and which changed, see `Rows.put`

MANY = 16  # rows: attention to every part apart pays from here on


def redone(
    block: Block,
    layer: int,
    rows: Rows,
    states: States,
    attention_mask: Tensor | None,
    window: int | None,
    scaling: float | None,
    *,
    simple: bool,
) -> Iterator[tuple[Rows, Redone]]:
    """The rows in pieces, edited; `simple`: they are a run under the causal mask, and only their weights are edited."""
    masking, scoring, weighing = (block.active(place, layer) for place in ("mask", "scores", "weights"))
    held = states[0].shape[1] if scoring or weighing else 1  # heads; a mask serves all
    for piece in rows.pieces(held, states[1].shape[2]):
        if simple:
            yield piece, reweighed(block, layer, piece, states, scaling)
        elif scoring or weighing:
            before, clear = block.hiding(piece, attention_mask, window)
            allowed = edited(block, before, layer, piece, masking, 0)
            yield piece, rescored(block, layer, piece, states, before, allowed, scaling, clear=clear)
        else:
            yield piece, remasked(redrawn(block, layer, piece, attention_mask, window), piece, states, scaling)


def edited(
    block: Block, x: Tensor, layer: int, piece: Rows, active: Sequence[int], offset: int, **told: bool
) -> Tensor:
    """Every active intervention's edit of its own rows (…, R, N), in order; `offset` is where they begin in `owned`.

    The first is `told` what holds of `x` as it is given.
    """
    for place, i in enumerate(active, offset):
        if not piece.any_owned[place]:
            continue
        mine = piece.owned[place]
        after = block.edit(i, x, layer, piece.index, mine, run=piece.run(place), **told)
        told = {}
        x = x if block.calibrating else merged(x, after, mine[:, None, :, None], whole=piece.all_owned[place])
    return x


def redrawn(block: Block, layer: int, piece: Rows, attention_mask: Tensor | None, window: int | None) -> Drawn | None:
    """The edited mask; None where it changes no row. Kept for the layers that follow if all its editors are steady."""
    masking, found = block.active("mask", layer), None
    key = (piece, masking, block.layout, attention_mask, window)
    if key in block.drawn:
        return block.drawn[key]
    before, _ = block.hiding(piece, attention_mask, window)
    allowed = edited(block, before, layer, piece, masking, 0)
    if allowed is not before and (changed := differing(allowed, before)).any():
        keys = sighted(allowed)
        allowed = allowed[..., keys]
        found = Drawn(allowed, unless_all(changed), keys)
    if not all(block.needs[i].steady for i in masking):
        return found
    found = found and found.packed()
    block.drawn[key], block.settled = found, None  # the mask as it was has served
    return found


def remasked(drawn: Drawn | None, piece: Rows, states: States, scaling: float | None) -> Redone:
    """Rows under an edited mask."""
    if drawn is None:
        return None
    query, key, value = states
    key, value = (x[:, :, drawn.keys] for x in (key, value))
    changed = drawn.changed if drawn.changed is None else drawn.changed.transpose(1, 2)
    return attention(piece.take(query), key, value, drawn.mask, scaling).transpose(1, 2), changed


def rescored(
    block: Block,
    layer: int,
    piece: Rows,
    states: States,
    before: Tensor,
    allowed: Tensor,
    scaling: float | None,
    *,
    clear: bool,
) -> Redone:
    """Rows with edited scores or weights, and perhaps an edited mask; `clear`: `before` hides nothing."""
    query, key, value = states
    scoring, weighing = block.active("scores", layer), block.active("weights", layer)
    unmasked = allowed is before
    if not scoring:
        stop = max(reach(allowed), block.layout.visual.stop)
        key, value, before, allowed = key[:, :, :stop], value[:, :, :stop], before[..., :stop], allowed[..., :stop]
    raw = scores(piece.take(query), key, scaling)
    masked = None if unmasked else raw + allowed
    plain = raw if clear else raw.add_(before)
    made = plain if masked is None else masked
    place = len(piece.owned) - len(weighing)
    made = edited(block, made, layer, piece, scoring, place - len(scoring), clear=clear and unmasked)
    given = made.softmax(-1)
    after = edited(block, given, layer, piece, weighing, place)
    pairs = [(x, y) for x, y in ((made, plain), (after, given)) if x is not y]
    if not pairs:
        return None
    fresh, sight = grouped(after.to(value.dtype), value).transpose(1, 2), block.layout.visual
    start = sight.run.start if sight.run else 0
    if any((x[..., start] != y[..., start]).all() for x, y in pairs):  # mostly so, and quickly seen
        return fresh, None
    changed = reduce(torch.logical_or, (differing(x, y) for x, y in pairs))
    return fresh, unless_all(changed.transpose(1, 2))


def divides(block: Block, active: Sequence[int], rows: Rows) -> bool:
    """Shares are edited, and nothing else."""
    alone = len(active) == 1 and block.needs[active[0]].parts is not None
    return alone and rows.index.shape[1] > 0 and not block.calibrating


def splits(states: States, rows: Rows) -> bool:
    """Attention can be had part by part: many rows, no gradient, a kernel that tells its sum."""
    here = FLASH is not None and states[0].device.type == "cpu" and rows.index.shape[1] >= MANY
    return here and not (torch.is_grad_enabled() and any(x.requires_grad for x in states))


def reshared(
    block: Block, layer: int, rows: Rows, states: States, parts: Tensor, scaling: float | None
) -> Iterator[tuple[Rows, Redone]]:
    """Rows of which only shares are edited: attention to every part apart, mixed by what they have now.

    All heads of a row with an edited one are mixed again: plain attention, which they would else keep, costs as much.
    """
    (i,) = block.active("weights", layer)
    kind = torch.promote_types(states[0].dtype, states[2].dtype)  # under autocast they differ
    query, key, value = (x.to(kind) for x in states)
    wide = torch.promote_types(kind, torch.float32)
    parted = Parted(key, value, parts, query.shape[1])
    for piece in rows.runs:
        assert piece.even is not None
        view = block.view(i, layer, piece.index, piece.owned[0])
        made, shares = parted.split(piece.take(query), block.first + piece.even[0], scaling)
        after = block.ask(i, shares, view)
        if after is shares:
            yield piece, None
            continue
        fresh = torch.zeros_like(made[0], dtype=wide)
        for share, row in zip(after.to(wide).unbind(-1), made, strict=True):
            fresh.addcmul_(share[..., None], row.to(wide))
        changed = differing(after, shares).any(1, keepdim=True)
        yield piece, (fresh.transpose(1, 2), unless_all(changed.transpose(1, 2)))


def reweighed(block: Block, layer: int, piece: Rows, states: States, scaling: float | None) -> Redone:
    """A run of rows under the causal mask with edited weights: `rescored` where nothing but they is edited.

    A piece is some dozens of rows, so that every operation that it does without counts.
    """
    assert piece.even is not None
    query, key, value = states
    first, last = (piece.first + place for place in piece.even)
    stop = max(last, block.layout.visual.stop)
    value = value[:, :, :stop]

    def weights() -> Tensor:
        raw = scores(piece.take(query), key[:, :, :stop], scaling)
        raw[..., first:last].add_(piece.among)  # `+=` would write them twice
        if stop > last:
            raw[..., last:] = HIDDEN
        return raw.softmax(-1) if raw.requires_grad else torch.softmax(raw, -1, out=raw)

    given, active = weights(), block.active("weights", layer)
    alone = len(active) == 1 and piece.all_owned[0] and block.needs[active[0]].parts is None
    spent, start = alone and not given.requires_grad, given[..., 0].clone()
    after = edited(block, given, layer, piece, active, 0, spent=spent)
    if after is given:
        return None
    moved = bool((after[..., 0] != start).all())  # what hides some keys moves the weights of all
    fresh = grouped(after.to(value.dtype), value).transpose(1, 2)
    if moved:
        return fresh, None
    changed = differing(after, weights() if spent else given, spent=not given.requires_grad)
    return fresh, unless_all(changed.transpose(1, 2))


def unless_all(changed: Tensor) -> Tensor | None:
    """`changed`, None where all have."""
    return None if bool(changed.all()) else changed
