"""Plain attention for the rows that nobody replaces.

An edit mostly changes every row that it asks for, and these are often the rest of the prompt: plain attention to them
would be thrown away. The rows before keep the bits that they have in a whole pass, since torch's kernel for CPUs takes
queries and keys in blocks, and whole blocks are left out. Which blocks other kernels take is theirs to choose, so that
all rows are served there.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from morgana.generation._block import Block
from morgana.generation._rows import Rows

States: TypeAlias = tuple[Tensor, Tensor, Tensor]  # (B, H, Q, D) queries, (B, G, N, D) keys and values

QUERIES, KEYS = 256, 512  # of a block
LONG = 768  # queries: shorter passes have smaller blocks


def needed(block: Block, active: tuple[int, ...], rows: Rows, states: States) -> int:
    """How many of the first queries plain attention has to serve: all, unless those active edit the rest."""
    count, device = states[0].shape[2], states[0].device.type
    if rows.even is not None and rows.even[0] > count - QUERIES:  # the last rows, and nothing to spare before them
        return count
    if rows.even is None or rows.even[1] < count or block.first or block.calibrating or active in block.partly:
        return count
    blocks = device == "cpu" and block.base in ("sdpa", "eager") and not torch.is_autocast_enabled("cpu")
    if not blocks or (torch.is_grad_enabled() and any(x.requires_grad for x in states)):
        return count
    return min(count, max(LONG, -(-rows.even[0] // QUERIES) * QUERIES))


def beginning(states: States, count: int) -> States:
    """The first `count` queries, and the keys and values of the whole blocks that they look into."""
    query, key, value = states
    if count == query.shape[2]:
        return states
    keys = -(-count // KEYS) * KEYS
    return query[:, :, :count], key[:, :, :keys], value[:, :, :keys]


def filled(out: Tensor, count: int) -> Tensor:
    """`out` (B, Q, H, D) with room for `count` queries."""
    if out.shape[1] == count:
        return out
    made = out.new_empty(len(out), count, *out.shape[2:])
    made[:, : out.shape[1]] = out
    return made
