"""TransPrune (CVPR 2026, arXiv 2507.20630): tokens that change most on their way through the model."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import Choice, Keep, Stage, Watched, asked, at, checked, top
from morgana.generation.sight import Sight, locate
from morgana.spec import part
from morgana.types import SpecError


@part
class TransPrune:
    """Transition of a token: ‖out‖ / ‖in‖ · softmax over tokens of 1 − cos(in, out), for attention and for the MLP of
    every layer watched, summed; plus the attention that the question gives to it, both scaled to sum 1.

    Watched are layers 7 to 12 of 32, and tokens go before 7, 9 and 12, in the paper's steps of 87.5, 62.5 and 12.5 %
    kept, scaled to `keep`; layers are shares of the depth. "In" is what the module is given, after its norm.
    """

    keep: Keep = 0.25
    layers: tuple[float, ...] = (0.21875, 0.28125, 0.375)  # of the language model's depth

    def __post_init__(self) -> None:
        checked(self.keep)
        if len(self.layers) != 3:
            raise SpecError(f"layers={self.layers}: TransPrune prunes three times")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        steps = zip(self.layers, (1 / 7, 3 / 7, 1.0), strict=True)
        return tuple(Stage(at(layer, depth), done) for layer, done in steps)

    def watched(self, depth: int, eyes: int) -> Watched:
        before = tuple(sorted({stage.layer - 1 for stage in self.stages(depth)}))
        return Watched(text=before, moves=tuple(range(before[0], before[-1] + 1)))

    def scores(self, sight: Sight) -> Tensor:
        change = torch.zeros(len(sight.tokens), device=sight.states.device)
        for layer, parts in sight.moves.items():
            here = locate(sight.moved[layer], sight.tokens)
            for given, made in parts:
                change = change + transition(given[here].float(), made[here].float())
        given = sight.attention(sight.layer - 1, asked(sight), sight.tokens).mean((0, 1))
        return change / change.sum().clamp(min=1e-12) + given / given.sum().clamp(min=1e-12)

    def choose(self, sight: Sight, count: int) -> Choice:
        return top(self.scores(sight), count)


def transition(given: Tensor, made: Tensor) -> Tensor:
    """(n,) ‖out‖ / ‖in‖ · softmax(1 − cos(in, out))."""
    turn = 1 - torch.nn.functional.cosine_similarity(given, made, dim=-1)
    scale: Tensor = made.norm(dim=-1) / given.norm(dim=-1).clamp(min=1e-12)
    return scale * turn.softmax(0)
