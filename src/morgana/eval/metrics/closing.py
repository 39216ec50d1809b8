"""The line that closes an attack, as AutoAttack prints it: largest perturbation, NaN, min and max."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from morgana.types import Pixels, SpecError


@dataclass(frozen=True)
class Closing:
    """What the images that are judged look like, in pixel units over the whole batch; its str is the line.

    Pixels that are NaN or infinite are counted in `broken` and left out of the other figures.
    """

    linf: float  # largest change of a pixel
    l2: float  # largest Euclidean norm of an image's change
    broken: int  # pixels that are NaN or infinite
    low: float
    high: float

    @property
    def legal(self) -> bool:
        """Every pixel is a number in [0, 1]."""
        return not self.broken and self.low >= 0 and self.high <= 1

    def within(self, epsilon: float, slack: float = 1e-6) -> bool:
        """Legal, and no pixel moved further than epsilon; `slack` allows for float32."""
        return self.legal and self.linf <= epsilon + slack

    def __str__(self) -> str:
        return (
            f"largest perturbation {self.linf * 255:.3f}/255 (Linf), {self.l2:.4f} (L2); "
            f"NaN {self.broken}; min {self.low:.4f}, max {self.high:.4f}"
        )


def closing(clean: Pixels, attacked: Pixels) -> Closing:
    """Compare two (B, 3, H, W) batches, best with `attacked` as read back from the saved file."""
    if clean.shape != attacked.shape or not clean.numel():
        raise SpecError(f"clean {tuple(clean.shape)} and attacked {tuple(attacked.shape)}: wanted equal shapes")
    finite = torch.isfinite(attacked)
    change = torch.where(finite, attacked.double() - clean.double(), 0.0)
    seen = attacked[finite].double()
    return Closing(
        linf=float(change.abs().max()),
        l2=float(change.flatten(1).norm(dim=1).max()),
        broken=int((~finite).sum()),
        low=float(seen.min()) if len(seen) else math.nan,
        high=float(seen.max()) if len(seen) else math.nan,
    )
