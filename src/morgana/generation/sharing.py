"""Dividing one budget among images: whole numbers of a given sum, and where tiles lie in an overview."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fair(total: int, wanted: Sequence[float], most: Sequence[int]) -> tuple[int, ...]:
    """Whole numbers near `wanted` whose sum is `total`, none above `most`; the largest remainders are rounded up.

    >>> fair(10, [3.6, 3.6, 2.8], [9, 9, 9]), fair(10, [9.0, 1.0], [4, 9])
    ((4, 3, 3), (4, 6))
    """
    counts = [min(limit, int(want)) for want, limit in zip(wanted, most, strict=True)]
    order = sorted(range(len(counts)), key=lambda i: (int(wanted[i]) - wanted[i], i))
    while (short := total - sum(counts)) != 0:
        changed = False
        for i in order if short > 0 else order[::-1]:
            step = 1 if short > 0 else -1
            if short and 0 <= counts[i] + step <= most[i]:
                counts[i] += step
                short -= step
                changed = True
        if not changed:
            break
    return tuple(counts)


def together(scores: Sequence[Tensor], total: int) -> tuple[int, ...]:
    """How many of the best `total` tokens of all images lie in each."""
    owner = torch.cat([torch.full((len(s),), i) for i, s in enumerate(scores)])
    order = torch.cat([s.detach().cpu() for s in scores]).argsort(descending=True, stable=True)
    return tuple(torch.bincount(owner[order[:total]], minlength=len(scores)).tolist())


def squarest(count: int) -> tuple[int, int]:
    """Rows and columns of the squarest grid with `count` fields or a few more.

    >>> squarest(4), squarest(6), squarest(3)
    ((2, 2), (2, 3), (2, 2))
    """
    columns = int(count**0.5)
    columns += columns * columns < count
    return -(-count // columns), columns


def tiles(rows: int, columns: int, count: int, mosaic: tuple[int, int] | None = None) -> Tensor:
    """(rows · columns,) in which of `count` tiles each place of an overview lies; the last takes empty fields.

    Tiles lie on the grid `mosaic`, or on the squarest that holds them.
    """
    down, across = mosaic or squarest(count)
    row = torch.arange(rows) * down // rows
    column = torch.arange(columns) * across // columns
    return (row[:, None] * across + column[None]).flatten().clamp(max=count - 1)


def window(
    overview: Tensor, count: int, tile: int, grid: tuple[int, int], mosaic: tuple[int, int] | None = None
) -> Tensor:
    """The part of an overview (R, C) that one of `count` tiles shows, resized to `grid`; differentiable."""
    down, across = mosaic or squarest(count)
    (rows, columns), (row, column) = overview.shape, divmod(tile, across)
    first, last = row * rows // down, max(row * rows // down + 1, (row + 1) * rows // down)
    left, right = column * columns // across, max(column * columns // across + 1, (column + 1) * columns // across)
    cut = overview[None, None, first:last, left:right]
    return torch.nn.functional.interpolate(cut, size=grid, mode="bilinear", align_corners=False)[0, 0]
