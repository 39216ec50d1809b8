"""HiPrune (2025, arXiv 2508.00553): object anchors of a middle layer with their neighbours, registers of a late one."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, top
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class HiPrune:
    """Anchors are the round(K · alpha / 5) tokens that receive most attention in the object layer, buffers their four
    neighbours on the grid, and registers the tokens that receive most in the last but one layer and are not yet chosen.

    Attention is the mean over heads and all queries, so no CLS token is needed. The paper's object layer is 9 of 24
    (CLIP) or 16 of 32 (Qwen); ours is a share of the depth. Where buffers overflow the budget, the earlier stay. At the
    paper's alpha a budget below 26 has no anchor by that rounding, and the choice is FoPru's.
    """

    keep: Keep = 0.25
    alpha: float = 0.1
    object_layer: float = 0.375  # of the vision tower's depth
    register_layer: int = -2

    def __post_init__(self) -> None:
        checked(self.keep)
        if not 0 <= self.alpha <= 5 or not 0 <= self.object_layer < 1:
            raise SpecError(f"alpha={self.alpha} is not in [0, 5], or object_layer={self.object_layer} not in [0, 1)")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(int(self.object_layer * eyes), self.register_layer))

    def scores(self, sight: Sight) -> Tensor:
        return sight.received(self.register_layer)

    def choose(self, sight: Sight, count: int) -> Choice:
        middle = sight.eye.received(int(self.object_layer * sight.eye.depth))
        anchors = top(sight.here(middle), min(count, round(count * self.alpha / 5))).index
        rank = {place: i for i, place in enumerate(sight.places.tolist())}
        chosen = dict.fromkeys(anchors.tolist())
        for place in sight.places[anchors].tolist():
            chosen |= dict.fromkeys(rank[near] for near in around(place, *sight.grid) if near in rank)
        first = list(chosen)[:count]
        rest = self.scores(sight).detach().clone()
        rest[first] = float("-inf")
        more = top(rest, count - len(first)).index
        found = torch.tensor(first, dtype=torch.long, device=more.device)
        return Choice(torch.cat([found, more]).sort().values)


def around(place: int, rows: int, columns: int) -> list[int]:
    """The four neighbours of a place on a grid, as far as they are on it.

    >>> around(0, 3, 3), around(4, 3, 3)
    ([3, 1], [1, 7, 3, 5])
    """
    row, column = divmod(place, columns)
    steps = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    return [r * columns + c for r, c in steps if 0 <= r < rows and 0 <= c < columns]
