"""Projected gradient ascent (Madry et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable

from morgana.attacks.searches._climb import Climbing
from morgana.spec import part
from morgana.types import Params, Threat


@part
class PGD(Climbing):
    """Steepest steps of a fixed size, each projected back; the best iterate of every sample is kept.

    Without a random start, `run(...).last` equals torchattacks' and foolbox's L∞ PGD bit for bit.
    """

    steps: int = 40
    rate: float = 0.25  # of the threat's radius: 2/255 at 8/255, the field's default

    def direction(self, threat: Threat) -> Callable[[Params], Params]:
        return threat.steepest
