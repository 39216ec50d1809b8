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


class Parted:
    """A layer's keys and values (B, G, N, D) for H heads, and every part's and prompt's own ones, gathered once."""

    def __init__(self, key: Tensor, value: Tensor, parts: Tensor, heads: int) -> None:
        repeated = heads // key.shape[1]
        if repeated > 1:
            key, value = (x.repeat_interleave(repeated, 1) for x in (key, value))
        self.key, self.value, self.parts = key, value, parts[:, 0]
        self.own = [
            [gathered(member.nonzero().flatten(), key[i : i + 1], value[i : i + 1]) for i, member in enumerate(part)]
            for part in self.parts.unbind(1)
        ]

    def split(self, query: Tensor, first: int, scaling: float | None) -> tuple[list[Tensor], Tensor]:
        """Causal attention of the tokens from `first` on to each part alone, and the parts' shares of it all.

        P of (B, H, R, D), and (B, H, R, P). Nobody holds the scores: FlashAttention gives the logarithm of its sum
        beside its rows, and the softmax of these over the parts are the shares.
        """
        prompts = range(len(query))
        each = [
            joined([self.alone(query[i : i + 1], p, i, first, scaling) for i in prompts]) for p in range(len(self.own))
        ]
        made, logs = zip(*each, strict=True)
        return list(made), torch.stack(logs, -1).softmax(-1)

    def alone(self, query: Tensor, part: int, prompt: int, first: int, scaling: float | None) -> tuple[Tensor, Tensor]:
        """One prompt's causal attention (1, H, R, D) to one part, and the log of its sum (1, H, R).

        Keys before all rows are the part's own; of the rows' own keys all are there and hidden where they belong to
        another part, so that whose the keys behind a row are moves not one bit of it.
        """
        rows = slice(first, first + query.shape[2])
        places, key, value = self.own[part][prompt]
        early, late, found = int((places < first).sum()), self.parts[prompt, part, rows], []
        if early:
            found.append(flash(query, key[:, :, :early], value[:, :, :early], scaling))
        if late.all():
            found.append(flash(query, *self.among(prompt, rows), scaling, causal=True))
        elif late.any():
            seen = late.expand(len(late), -1).tril()
            hidden = torch.zeros(seen.shape, dtype=query.dtype).masked_fill_(~seen, HIDDEN)
            out, log = flash(query, *self.among(prompt, rows), scaling, hidden)
            blind = ~seen.any(-1)
            found.append((out.masked_fill_(blind[:, None], 0), log.masked_fill_(blind, HIDDEN)))
        if not found:
            wide = torch.promote_types(query.dtype, torch.float32)
            log = query.new_full(query.shape[:3], HIDDEN, dtype=wide)
            return query.new_zeros(*query.shape[:3], self.value.shape[-1]), log
        if len(found) == 1:
            return found[0]
        both = torch.logaddexp(found[0][1], found[1][1])
        out, more = (x * (log - both).exp()[..., None].to(x.dtype) for x, log in found)
        return out.add_(more), both

    def among(self, prompt: int, rows: slice) -> tuple[Tensor, Tensor]:
        return self.key[prompt : prompt + 1, :, rows], self.value[prompt : prompt + 1, :, rows]


def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    hidden: Tensor | None = None,
    *,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    made: tuple[Tensor, Tensor] = FLASH(query, key, value, 0.0, causal, attn_mask=hidden, scale=scaling)
    return made


def gathered(places: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """These keys and values, without a copy where they follow one another."""
    count = len(places)
    if count and int(places[-1]) - int(places[0]) + 1 == count:
        run = slice(int(places[0]), int(places[-1]) + 1)
        return places, key[:, :, run], value[:, :, run]
    return places, key[:, :, places], value[:, :, places]


def joined(prompts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(prompts) == 1:
        return prompts[0]
    made, logs = zip(*prompts, strict=True)
    return torch.cat(made), torch.cat(logs)
