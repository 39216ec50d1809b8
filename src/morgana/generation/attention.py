"""The attention seam: inside `intervening(...)`, interventions edit what they ask for, and the rest is left as it is.

One function is registered with transformers under one name; outside the block no model uses it. Inside, every row goes
through the attention that the model had (SDPA, FlashAttention), and only the edited rows are computed again from their
queries, in O(n) a row. A row that comes back from its editors unchanged keeps the very bits that it had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from morgana.generation._block import Block, Intervention, current, merged
from morgana.generation._hooks import hooked
from morgana.generation._positions import turned
from morgana.generation._products import attention, differing, grouped, masks, scores
from morgana.generation._rows import Rows
from morgana.generation.layout import Layout
from morgana.generation.prompts import Spans
from morgana.generation.view import Reference, View
from morgana.types import SpecError

__all__ = ["NAME", "Intervention", "Reference", "View", "calibrating", "intervening"]

NAME = "morgana"


@contextmanager
def intervening(
    model: Any, interventions: Sequence[Intervention], spans: Sequence[Spans], reference: Reference | None = None
) -> Iterator[None]:
    """Let the interventions edit the text tower in the block; the model is restored in any case.

    SpecError when an intervention was never asked, or when the model is given other prompts than `spans` describes.
    """
    if not interventions:
        yield
        return
    with entered(model, interventions, spans, reference) as block:
        yield
    block.check_fired()


@contextmanager
def calibrating(
    model: Any, interventions: Sequence[Intervention], spans: Sequence[Spans], notes: dict[Any, dict[Any, Any]]
) -> Iterator[None]:
    """Let the interventions look at the scores of their rows without changing any; `notes` is given their memories."""
    with entered(model, interventions, spans, None, calibration=True) as block:
        yield
    block.check_fired()
    notes.update(zip(block.interventions, block.memories, strict=True))


@contextmanager
def entered(
    model: Any,
    interventions: Sequence[Intervention],
    spans: Sequence[Spans],
    reference: Reference | None,
    *,
    calibration: bool = False,
) -> Iterator[Block]:
    register()
    key, before = text_tower(model)
    outer = current.get()
    base = outer.base if before == NAME and outer else before
    layout = Layout(tuple(spans), model.device)
    block = Block(model, tuple(interventions), layout, reference, base, calibration)
    token = current.set(block)
    try:
        with hooked(block):
            model.set_attn_implementation({key: NAME})
            yield block
    finally:
        model.set_attn_implementation({key: before})
        current.reset(token)


def text_tower(model: Any) -> tuple[str, str]:
    """The name of the text tower's configuration in the model's own, and the attention that it uses."""
    text = model.config.get_text_config()
    for key in model.config.sub_configs:
        if getattr(model.config, key) is text:
            return key, text._attn_implementation
    raise SpecError(f"{type(model).__name__} has no text tower of its own to intervene in; use an image-text model")


@cache
def register() -> None:
    """Add our name to transformers' two tables; without a mask function a model would see the future."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)


def mask(*args: Any, **kwargs: Any) -> Any:
    """The mask that the model's own attention takes."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    return ALL_MASK_ATTENTION_FUNCTIONS[base_name()](*args, **kwargs)


def base_name() -> str:
    """The attention below ours; eager attention is each model's own and has no name, so SDPA stands in for it."""
    block = current.get()
    return "sdpa" if block is None or block.base == "eager" else block.base


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of (B, H, Q, D) queries: (B, Q, H, D), with the rows of the active block edited."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    block = current.get()
    plain = ALL_ATTENTION_FUNCTIONS[base_name()]
    if block is None:
        return plain(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    layer = module.layer_idx
    block.open(query.shape[2], key.shape[2], len(query), layer)
    query, key = turned(block, layer, query, key)
    out, weights = plain(module, query, key, value, attention_mask, **kwargs)
    masking, scoring = block.active("mask", layer), block.active("scores", layer)
    rows = block.rows((*masking, *scoring))
    with torch.autocast(query.device.type, enabled=False):
        for piece in rows.pieces(query.shape[1] if scoring else 1, key.shape[2]):  # a mask is one for all heads
            window = kwargs.get("sliding_window")
            before = masks(piece.index, attention_mask, block.first, block.stop, window, piece.even)
            allowed = edited(block, before, layer, piece, masking, 0)
            if scoring:
                redone = rescored(block, layer, piece, (query, key, value), before, allowed, kwargs.get("scaling"))
            else:
                redone = remasked(piece, (query, key, value), before, allowed, kwargs.get("scaling"))
            if redone is not None:
                out = piece.put(out, *redone)
    return out, weights


def edited(block: Block, x: Tensor, layer: int, piece: Rows, active: Sequence[int], offset: int) -> Tensor:
    """Every active intervention's edit of its own rows (…, R, N), in order; `offset` is where they begin in `owned`."""
    for place, i in enumerate(active, offset):
        if not piece.any_owned[place]:
            continue
        mine = piece.owned[place]
        after = block.edit(i, x, layer, piece.index, mine)
        x = x if block.calibrating else merged(x, after, mine[:, None, :, None], whole=piece.all_owned[place])
    return x


def remasked(
    piece: Rows, states: tuple[Tensor, Tensor, Tensor], before: Tensor, allowed: Tensor, scaling: float | None
) -> tuple[Tensor, Tensor] | None:
    """The rows (B, R, H, D) under an edited mask, and which of them it changed (B, R, H); None if none."""
    query, key, value = states
    if allowed is before or not (changed := differing(allowed, before)).any():
        return None
    changed = changed.expand(-1, query.shape[1], -1).transpose(1, 2)
    return attention(piece.take(query), key, value, allowed, scaling).transpose(1, 2), changed


def rescored(
    block: Block,
    layer: int,
    piece: Rows,
    states: tuple[Tensor, Tensor, Tensor],
    before: Tensor,
    allowed: Tensor,
    scaling: float | None,
) -> tuple[Tensor, Tensor] | None:
    """The rows (B, R, H, D) with edited scores, and which of them changed (B, R, H); None if none."""
    query, key, value = states
    raw = scores(piece.take(query), key, scaling)
    made = None if allowed is before else raw + allowed
    plain = raw.add_(before)
    scoring = block.active("scores", layer)
    made = plain if made is None else made
    made = edited(block, made, layer, piece, scoring, len(piece.owned) - len(scoring))
    if made is plain:
        return None
    changed = differing(made, plain).transpose(1, 2)
    return grouped(made.softmax(-1).to(value.dtype), value).transpose(1, 2), changed
