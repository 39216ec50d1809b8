"""Moving tokens to other positions after the fact: rotary embeddings compose, so a turn by the difference is enough."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from morgana.generation._block import Block, current


def listen(block: Block, decoder: Any) -> Any:
    """Remember the positions that every pass gives to the rotary embedding."""
    return decoder.rotary_emb.register_forward_pre_hook(partial(hear, block), with_kwargs=True)


def hear(block: Block, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    now = current.get()
    if now is None or block not in (now, now.root):
        return
    positions = args[1] if len(args) > 1 else kwargs["position_ids"]
    x = args[0] if args else kwargs["x"]
    positions = positions.expand(*positions.shape[:-2], len(x), -1)  # (B, Q), or (3, B, Q) with three axes
    if positions.shape[-1] >= now.layout.length or now.angles is None:
        now.angles = module, positions
    else:
        now.angles = module, torch.cat([now.angles[1], positions], -1)


def turned(block: Block, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys as if their tokens stood where the active interventions put them."""
    active = block.active("positions", layer)
    if not active:
        return query, key
    rotary, positions = block.angles[0], left(block, block.angles[1])
    index = torch.arange(block.stop, device=query.device).expand(len(query), -1)
    flat = positions if positions.dim() == 2 else positions[0]
    plain = made = flat[:, None].to(torch.float32)
    for i in active:
        made = block.edit(i, made, layer, index, torch.ones_like(index, dtype=torch.bool), states=(query, key))
    if made is plain or torch.equal(made, plain.expand_as(made)):
        return query, key
    factor = (made - plain) / torch.where(plain == 0, 1, plain)  # every axis of a position moves in proportion
    turn = cos_sin(rotary, positions, factor)
    return rotate(query, *(t[:, :, -query.shape[2] :] for t in turn)), rotate(key, *turn)


def left(block: Block, positions: Tensor) -> Tensor:
    """The positions (…, B, N) of the tokens that pruning inside the model has left, and of those decoded since."""
    if block.among is None:
        return positions
    begun = positions.shape[-1] - (block.stop - block.among.shape[1])  # tokens that the prompt's pass began with
    index = block.among.expand(*positions.shape[:-1], -1)
    return torch.cat([positions[..., :begun].gather(-1, index), positions[..., begun:]], -1)


def cos_sin(rotary: Any, positions: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, G, N, D) of a turn by `positions` x `factor` (B, G, N)."""
    batch, groups, keys = factor.shape
    moved = positions[..., None, :] * factor  # (B, G, N) or (3, B, G, N)
    # forward, not the call: `hear` must not take these for the positions of a pass
    moved = moved.reshape(*positions.shape[:-2], batch * groups, keys)
    cos, sin = rotary.forward(torch.zeros(1, dtype=torch.float32, device=factor.device), moved)
    scale = getattr(rotary, "attention_scaling", 1.0)
    shape = (batch, groups, keys, cos.shape[-1])
    if scale != 1:
        cos, sin = cos / scale, sin / scale
    return cos.reshape(shape), sin.reshape(shape)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, N, D) turned, in the halves that transformers pairs; each of G turns serves H / G heads."""
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    if (share := x.shape[1] // cos.shape[1]) > 1:
        cos, sin = (t.repeat_interleave(share, 1) for t in (cos, sin))
    low, high = wide.chunk(2, -1)
    made = wide * cos.to(wide.dtype)
    return made.addcmul_(torch.cat([-high, low], -1), sin.to(wide.dtype)).to(x.dtype)
