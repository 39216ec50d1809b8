"""Greedy selections as mathematics: similarities and scores in, sorted indices out; ties go to the earlier token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Row: TypeAlias = npt.NDArray[Any]  # (N,)

ASKED = 32  # tokens whose addition is computed anew at once


def smallest(scores: Tensor, ranks: Sequence[int]) -> Tensor:
    """(B, R, 1) the score of rank k, from 0, among those of every row of `scores` (B, R, N), for each k of B prompts.

    Numpy finds it twice as quickly as torch on a CPU.
    """
    if len(set(ranks)) > 1:
        return torch.cat([smallest(x[None], [k]) for x, k in zip(scores, ranks, strict=True)])
    k = ranks[0]
    if scores.device.type == "cpu":
        return torch.from_numpy(np.partition(scores.numpy(), k, -1)[..., k : k + 1])
    return scores.kthvalue(k + 1, -1, keepdim=True).values


def cosine(left: Tensor, right: Tensor | None = None) -> Tensor:
    """(N, M) cosines of rows of `left` (N, D) with those of `right` (M, D), or among themselves; float32 or more."""
    unit = [
        torch.nn.functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)
        for x in (left, right)
        if x is not None
    ]
    with torch.autocast(left.device.type, enabled=False):
        return unit[0] @ unit[-1].T


def farthest_first(similarity: Tensor, count: int, first: int) -> Tensor:
    """k-center greedy from `first`: always the token whose nearest chosen one is least similar, (count,) sorted."""
    nothing = torch.zeros(len(similarity), dtype=similarity.dtype, device=similarity.device)
    nothing[first] = 1
    return marginal(nothing, similarity, count, 0.0)


def marginal(importance: Tensor, similarity: Tensor, count: int, balance: float) -> Tensor:
    """Maximal marginal relevance: balance · importance − (1 − balance) · similarity to the nearest chosen, greedily.

    The first is the most important. A balance of 1 is top-k, and 0 is farthest-first.
    """
    worth = importance.detach().cpu().numpy()
    return grown(
        similarity, count, int(worth.argmax()), np.maximum, lambda near, _: balance * worth - (1 - balance) * near
    )


def max_sum(similarity: Tensor, count: int, first: int) -> Tensor:
    """Greedy max-sum diversity from `first`: always the token with the least summed similarity to the chosen."""
    return grown(similarity, count, first, np.add, lambda total, _: -total)


def grown(
    similarity: Tensor, count: int, first: int, join: Callable[[Row, Row], Row], gain: Callable[[Row, int], Row]
) -> Tensor:
    """Greedily from `first`, `count` tokens: always the one with the most `gain` (N,), of what `join` has made of the
    similarities (N,) to those chosen, and of their number.
    """
    table = similarity.detach().cpu().numpy()  # as hundreds of small steps are quickest there
    chosen, state = np.zeros(len(table), dtype=bool), table[:, first]
    chosen[first] = True
    for number in range(1, count):
        new = int(np.where(chosen, -np.inf, gain(state, number)).argmax())
        chosen[new], state = True, join(state, table[:, new])
    return torch.from_numpy(chosen.nonzero()[0]).to(similarity.device)


def cover(gains: Tensor, count: int, bonus: Tensor | None = None) -> Tensor:
    """Greedy maximum of Σ_r max_{j chosen} gains[r, j] + Σ_{j chosen} bonus[j], gains (R, N) of at least 0.

    Monotone and submodular where the bonus is of at least 0, so at least 1 − 1/e of the optimum. What a token adds can
    only shrink, so only those whose last known addition is among the largest are asked again (lazy greedy).
    """
    columns = gains.detach().T.cpu().contiguous().numpy()  # (N, R); in numpy, as in `grown`
    extra = np.zeros(len(columns), columns.dtype) if bonus is None else bonus.detach().cpu().numpy()
    best, bound = np.zeros_like(columns[0]), columns.sum(1) + extra
    chosen, many = np.zeros(len(columns), dtype=bool), min(ASKED, len(columns))
    for _ in range(count):
        known = chosen.copy()
        while not known[new := int(bound.argmax())]:
            ask = np.argpartition(np.where(known, -np.inf, bound), -many)[-many:]
            ask = ask[~known[ask]]
            bound[ask] = np.maximum(columns[ask] - best, 0).sum(1) + extra[ask]
            known[ask] = True
        chosen[new], bound[new] = True, -np.inf
        best = np.maximum(best, columns[new])
    return torch.from_numpy(chosen.nonzero()[0]).to(gains.device)
