"""VisionDrop (AAAI 2026, arXiv 2506.22283): visual tokens judge each other, in both towers, and the rest is merged."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.merging import both, join
from morgana.generation.pruner import Choice, Keep, Stage, Watched, at, checked, top
from morgana.generation.pruning.uniform_grid import spread
from morgana.generation.sight import Eye, Sight, probabilities
from morgana.spec import part
from morgana.types import SpecError


@part
class VisionDrop:
    """Before the model, and before layers 1/4, 1/2 and 3/4 of its depth: dominant tokens are those that receive most
    attention from visual queries only, in the vision tower or the layer before; `contextual` of the budget are tokens
    at even distances among the others, each the mean of what is most like its key.

    Counts follow the paper's 48, 35, 26 and 19 of 576: `keep` is the last, and 95, 97, 99 and 100 % of what goes is
    gone by then. No text is read.
    """

    keep: Keep = 0.25
    contextual: float = 0.125  # of the budget
    layer: int = -2  # of the vision tower

    def __post_init__(self) -> None:
        checked(self.keep)
        if not 0 <= self.contextual < 1:
            raise SpecError(f"contextual={self.contextual} is no share in [0, 1)")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        late = zip((0.25, 0.5, 0.75), (0.971, 0.987, 1.0), strict=True)
        return (Stage(0, 0.948), *(Stage(at(layer, depth), done) for layer, done in late))

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=(self.layer,), text=tuple(s.layer - 1 for s in self.stages(depth)[1:]))

    def scores(self, sight: Sight) -> Tensor:
        if not sight.layer:
            return sight.here(judged(sight.eye, self.layer))
        return sight.attention(sight.layer - 1, sight.tokens, sight.tokens).mean((0, 1))

    def choose(self, sight: Sight, count: int) -> Choice:
        scores = self.scores(sight)
        others = round(self.contextual * count)
        chosen = top(scores, count - others).index
        if not others:
            return Choice(chosen)
        rest = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        rest[chosen] = False
        left = rest.nonzero().flatten()
        targets = torch.tensor(spread(len(left), others), device=left.device)
        keys = (
            sight.eye.keys(self.layer)[sight.places] if not sight.layer else sight.keys(sight.layer - 1, sight.tokens)
        )
        merged = join(sight.states[left], targets, targets, keys[left])
        return both(Choice(chosen), Choice(left[targets], merged.states), sight.states)


def judged(eye: Eye, layer: int) -> Tensor:
    """(N,) attention that each visual token gets from patches alone, not from CLS, mean over heads and queries."""
    taken = eye.operands(layer)
    count = taken.query.shape[2]
    before, _ = eye.group(count)
    return eye.tokenwise(probabilities(taken, torch.arange(before, count)).mean((0, 1)))
