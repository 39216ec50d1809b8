"""Functions that doubt an evaluation: signs that an attack was too weak to praise its defense.

After Carlini et al. (arXiv 1902.06705) and AutoAttack's warnings. Successes are per-sample values of which
larger is better for the attacker, on the same samples everywhere. No doubt is no proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from morgana.eval.statistics import Values, estimate, paired
from morgana.types import SpecError

FEW = 6  # samples that all agree say something from this many on: a sign test gives p = 1/32

Clusters: TypeAlias = Sequence[str] | None
Named: TypeAlias = tuple[str, Values]


@dataclass(frozen=True)
class Doubt:
    """One reason not to believe an evaluation yet."""

    check: str  # the function that raised it
    message: str  # what was seen, what was expected, what to look at
    sure: bool  # the 95 % interval leaves no room for luck

    def __str__(self) -> str:
        return f"{self.check}: {self.message}{'' if self.sure else ' (could be luck)'}"


def zero_gradients(gradients: Tensor) -> list[Doubt]:
    """Images whose (B, ...) gradient is zero everywhere, or not finite: there is nothing to climb."""
    if gradients.ndim < 2:
        raise SpecError(f"gradients of shape {tuple(gradients.shape)}; wanted (B, ...), one row an image")
    flat = gradients.detach().flatten(1)
    seen = {
        "are zero; a saturated loss, a step without a derivative or a detached tensor hides them": (flat == 0),
        "are NaN or infinite; look for the log or the norm of a zero": ~torch.isfinite(flat).all(1, keepdim=True),
    }
    counts = {what: int(rows.all(dim=1).sum()) for what, rows in seen.items()}
    return [
        Doubt("zero_gradients", f"{count} of {len(flat)} gradients {what}", sure=True)
        for what, count in counts.items()
        if count
    ]


def noise_beats_gradients(gradients: Values, noise: Values, clusters: Clusters = None) -> list[Doubt]:
    """A search along gradients does worse than random members of the same threat: the gradients mislead."""
    todo = "attack through the randomness (EOT) or without gradients"
    return falls("noise_beats_gradients", ("noise", noise), ("gradients", gradients), clusters, todo)


def adaptive_weaker(naive: Values, adaptive: Values, clusters: Clusters = None) -> list[Doubt]:
    """The attack that knows the defense does worse than the one that does not, so it is not finished."""
    todo = "give it more steps or more noisy copies, or start it at the naive result"
    return falls("adaptive_weaker", ("naive", naive), ("adaptive", adaptive), clusters, todo)


def budget_helps_defender(by_epsilon: Mapping[float, Values], clusters: Clusters = None) -> list[Doubt]:
    """Success falls from one ε to the next, though the smaller ball lies inside the larger."""
    todo = "use more or larger steps, or start at the smaller budget's result"
    sides = [(f"ε = {epsilon:.4g}", by_epsilon[epsilon]) for epsilon in sorted(by_epsilon)]
    found = [falls("budget_helps_defender", *pair, clusters, todo) for pair in pairwise(sides)]
    return [doubt for doubts in found for doubt in doubts]


def unbounded_loses(success: Values, clusters: Clusters = None, wanted: float = 1.0) -> list[Doubt]:
    """With ε = 1 every image is allowed, so the attacker must win: a mean success of at least `wanted`."""
    seen = estimate(success, clusters, name="unbounded")
    if seen is None or seen.value >= wanted:
        return []
    message = f"with ε = 1 the attack reaches {seen}, not {wanted:g}; the search or the objective is broken"
    return [Doubt("unbounded_loses", message, sure=seen.high < wanted)]


def falls(check: str, weak: Named, strong: Named, clusters: Clusters, todo: str) -> list[Doubt]:
    """A doubt if `strong`, which should be as strong at least, has the lower mean on the samples of both."""
    gap = paired(weak[1], strong[1], clusters, name=check)
    if gap is None or gap.value >= 0:
        return []
    message = f"{strong[0]} does worse than {weak[0]} by {-gap.value:.3f} (difference {gap}); {todo}"
    return [Doubt(check, message, sure=gap.high < 0 and gap.n >= FEW)]
