"""MSEA and ARC (Liang et al., 2025, arXiv 2509.22415): maps of several sizes, and related words subtract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from morgana.generation.explain.tam import rid
from morgana.generation.saying import said
from morgana.spec import part
from morgana.types import Hits, Pixels, Query, SpecError

if TYPE_CHECKING:
    from morgana.generation.generators.hf import HF


@part
class MSEA:
    """For each word of the answer, its logit at every visual position, at least 0, at several sizes of the image,
    brought back to one grid and averaged (MSEA); less what earlier words explain, a mean of their maps weighted by how
    alike the two rank what comes at their places (ARC).

    From the paper's abstract and public reviews: both ideas, rank-biased overlap of the best `top` predictions (50) as
    the likeness, and logits at visual positions as the map. Ours: sizes shrink the image onto a mid-grey canvas, as
    most processors fix the size (one below 1 sees more context a token); `persist`, the interference scaled by least
    squares as in TAM, the words (the question's and the answer's), rankings by the largest size, and the mean over the
    answer.
    """

    sizes: tuple[float, ...] = (1.0, 0.75, 0.5)  # of the image's side
    top: int = 50
    persist: float = 0.9  # p of rank-biased overlap: how deep a ranking counts

    def __post_init__(self) -> None:
        if not self.sizes or not all(0 < size <= 1 for size in self.sizes):
            raise SpecError(f"sizes={self.sizes} are no shares of the image's side in (0, 1]")
        if self.top < 1 or not 0 < self.persist < 1:
            raise SpecError(f"top={self.top} must be at least 1 and persist={self.persist} in (0, 1)")

    def __call__(self, generator: HF, pixels: Pixels, query: Query, hits: Hits, text: str) -> Tensor:
        found = [said(generator, shrunk(pixels, size), query, hits, text) for size in self.sizes]
        maps = torch.stack([opened(one.maps, size) for one, size in zip(found, self.sizes, strict=True)]).mean(0)
        largest = found[self.sizes.index(max(self.sizes))]
        if not largest.spoken:
            return torch.zeros(maps.shape[1:])
        ranks = largest.before.topk(min(self.top, largest.before.shape[-1])).indices
        whole: Tensor = torch.stack([self._left(k, maps, largest.ids, ranks) for k in largest.answer]).mean(0)
        return whole.cpu()

    def _left(self, k: int, maps: Tensor, ids: Tensor, ranks: Tensor) -> Tensor:
        """The map of word `k` without what earlier words explain; a word does not subtract itself."""
        before = [i for i in range(k) if ids[i] != ids[k]]
        weight = [overlap(ranks[i], ranks[k], self.persist) for i in before]
        return rid(maps[k], maps[before], torch.stack(weight).to(maps)) if before else maps[k]


def overlap(left: Tensor, right: Tensor, persist: float) -> Tensor:
    """Rank-biased overlap of two rankings (k,) without repeats: Σ_d p^(d−1) |left_:d ∩ right_:d| / d, so scaled that
    equal ones give 1.
    """
    depth = torch.arange(1, len(left) + 1, device=left.device, dtype=torch.float64)
    same = left[:, None] == right[None]
    shared = same.cumsum(0).cumsum(1).diagonal().double() / depth
    weight = persist ** (depth - 1)
    return (weight * shared).sum() / weight.sum()


def shrunk(pixels: Pixels, size: float, blank: float = 0.5) -> Pixels:
    """The image (1, 3, H, W) at a share of its sides, in the middle of a grey one of the old sides."""
    if size == 1:
        return pixels
    made, (top, left, height, width) = torch.full_like(pixels, blank), window(pixels.shape[-2], pixels.shape[-1], size)
    small = interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    made[..., top : top + height, left : left + width] = small
    return made


def opened(maps: Tensor, size: float) -> Tensor:
    """The middle of maps (W, rows, columns), where the small image lies, on the grid of the whole."""
    if size == 1:
        return maps
    rows, columns = maps.shape[1:]
    at = [(torch.arange(n, device=maps.device) + 0.5) * 2 / n - 1 for n in (rows, columns)]
    grid = torch.stack(torch.meshgrid(at[1] * size, at[0] * size, indexing="xy"), -1)
    made: Tensor = torch.nn.functional.grid_sample(
        maps[None], grid[None].to(maps), mode="bilinear", padding_mode="border", align_corners=False
    )
    return made[0]


def window(height: int, width: int, size: float) -> tuple[int, ...]:
    """Top, left, height and width of the middle.

    >>> window(32, 64, 0.5)
    (8, 16, 16, 32)
    """
    inner = max(1, round(size * height)), max(1, round(size * width))
    return (height - inner[0]) // 2, (width - inner[1]) // 2, *inner
