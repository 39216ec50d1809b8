"""FlowCut (Tong et al., NeurIPS 2025, arXiv 2505.19536): information flow through the layers of the vision tower."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation.pruner import BEFORE, Choice, Keep, Stage, Watched, budget, checked, top
from morgana.generation.selecting import cosine
from morgana.generation.sight import Sight, products
from morgana.generation.watching import Taken
from morgana.spec import part
from morgana.types import SpecError


@part
class FlowCut:
    """Every second layer, tokens are scored by (attention of CLS, scaled to sum 1 + softmax of CLS's value · theirs)
    · the 1-norm of their value, averaged half and half with the score so far, and the worst n = (N − K) / √(layers
    left) · (1 − (H / H_max)²) are closed, H the entropy of CLS's attention: later layers do not see them. The best
    K go on, none of them closed: a padded view, some of whose open tokens are padding, may keep fewer.

    Tokens are closed by a mask, so rows of a batch may lose unequal numbers; what is saved, is saved in the language
    model. How values are compared is not quite clear from the paper; we take cosines. Needs CLIP's kind of tower.
    """

    keep: Keep = 0.25
    every: int = 2  # layers

    def __post_init__(self) -> None:
        checked(self.keep)
        if self.every < 1:
            raise SpecError(f"every={self.every} must be at least 1")

    def stages(self, depth: int) -> tuple[Stage, ...]:
        return BEFORE

    def watched(self, depth: int, eyes: int) -> Watched:
        return Watched(vision=tuple(range(self.every - 1, eyes - 1, self.every)) or (0,))

    def narrow(
        self, layer: int, taken: Taken, open: Tensor, scores: Tensor | None, depth: int
    ) -> tuple[Tensor, Tensor]:
        """CLS stands first and stays open; a closed token's score is 0."""
        weight, value = seen(taken, open), taken.value[0].transpose(0, 1).flatten(1).float()
        alike = cosine(value[1:], value[:1])[:, 0].masked_fill(~open[1:], float("-inf")).softmax(0)
        fresh = (weight + alike) * value[1:].abs().sum(-1)
        fresh = fresh / fresh.sum().clamp(min=1e-12)
        scores = fresh if scores is None else 0.5 * scores + 0.5 * fresh
        scores = scores.masked_fill(~open[1:], 0.0)
        count = int(open[1:].sum())
        goes = closing(weight.detach(), count, budget(self.keep, len(weight)), depth - layer - 1)
        if goes:
            worst = scores.detach().masked_fill(~open[1:], float("inf")).argsort(stable=True)[:goes]
            open = open.clone()
            open[1 + worst] = False
        return open, scores

    def scores(self, sight: Sight) -> Tensor:
        """Closed tokens have -inf."""
        eye = sight.eye
        if eye.scores is None or eye.open is None or len(eye.scores) != (eye.full or eye.tokens):
            raise SpecError(f"{self!r} needs a vision tower with CLS whose patches are the visual tokens; use HiPrune")
        return sight.here(eye.pick(eye.scores.masked_fill(~eye.open[1:], float("-inf"))))

    def choose(self, sight: Sight, count: int) -> Choice:
        scores = self.scores(sight)
        return top(scores, min(count, int(scores.isfinite().sum())))


def seen(taken: Taken, open: Tensor) -> Tensor:
    """(N,) attention of CLS to the patches that are open, mean over heads, scaled to sum 1."""
    logits = products(taken, torch.zeros(1, dtype=torch.long))[:, 0].masked_fill(~open, float("-inf"))
    weight = logits.softmax(-1).mean(0)[1:]
    return weight / weight.sum().clamp(min=1e-12)


def closing(weight: Tensor, count: int, last: int, layers: int) -> int:
    """How many of `count` open tokens to close, with `layers` to come, so that at least `last` stay."""
    if count <= last or layers < 1:
        return 0
    entropy = float(-(weight * weight.clamp(min=1e-12).log()).sum())
    flat = entropy / math.log(count) if count > 1 else 1.0
    return max(0, min(count - last, round((count - last) / math.sqrt(layers) * (1 - flat**2))))
