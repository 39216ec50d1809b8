"""Images of any resolution (LLaVA-NeXT, LLaVA-OneVision, InternVL): which patch of which view every visual token is.

Such a model sees an overview and tiles. The LLaVAs pack what they saw into one run of tokens, padding cut off and a
token put behind every row; they are asked to pack numbers beside, so nothing of how they pack is written here again.
InternVL puts all of each view behind the one before, the overview last, so its views are counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from morgana.generation.prompts import Spans
from morgana.types import SpecError

NAME = "pack_image_features"


@dataclass(frozen=True, eq=False)
class Pack:
    """One image: `index` (N,) names view · size + patch for each of its tokens, -1 for the end of a row.

    None where tokens are mixtures of patches.
    """

    views: int
    size: int  # tokens of a view
    index: Tensor | None
    mosaic: tuple[int, int] | None = None  # rows and columns of the tiles
    overview: int = 0  # its place among the views

    @property
    def order(self) -> list[int]:
        """The views as pruners know them: the overview, then the tiles."""
        return [self.overview, *(view for view in range(self.views) if view != self.overview)]

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


def counted(runs: Sequence[int], pixels: Tensor) -> list[Pack]:
    """The packs of images of `runs` tokens, of which the tower sees one view (3, H, W) a row of `pixels` (V, 3, H, W).

    Empty where every image is one view. SpecError where views and tokens do not fit.
    """
    size, rest = divmod(sum(runs), len(pixels))
    if rest or not size or any(run % size for run in runs):
        raise SpecError(
            f"the vision tower saw {len(pixels)} views for images of {list(runs)} tokens, so nobody knows which tokens "
            "are of which view; use a pruner that reads neither the vision tower nor the grid (MMTok, FastV)"
        )
    each = [run // size for run in runs]
    if max(each) == 1:
        return []
    return [
        Pack(n, size, torch.arange(n * size), arranged(seen[:-1], seen[-1]) if n > 1 else None, n - 1)
        for n, seen in zip(each, torch.split(pixels.detach(), each), strict=True)
    ]


def arranged(tiles: Tensor, overview: Tensor) -> tuple[int, int]:
    """In how many rows and columns tiles (n, 3, H, W) make the picture nearest to the overview: no model is told."""
    count, depth, height, width = tiles.shape

    def distance(rows: int) -> float:
        made = tiles.float().reshape(rows, -1, depth, height, width).permute(2, 0, 3, 1, 4)
        small = adaptive_avg_pool2d(made.reshape(depth, rows * height, -1), (height, width))
        return float((small - overview.float()).square().mean())

    rows = min((n for n in range(1, count + 1) if count % n == 0), key=distance)
    return rows, count // rows


def square(model: Any, spans: Sequence[Spans], instead: str) -> None:
    """SpecError where the model does not see every prompt's image as one view of a fixed size, a square of tokens."""
    if model is None:
        return
    eyes = getattr(model.config, "vision_config", None)
    edge, patch = getattr(eyes, "image_size", None), getattr(eyes, "patch_size", None)
    seen = [stop - first for span in spans for first, stop in span.image]
    why = ""
    if hasattr(model.base_model, NAME) or any(len(span.image) > 1 for span in spans):
        why = "are several views"
    elif edge is None or patch is None:
        why = "may have any shape"
    else:
        edge, patch = (x if isinstance(x, int) else x[0] for x in (edge, patch))
        if max(seen, default=0) > (edge // patch * getattr(model.config, "downsample_ratio", 1)) ** 2:
            why = "are several views"
    if why:
        raise SpecError(f"images of {seen} tokens of {type(model).__name__} {why}, and no square of tokens; {instead}")


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
        made.append(Pack(views, size, index, laid(index, views, size)) if whole else Pack(views, size, None))
    return made


def laid(index: Tensor, views: int, size: int) -> tuple[int, int] | None:
    """Rows and columns of the tiles behind the overview: as many columns as there are tiles in the first row."""
    if views < 2:
        return None
    tiles = index[index // size > 0]
    line = tiles % size // round(size**0.5)
    other = (line != line[0]).nonzero().flatten()
    row = tiles[: int(other[0])] if len(other) else tiles
    columns = len(set((row // size).tolist()))
    return (views - 1) // columns, columns
