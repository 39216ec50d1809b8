"""Tokens at even distances over the image."""

from __future__ import annotations

import torch

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked
from morgana.generation.sight import Sight
from morgana.spec import part


@part
class UniformGrid:
    """Tokens at even distances in rows and columns, before the language model; the second floor, beside RandomTokens.

    The grid has the image's shape as nearly as the budget allows; what is left over goes to the widest gaps in reading
    order, so the budget is met exactly. Where another pruner was first, the nearest token that it left stands in.
    """

    keep: Keep = 0.25

    def __post_init__(self) -> None:
        checked(self.keep)

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(grid=True)

    def choose(self, sight: Sight, count: int) -> Choice:
        rows, columns = sight.grid
        return Choice(nearest(lattice(rows, columns, count), sight.places, columns))


def lattice(rows: int, columns: int, count: int) -> torch.Tensor:
    """`count` sorted places of a grid, evenly spread.

    >>> lattice(4, 4, 4).tolist()
    [5, 7, 13, 15]
    """
    height = min(rows, max(1, round((count * rows / columns) ** 0.5)), count)
    width = min(columns, count // height)
    chosen = {r * columns + c for r in spread(rows, height) for c in spread(columns, width)}
    rest = [i for i in range(rows * columns) if i not in chosen]
    chosen |= {rest[i] for i in spread(len(rest), count - len(chosen))}
    return torch.tensor(sorted(chosen))


def nearest(wanted: torch.Tensor, left: torch.Tensor, columns: int) -> torch.Tensor:
    """Sorted ranks among the places `left` of a grid: every place wanted, or the nearest that is free in its stead.

    >>> nearest(torch.tensor([0, 8]), torch.tensor([4, 5, 8]), 3).tolist()
    [0, 2]
    """
    rank = {place: i for i, place in enumerate(left.tolist())}
    chosen = [place for place in wanted.tolist() if place in rank]
    free = sorted(rank.keys() - set(chosen))
    for place in wanted.tolist():
        if place not in rank:
            row, column = divmod(place, columns)
            steps = [(p // columns - row) ** 2 + (p % columns - column) ** 2 for p in free]
            chosen.append(free.pop(steps.index(min(steps))))
    return torch.tensor(sorted(rank[place] for place in chosen), device=left.device)


def spread(length: int, count: int) -> list[int]:
    """`count` whole numbers below `length`, at even distances, centred."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
