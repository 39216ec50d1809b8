"""Attention to parts of the keys: how much each part has, and the rows mixed again after somebody changed that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from morgana.generation._products import HIDDEN, grouped

LEAST = 1e-30  # a share that is none
FLASH: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


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
        each = [alone(*prompt, first, scaling) for prompt in prompts]
        made.append(torch.cat([out for out, _ in each]))
        logs.append(torch.cat([log for _, log in each]))
    return made, torch.stack(logs, -1).softmax(-1)


def alone(
    query: Tensor, key: Tensor, value: Tensor, mine: Tensor, first: int, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """One prompt's causal attention (1, H, R, D) to the keys that are `mine` (N,), and the log of its sum (1, H, R).

    Keys before all rows are chosen; the later ones are all there and hidden where they are not `mine`, so that whose
    the keys behind a row are moves not one bit of it.
    """
    early, late = mine[:first].nonzero().flatten(), mine[first:]
    found = []
    if len(early):
        low, high = int(early[0]), int(early[-1]) + 1
        chosen = slice(low, high) if high - low == len(early) else early
        found.append(FLASH(query, key[:, :, chosen], value[:, :, chosen], 0.0, False, scale=scaling))
    if late.any():
        seen = late.expand(len(late), -1).tril()
        hidden = torch.zeros(seen.shape, dtype=query.dtype).masked_fill(~seen, HIDDEN)
        rows = slice(first, first + len(late))
        out, log = FLASH(query, key[:, :, rows], value[:, :, rows], 0.0, False, attn_mask=hidden, scale=scaling)
        blind = ~seen.any(-1)
        found.append((out.masked_fill(blind[:, None], 0), log.masked_fill(blind, HIDDEN)))
    if not found:
        wide = torch.promote_types(query.dtype, torch.float32)
        log = query.new_full(query.shape[:3], HIDDEN, dtype=wide)
        return query.new_zeros(*query.shape[:3], value.shape[-1]), log
    if len(found) == 1:
        return found[0]  # type: ignore[no-any-return]
    both = torch.logaddexp(found[0][1], found[1][1])
    out, more = (x * (log - both).exp()[..., None].to(x.dtype) for x, log in found)
    return out + more, both
