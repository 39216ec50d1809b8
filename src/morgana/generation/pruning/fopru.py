"""FoPru (Jiang et al., 2024, arXiv 2411.14164): focal pruning by received attention, token by token or row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, checked, even, top
from morgana.generation.sight import Sight
from morgana.spec import part
from morgana.types import SpecError


@part
class FoPru:
    """Significance of a token is the attention that it receives in the last but one layer of the vision tower.

    `rank` keeps the best tokens; `row` keeps whole rows of the grid by their sum, and spends what is left of the budget
    on the best tokens of the next row. Mean over heads and all queries, so no CLS token is needed. The paper is known
    to us second-hand: its two strategies; the layer, the mean over queries and the last row are our choice.
    """

    keep: Keep = 0.25
    strategy: str = "rank"
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        if self.strategy not in ("rank", "row"):
            raise SpecError(f"strategy={self.strategy!r} is neither 'rank' nor 'row'")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,))

    def scores(self, sight: Sight) -> Tensor:
        return sight.received(self.layer)

    def choose(self, sight: Sight, count: int) -> Choice:
        scores = self.scores(sight).detach()
        if self.strategy == "rank":
            return top(scores, count)
        rows, columns = sight.grid
        row = sight.places // columns
        order = scores.new_zeros(rows).index_add(0, row, scores).argsort(descending=True, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(rows, device=order.device)  # 0: the best row
        within = even(scores)
        return top(within - 2.0 * place[row], count)
