"""HiRED (Arif et al., AAAI 2025, arXiv 2408.10945): early attention of CLS shares the budget, late attention spends
it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, top
from morgana.generation.sharing import fair, tiles
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class HiRED:
    """Tokens by the attention of CLS in the last but one layer; with several images, the first is the overview.

    It gets the share `alpha` of the budget. The others, its tiles in reading order, get the rest in proportion to how
    many of the overview's best (1 - alpha) · N tokens of the first layer fall into them. Tiles lie on the squarest grid
    that holds them. Needs a CLS token.
    """

    keep: Keep = 0.25
    alpha: float = 0.5
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        if not 0 <= self.alpha <= 1:
            raise SpecError(f"alpha={self.alpha} is no share in [0, 1]")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(0, self.layer))

    def scores(self, sight: Sight) -> Tensor:
        return sight.cls(self.layer)

    def share(self, sights: tuple[Sight, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
        whole = sights[0]
        early = whole.eye.cls(0)
        best = top(early, max(1, round((1 - self.alpha) * len(early)))).index
        tile = tiles(*whole.grid, len(sights) - 1, whole.mosaic)[best.cpu()]
        votes = torch.bincount(tile, minlength=len(sights) - 1).double()
        total = sum(counts)
        first = min(len(whole.tokens), round(self.alpha * total))
        return fair(total, [first, *((total - first) * votes / votes.sum()).tolist()], [len(s.tokens) for s in sights])

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)
