"""The attention seam: inside `intervening(...)`, interventions edit scores of the rows that they ask for.

One function is registered with transformers under one name; outside the block no model uses it. Inside, every row goes
through the attention that the model had (SDPA, FlashAttention), and only the edited rows are computed again from their
queries, in O(n). A row that comes back from its editors unchanged keeps the very bits that it had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from morgana.generation.layout import Layout
from morgana.generation.prompts import Spans
from morgana.types import SpecError

NAME = "morgana"


@dataclass(frozen=True, eq=False)
class Reference:
    """What the last prompt row of a calibration pass gave to the image, by layer: each (B, H)."""

    log_odds: dict[int, Tensor]  # log of visual mass / text mass
    sharpness: dict[int, Tensor]  # 1 - entropy / log N, in [0, 1]


@runtime_checkable
class Intervention(Protocol):
    """Edits attention scores before the softmax, on the query rows it asks for."""

    @property
    def calibrates(self) -> bool:
        """Whether `edit` wants the reference of a pass over the same image and question without documents."""
        ...

    def rows(self, spans: Spans) -> range:
        """The query rows of one prompt that it edits, in tokens of the batch row."""
        ...

    def edit(self, scores: Tensor, layout: Layout, layer: int, reference: Reference | None) -> Tensor:
        """(B, H, R, N) scaled scores, -inf where masked, to edited ones; must not write into its argument."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """The query rows that somebody edits: `index` (B, R), filled up with 0 where a prompt has fewer.

    `real` lists those that are no filling, as places in the batch, in `index` and in the prompt; `owned` holds for each
    intervention which of `index` are its own, None if it asks for none.
    """

    index: Tensor
    real: tuple[Tensor, Tensor, Tensor]
    owned: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, interventions: Sequence[Intervention], layout: Layout) -> Rows:
        wanted = [[set(part.rows(spans)) for spans in layout.spans] for part in interventions]
        union = [sorted(set().union(*rows)) for rows in zip(*wanted, strict=True)]
        widest = max(map(len, union))
        filled = [row + [-1] * (widest - len(row)) for row in union]

        def among(rows: list[set[int]]) -> Tensor:
            found = [[t in mine for t in row] for row, mine in zip(filled, rows, strict=True)]
            return torch.tensor(found, device=layout.device)

        index = torch.tensor(filled, dtype=torch.long, device=layout.device)
        batch, place = (index >= 0).nonzero(as_tuple=True)
        owned = tuple(among(rows) if any(rows) else None for rows in wanted)
        return cls(index.clamp(min=0), (batch, place, index[batch, place]), owned)


@dataclass(eq=False)
class Block:
    """The state of one `intervening` block."""

    interventions: tuple[Intervention, ...]
    layout: Layout
    reference: Reference | None
    base: str  # the attention that the text tower had
    fired: set[int] = field(default_factory=set)

    @cached_property
    def rows(self) -> Rows:
        return Rows.of(self.interventions, self.layout)


_active: ContextVar[Block | None] = ContextVar("morgana_block", default=None)


@contextmanager
def intervening(
    model: Any, interventions: Sequence[Intervention], spans: Sequence[Spans], reference: Reference | None = None
) -> Iterator[None]:
    """Let the interventions edit the text tower's attention in the block; the model is restored in any case.

    SpecError when an intervention was never asked, or when the model is given other prompts than `spans` describes.
    """
    if not interventions:
        yield
        return
    register()
    key, before = text_tower(model)
    outer = _active.get()
    base = outer.base if before == NAME and outer else before
    block = Block(tuple(interventions), Layout(tuple(spans), model.device), reference, base)
    token = _active.set(block)
    try:
        model.set_attn_implementation({key: NAME})
        yield
    finally:
        model.set_attn_implementation({key: before})
        _active.reset(token)
    for i, part in enumerate(interventions):
        if i not in block.fired:
            raise SpecError(
                f"{part!r} did not fire: no forward pass of {type(model).__name__} edited its rows "
                f"{[part.rows(s) for s in spans][:4]}; run the model inside the block"
            )


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
    block = _active.get()
    return "sdpa" if block is None or block.base == "eager" else block.base


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of (B, H, Q, D) queries: (B, Q, H, D), with the rows of the active block edited."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    block = _active.get()
    out, weights = ALL_ATTENTION_FUNCTIONS[base_name()](module, query, key, value, attention_mask, **kwargs)
    if block is None or not prefill(block, query, key):
        return out, weights
    index = block.rows.index
    if not index.numel():
        return out, weights
    taken = query.gather(2, index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))
    plain = visible(scores(taken, key, kwargs.get("scaling")), index, attention_mask)
    edited = edit(block, plain, module.layer_idx)
    fresh = grouped(edited.softmax(-1).to(value.dtype), value).transpose(1, 2)  # (B, R, H, D)
    changed = (edited != plain).any(-1).transpose(1, 2)[..., None]
    batch, place, row = block.rows.real
    new = torch.where(changed[batch, place], fresh[batch, place], out[batch, row])
    put = out.index_put if out.requires_grad else out.index_put_
    return put((batch, row), new), weights


def prefill(block: Block, query: Tensor, key: Tensor) -> bool:
    """Whether this is the pass over the prompts; False in cached decoding. SpecError when the spans do not match."""
    rows, queries, keys, length = query.shape[0], query.shape[2], key.shape[2], block.layout.length
    if rows == len(block.layout.spans):
        if queries == length:
            return True
        if queries == 1 and keys > length:
            return False
    raise SpecError(
        f"the spans describe {len(block.layout.spans)} rows of {length} tokens, the model was given {rows} rows of "
        f"{queries} queries over {keys} keys; pass the spans of this very batch"
    )


def scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """(B, H, R, N) scaled products, in float32 at least; keys may have fewer heads."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    made = grouped(query * scaling, key.transpose(2, 3))
    return made if made.dtype == torch.float64 else made.float()


def grouped(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` where several heads of `left` (B, H, R, K) share one of `right` (B, G, K, M)."""
    batch, heads, rows, inner = left.shape
    shared = right.shape[1]
    made = left.reshape(batch, shared, heads // shared * rows, inner) @ right
    return made.view(batch, heads, rows, right.shape[-1])


def visible(scores: Tensor, index: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Scores with -inf on the keys that the rows must not see, whatever form the mask has."""
    if attention_mask is None or attention_mask.dim() == 2:  # causal; 2: FlashAttention's padding mask
        seen = torch.arange(scores.shape[-1], device=scores.device) <= index[:, None, :, None]
        if attention_mask is not None:
            seen = seen & attention_mask[:, None, None, : scores.shape[-1]].bool()
        return scores.masked_fill(~seen, float("-inf"))
    rows = attention_mask.expand(len(index), -1, -1, -1)
    picked = rows.gather(2, index[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3]))
    if picked.dtype == torch.bool:
        return scores.masked_fill(~picked, float("-inf"))
    seen = picked > torch.finfo(picked.dtype).min / 2
    return (scores + picked.masked_fill(~seen, 0)).masked_fill(~seen, float("-inf"))


def edit(block: Block, plain: Tensor, layer: int) -> Tensor:
    """Every intervention's edit of its own rows, in order."""
    edited = plain
    for i, (part, mine) in enumerate(zip(block.interventions, block.rows.owned, strict=True)):
        if mine is None:
            continue
        block.fired.add(i)
        after = part.edit(edited, block.layout, layer, block.reference)
        edited = torch.where(mine[:, None, :, None], after, edited)
    return edited
