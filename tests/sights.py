"""Sights of random towers in float64, and the attention in them row by row, for what is checked without a model."""

from __future__ import annotations

import numpy as np
import torch

from morgana.generation.sight import Eye, Operands, Sight
from morgana.generation.watching import Taken

SIDE, HEADS, WIDTH = 4, 2, 6
N = SIDE * SIDE
LENGTH, EYES = 30, 4


def taken(lot, length, scale=1.5):
    made = (scale * torch.randn(1, HEADS, length, WIDTH, generator=lot, dtype=torch.float64) for _ in range(3))
    return Taken(*made, WIDTH**-0.5)


class Square(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x.square(), x[..., :1].exp()], -1)


def prompt(layer=0, images=1, seed=0):
    """The sights of one prompt: images of 16 tokens from place 2 on, behind each other, then a question."""
    lot = torch.Generator().manual_seed(seed)
    length = LENGTH + N * (images - 1)
    row = torch.randn(length, 10, generator=lot, dtype=torch.float64)
    runs = [torch.arange(2 + N * i, 2 + N * (i + 1)) for i in range(images)]
    index = torch.arange(length)
    words = torch.tensor([0, 1, *range(2 + N * images, length)])
    operands = {i: Operands(taken(lot, length), index) for i in range(4)}
    moves = {i: tuple((torch.randn_like(row), torch.randn_like(row)) for _ in range(2)) for i in range(4)}
    siblings = []
    for number, tokens in enumerate(runs):
        projected = torch.randn(N, 5, generator=lot, dtype=torch.float64)
        eye = Eye({i: taken(lot, N + 1) for i in range(EYES)}, EYES, N, None, projected, Square())
        siblings.append(
            Sight(
                layer=layer,
                tokens=tokens,
                places=torch.arange(N),
                states=row[tokens],
                text=words,
                question=torch.arange(length - 6, length - 2),
                visual=torch.cat(runs),
                row=row,
                index=index,
                eye=eye,
                number=number,
                siblings=siblings,
                operands=operands,
                moves=moves,
                moved=dict.fromkeys(moves, index),
            )
        )
    return tuple(siblings)


def softmax(scores):
    weight = np.exp(np.asarray(scores) - max(scores))
    return weight / sum(weight)


def attention(found: Taken, *, causal=False):
    """(Q, K), mean over heads."""
    query, key = found.query[0].numpy(), found.key[0].numpy()
    mean = np.zeros((query.shape[1], key.shape[1]))
    for head in range(HEADS):
        for i in range(query.shape[1]):
            seen = i + 1 if causal else key.shape[1]
            mean[i, :seen] += softmax(key[head, :seen] @ query[head, i] * found.scaling) / HEADS
    return mean


def cls(sight, layer=EYES - 2):
    return attention(sight.eye.taken[layer])[0, 1:]


def received(sight, layer=EYES - 2):
    return attention(sight.eye.taken[layer]).mean(0)[1:]


def text(sight, layer):
    """(Q, K) of a layer of the language model."""
    return attention(sight.operands[layer].taken, causal=True)


def cosines(left, right=None):
    right = left if right is None else right
    return np.array([[a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for b in right] for a in left])


def stretched(values):
    return (values - min(values)) / (max(values) - min(values))


def best(values, count):
    """The places of the largest, in order."""
    return sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:count])
