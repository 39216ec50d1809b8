"""GlobalCom² (Liu et al., AAAI 2026, arXiv 2501.05179): the overview tells how much of each tile to keep, and which
tokens.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, heats, top
from morgana.generation.sharing import fair, tiles, window
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class GlobalCom:
    """With several images, the first is the overview. Tile i keeps R (1 + σ_i − mean σ) of its tokens, σ = softmax over
    tiles of the overview's summed attention of CLS in them / `heat`; in a tile, tokens rank by the tile's attention of
    CLS plus the overview's at the same place, each of length 1. The overview, and one image alone, rank by their own.

    So far the authors' public code, with `alpha` 0.5. Ours: the weight `alpha` of the tile, the last but one layer, and
    the budget to the token, shares rounded to the sum; tiles of several images lie on the squarest grid that holds
    them. Needs a CLS token.
    """

    keep: Keep = 0.25
    alpha: float = 0.5  # of the tile's own attention
    heat: float = 10.0
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        heats(heat=self.heat)
        if not 0 <= self.alpha <= 1:
            raise SpecError(f"alpha={self.alpha} is not in [0, 1]")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        own = unit(sight.cls(self.layer))
        if sight.number == 0 or len(sight.siblings) < 2:
            return own
        seen = window(self.overview(sight), len(sight.siblings) - 1, sight.number - 1, sight.grid, sight.mosaic)
        return self.alpha * own + (1 - self.alpha) * unit(sight.here(seen.flatten()))

    def overview(self, sight: Sight) -> Tensor:
        """(rows, columns) attention of CLS in the first image."""
        first = sight.siblings[0]
        return first.eye.cls(self.layer).reshape(first.grid)

    def share(self, sights: tuple[Sight, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
        whole = self.overview(sights[0]).detach().flatten()
        tile = tiles(*sights[0].grid, len(sights) - 1, sights[0].mosaic).to(whole.device)
        mass = whole.new_zeros(len(sights) - 1).index_add(0, tile, whole)
        part = ((mass - mass.max()) / self.heat).softmax(0)
        wanted = [counts[0], *(n * (1 + float(p) - 1 / len(part)) for n, p in zip(counts[1:], part, strict=True))]
        return fair(sum(counts), wanted, [len(s.tokens) for s in sights])

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)


def unit(scores: Tensor) -> Tensor:
    """Scores of length 1."""
    made: Tensor = normalize(scores, dim=0)
    return made
