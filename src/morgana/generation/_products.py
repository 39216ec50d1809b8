"""Scaled products of queries and keys, and the masks that go with them, whatever form the model gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

HIDDEN = float("-inf")
LEAST = 1e-30  # a share that is none
FLASH: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """(B, H, R, N) scaled products, in float32 at least; keys may have fewer heads."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    return grouped(query.to(wide) * scaling, key.to(wide).transpose(2, 3))


def grouped(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` where several heads of `left` (B, H, R, K) share one of `right` (B, G, K, M)."""
    batch, heads, rows, inner = left.shape
    shared = right.shape[1]
    made = left.reshape(batch, shared, heads // shared * rows, inner) @ right
    return made.view(batch, heads, rows, right.shape[-1])


def shared(weights: Tensor, parts: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """Weights (B, H, R, K) with edited shares of `parts` (B, 1, P, N); where a share stays they keep their bits."""
    member = parts[..., : weights.shape[-1]].to(weights.dtype)
    shares = grouped(weights, member.transpose(2, 3))
    after = edit(shares)
    if after is shares:
        return weights
    gains = torch.where(after == shares, 1.0, after / shares.clamp(min=LEAST))
    return weights * grouped(gains, member)


def split(
    query: Tensor, key: Tensor, value: Tensor, parts: Tensor, first: int, scaling: float | None
) -> tuple[list[Tensor], Tensor]:
    """Causal attention of the tokens from `first` on to each part of the keys alone, and the parts' shares of it all.

    P of (B, H, R, D), and (B, H, R, P), for parts (B, 1, P, N). Nobody holds the scores: FlashAttention gives the
    logarithm of its sum beside its rows, and the softmax of these over the parts are the shares.
    """
    repeated = query.shape[1] // key.shape[1]
    if repeated > 1:
        key, value = (x.repeat_interleave(repeated, 1) for x in (key, value))
    made, logs = [], []
    for part in parts[:, 0, :, : first + query.shape[2]].unbind(1):  # later keys are seen by none
        prompts = zip(query[:, None], key[:, None], value[:, None], part, strict=True)
        each = [alone(q, k, v, here.nonzero().flatten(), first, scaling) for q, k, v, here in prompts]
        made.append(torch.cat([out for out, _ in each]))
        logs.append(torch.cat([log for _, log in each]))
    return made, torch.stack(logs, -1).softmax(-1)


def alone(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, first: int, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """One prompt's causal attention (1, H, R, D) to some keys (K,), and the logarithm of its sum (1, H, R)."""
    heads, rows = query.shape[1:3]
    low, high = (int(keys[0]), int(keys[-1])) if len(keys) else (first + rows, 0)
    blind = min(rows, max(0, low - first))  # rows before all of these keys
    wide = torch.promote_types(query.dtype, torch.float32)
    out, log = query.new_zeros(1, heads, rows, value.shape[-1]), query.new_full((1, heads, rows), HIDDEN, dtype=wide)
    if blind < rows:
        chosen = slice(low, high + 1) if high - low == len(keys) - 1 else keys
        place = torch.arange(first + blind, first + rows)
        late = torch.where(keys > place[:, None], HIDDEN, 0.0).to(query.dtype) if high > first + blind else None
        seen = key[:, :, chosen], value[:, :, chosen]
        out[:, :, blind:], log[:, :, blind:] = FLASH(
            query[:, :, blind:], *seen, 0.0, False, attn_mask=late, scale=scaling
        )
    return out, log


def corner(rows: tuple[int, int], keys: int, device: torch.device) -> Tensor:
    """(1, 1, R, keys - rows[0]) the part of the causal mask that hides anything from these tokens: its last columns."""
    return torch.full((1, 1, rows[1] - rows[0], keys - rows[0]), HIDDEN, device=device).triu_(1)


def masks(
    index: Tensor,
    attention_mask: Tensor | None,
    first: int,
    keys: int,
    window: int | None,
    even: tuple[int, int] | None = None,
) -> Tensor:
    """(B, 1 or H, R, N) what is added to the scores of rows `index` (B, R): -inf where they must not see.

    `even` are the queries that the rows are, if they are the same run of them in every prompt.
    """
    if attention_mask is None and window is None and even is not None:
        start = first + even[0]
        made = torch.nn.functional.pad(corner((start, first + even[1]), keys, index.device), (start, 0))
        return made.expand(len(index), -1, -1, -1)
    place = index - first
    if attention_mask is None or attention_mask.dim() == 2:  # causal; 2: FlashAttention's padding mask
        column, row = torch.arange(keys, device=index.device), index[:, None, :, None]
        seen = column <= row
        if window is not None:
            seen = seen & (column > row - window)
        if attention_mask is not None:
            seen = seen & attention_mask[:, None, None, :keys].bool()
        return torch.zeros(seen.shape, device=index.device).masked_fill(~seen, HIDDEN)
    rows = attention_mask[..., :keys].expand(len(index), -1, -1, -1)
    if even is not None:
        picked = rows[:, :, slice(*even)]
    else:
        picked = rows.gather(2, place[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3]))
    if picked.dtype == torch.bool:
        return torch.zeros(picked.shape, device=index.device).masked_fill(~picked, HIDDEN)
    hidden = picked <= torch.finfo(picked.dtype).min / 2
    return picked.to(torch.promote_types(picked.dtype, torch.float32)).masked_fill(hidden, HIDDEN)


def differing(made: Tensor, plain: Tensor, *, spent: bool = False) -> Tensor:
    """(…, R) which rows (…, R, N) differ anywhere; in floats, which is several times as fast as in truth values.

    `spent`: nobody needs `plain` any more, so that it is written over.
    """
    made, plain = made.detach(), plain.detach()
    return torch.ne(made, plain, out=plain if spent else torch.empty_like(made)).amax(-1) > 0


def reach(mask: Tensor) -> int:
    """How many keys there are up to the last that any row of `mask` (B, H, R, N) sees; all if they see none."""
    keys = sighted(mask)
    return int(keys.stop) if isinstance(keys, slice) else int(keys[-1]) + 1


def sighted(mask: Tensor) -> Tensor | slice:
    """The keys that any row of `mask` (B, H, R, N) sees; all if they see none."""
    seen = (mask.detach().amax((0, 1, 2)) > HIDDEN).nonzero().flatten()
    stop = int(seen[-1]) + 1 if len(seen) else mask.shape[-1]
    return seen if 0 < len(seen) < stop else slice(stop)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """(B, H, R, D) attention of a few rows under their own mask, without holding their scores.

    The mask is what is added to the scores, or what may be seen.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    kind = torch.promote_types(query.dtype, value.dtype)
    made: Tensor = torch.nn.functional.scaled_dot_product_attention(
        query.to(kind),
        key.to(kind),
        value.to(kind),
        attn_mask=mask if mask.dtype == torch.bool else mask.to(kind),
        scale=scaling,
    )
    return made
