"""Images of any resolution (LLaVA-NeXT, LLaVA-OneVision): which patch of which view every visual token of one is.

Such a model sees an overview and tiles, and packs what it saw into one run of tokens, padding cut off and a token put
behind every row. It is asked to pack numbers beside, so nothing of how it packs is written here again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NAME = "pack_image_features"


@dataclass(frozen=True, eq=False)
class Pack:
    """One image: `index` (N,) names view · size + patch for each of its tokens, -1 for the end of a row.

    None where tokens are mixtures of patches.
    """

    views: int
    size: int  # tokens of a view
    index: Tensor | None

    def of(self, view: int) -> tuple[Tensor, Tensor]:
        """Which tokens (n,) are of a view, and which of its patches they are."""
        assert self.index is not None
        where = ((self.index >= 0) & (self.index // self.size == view)).nonzero().flatten()
        return where, self.index[where] % self.size

    def grid(self, patch: Tensor) -> tuple[int, int] | None:
        """Rows and columns of what is left of a view; None where that is no rectangle."""
        side = round(self.size**0.5)
        rows, columns = len(set((patch // side).tolist())), len(set((patch % side).tolist()))
        return (rows, columns) if side * side == self.size and rows * columns == len(patch) else None

    @property
    def mosaic(self) -> tuple[int, int] | None:
        """Rows and columns of the tiles behind the overview."""
        if self.index is None or self.views < 2:
            return None
        tiles = self.index[self.index // self.size > 0]
        row = tiles[: self._width(tiles)] // self.size
        columns = len(set(row.tolist()))
        return (self.views - 1) // columns, columns

    def _width(self, tiles: Tensor) -> int:
        """Tokens of the first row: until the patches' row changes."""
        side = round(self.size**0.5)
        line = tiles % self.size // side
        other = (line != line[0]).nonzero().flatten()
        return int(other[0]) if len(other) else len(line)


@contextmanager
def packing(model: Any, packs: list[Pack]) -> Iterator[None]:
    """Fill `packs` whenever the model packs views, if it does at all; it is as before after the block."""
    owners = [module for module in model.modules() if hasattr(type(module), NAME)]
    if not owners:
        yield
        return
    owner = owners[-1]  # the innermost, which the others call
    pack = getattr(owner, NAME)

    def noted(*args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(pack).bind(*args, **kwargs)
        packs[:] = numbered(pack, call)
        return pack(*args, **kwargs)

    setattr(owner, NAME, noted)
    try:
        yield
    finally:
        delattr(owner, NAME)


@torch.no_grad()
def numbered(pack: Any, call: inspect.BoundArguments) -> list[Pack]:
    """What the model makes of the numbers of its patches."""
    given: dict[str, Any] = dict(call.arguments)
    shapes = [tuple(image.shape[:2]) for image in given["image_features"]]
    given["image_features"] = [torch.arange(float(v * n)).reshape(v, n, 1) for v, n in shapes]
    if given.get("image_newline") is not None:
        given["image_newline"] = torch.tensor([-1.0])
    made = []
    for (views, size), image in zip(shapes, pack(**given)[0], strict=True):
        index = image[:, 0].round().long()
        real = index[index >= 0]
        whole = bool((index == image[:, 0]).all()) and len(real) == len(real.unique())
        made.append(Pack(views, size, index if whole else None))
    return made
