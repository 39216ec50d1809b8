"""Scaled products of queries and keys, and the masks that go with them, whatever form the model gave."""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN = float("-inf")


def scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """(B, H, R, N) scaled products, in float32 at least; keys may have fewer heads."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    (batch, heads, rows, inner), (shared, keys) = query.shape, key.shape[1:3]
    left = query.to(wide).reshape(batch * shared, heads // shared * rows, inner)
    right = key.to(wide).reshape(batch * shared, keys, inner).transpose(1, 2)
    made = torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scaling)
    return made.view(batch, heads, rows, keys)


def grouped(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` where several heads of `left` (B, H, R, K) share one of `right` (B, G, K, M)."""
    batch, heads, rows, inner = left.shape
    shared = right.shape[1]
    made = left.reshape(batch, shared, heads // shared * rows, inner) @ right
    return made.view(batch, heads, rows, right.shape[-1])


def corner(rows: int, device: torch.device) -> Tensor:
    """(R, R) what hides from tokens that follow one another those behind them, added to scores."""
    return torch.full((rows, rows), HIDDEN, device=device).triu_(1)


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
        start, stop = first + even[0], first + even[1]
        made = torch.nn.functional.pad(corner(stop - start, index.device), (start, 0))
        made = torch.nn.functional.pad(made, (0, keys - stop), value=HIDDEN)
        return made.expand(len(index), 1, -1, -1)
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
