"""The attention seam: inside `intervening(...)`, interventions edit what they ask for, and the rest is left as it is.

One function is registered with transformers under one name; outside the block no model uses it. Inside, every row goes
through the attention that the model had (SDPA, FlashAttention), and only the edited rows are computed again from their
queries, in O(n) a row. A row that comes back from its editors unchanged keeps the very bits that it had; so do single
heads of a row, but where attention is had part by part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from morgana.generation._block import Block, Intervention, current
from morgana.generation._hooks import hooked
from morgana.generation._matching import watched
from morgana.generation._positions import turned
from morgana.generation._redoing import divides, redone, reshared, splits
from morgana.generation._sparing import beginning, filled, needed
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
    if not spans:
        raise SpecError("no spans; give those of every prompt of the batch, as HF.write does")
    base = outer.base if before == NAME and outer else before
    layout = Layout(tuple(spans), model.device)
    block = Block(model, tuple(interventions), layout, reference, base, calibration)
    token, matching = current.set(block), watched(model, spans)
    try:
        with hooked(block):
            model.set_attn_implementation({key: NAME})
            yield block
    finally:
        model.set_attn_implementation({key: before})
        current.reset(token)
        matching.remove()


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


@cache
def attentions() -> Any:
    """Transformers' table of them, which is loaded late."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of (B, H, Q, D) queries: (B, Q, H, D), with the rows of the active block edited."""
    block = current.get()
    plain = attentions()[base_name()]
    if block is None:
        return plain(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    layer = module.layer_idx
    block.open(query.shape[2], key.shape[2], len(query), layer)
    query, key = turned(block, layer, query, key)
    masking, scoring, weighing = (block.active(place, layer) for place in ("mask", "scores", "weights"))
    active = (*masking, *scoring, *weighing)
    rows, window = block.rows(active), kwargs.get("sliding_window")
    states = (query, key, value)
    alike = attention_mask is None and window is None and rows.even is not None
    simple = alike and not (masking or scoring)
    sharing = divides(block, active, rows)
    parts = block.parts(active[0], block.view(active[0], layer, rows.index, rows.owned[0])) if sharing else None
    if sharing and parts is None:
        return plain(module, *states, attention_mask, **kwargs)  # type: ignore[no-any-return]
    served = needed(block, active, rows, states) if alike else query.shape[2]
    out, weights = plain(module, *beginning(states, served), attention_mask, **kwargs)
    out = filled(out, query.shape[2])
    scaling = kwargs.get("scaling")
    if parts is not None and simple and splits(states, rows):
        made = reshared(block, layer, rows, states, parts, scaling)
    else:
        made = redone(block, layer, rows, states, attention_mask, window, scaling, simple=simple)
    with uncast(query.device.type):
        for piece, fresh in made:
            if served < query.shape[2] and (fresh is None or fresh[1] is not None):  # some row stays as it was
                assert piece.even is not None
                start, served = piece.even[0], query.shape[2]
                block.partly.add(active)
                late, _ = plain(module, *states, attention_mask, **kwargs)
                out = torch.cat([out[:, :start], late[:, start:]], 1)
            if fresh is not None:
                out = piece.put(out, *fresh)
    return out, weights


def uncast(device: str) -> AbstractContextManager[Any]:
    """Autocast off, at no cost where it is not on."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
