"""A start that can already copy: an induction circuit written into a Llama's first two layers.

Left to itself, a decoder of this size finds copying out of context only after tens of thousands of sequences. The
circuit that it then finds is known (Olsson et al. 2022, "In-context learning and induction heads"): a head that looks
one token back, and heads in the next layer that look for places which followed the present token and repeat what
stands there. We write that circuit into the random weights, as mimetic initialisation does for other structure
(Trockman & Kolter 2023); every weight is trained afterwards. The gains below are ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHARP = 6.0  # nats by which the previous token leads its neighbours, about
MATCH = 15.0  # nats that an equal token is ahead of an unrelated one


@torch.no_grad()
def write_induction(model: Any, generator: torch.Generator) -> None:
    """Write the circuit into `model` (a LlamaModel of two layers and four heads or more, each with own keys)."""
    config = model.config
    width, heads, size = (
        config.hidden_size,
        config.num_attention_heads,
        config.hidden_size // config.num_attention_heads,
    )
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q.T  # rows: an orthonormal basis
    constant, content = basis[0], basis[1 : 1 + heads * (size // 2)]
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q  # where the previous token is filed
    for layer in model.layers:  # nothing else speaks at first, so that the circuit is heard
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    give_constant(model.embed_tokens.weight, constant)
    look_back(model.layers[0].self_attn, constant, content, turn, frequencies(model), heads, size)
    look_up(model.layers[1].self_attn, content, turn, width, heads, size)


def frequencies(model: Any) -> Tensor:
    """Rotary frequencies, radians a position, fastest first; (size / 2,)."""
    return model.rotary_emb.inv_freq.detach().float().cpu()  # type: ignore[no-any-return]


def give_constant(embeddings: Tensor, constant: Tensor) -> None:
    """Let every token share one direction of its own size, for heads that only look at positions."""
    length = embeddings.norm(dim=1).mean()
    embeddings.sub_(embeddings @ constant[:, None] * constant).add_(length * constant)


def look_back(
    attention: Any, constant: Tensor, content: Tensor, turn: Tensor, speed: Tensor, heads: int, size: int
) -> None:
    """Half of the heads attend one token back and file what they see, turned, beside the token itself."""
    half = size // 2
    fast = (speed > 0.02).float()
    lead = ((1 - speed.cos()) * fast).sum()  # of one position, at gain 1
    seen = (content.shape[1] / 2) ** 0.5  # length of the constant part behind the norm
    gain = (SHARP / lead * size**0.5).sqrt() / seen
    query = torch.cat([fast, torch.zeros(half)]) * gain
    key = torch.cat([fast * speed.cos(), fast * speed.sin()]) * gain
    for head in range(heads // 2):
        rows = slice(head * size, (head + 1) * size)
        mine = content[head * size : (head + 1) * size]
        attention.q_proj.weight[rows] = query[:, None] * constant
        attention.k_proj.weight[rows] = key[:, None] * constant
        attention.v_proj.weight[rows] = mine
        attention.o_proj.weight[:, rows] = 0.04 * turn @ mine.T


def look_up(attention: Any, content: Tensor, turn: Tensor, width: int, heads: int, size: int) -> None:
    """Every head attends to what followed the present token before, and together they repeat it."""
    quarter = size // 4
    seen = 0.3 * width  # squared length of the token's part behind the norm, and of its predecessor's, about
    gain = (MATCH * size**0.5 * width / (size // 2) / seen) ** 0.5
    whole = torch.eye(width)
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        match = content[head * (size // 2) : (head + 1) * (size // 2)]
        slow = torch.cat([torch.arange(quarter, 2 * quarter), torch.arange(3 * quarter, 4 * quarter)])
        for projection, sought in ((attention.q_proj, match), (attention.k_proj, match @ turn.T)):
            block = torch.zeros(size, width)
            block[slow] = gain * sought
            projection.weight[rows] = block
        attention.v_proj.weight[rows] = whole[rows]
        attention.o_proj.weight[:, rows] = 0.1 * whole[:, rows]
