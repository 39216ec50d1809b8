"""An edited mask, as small as it can be for the layers that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from morgana.generation._products import HIDDEN, corner


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is added to the scores of a piece's rows, or in truth values what they see.

    `shown` (B, H or 1, R or 1, K) is over the `keys` that any of them sees; but for the last R, the rows' own, if
    `corner` (R, R) is apart. `changed` (B, H or 1, R) are the rows that are not as they were; None: all are
    changed.
    """

    shown: Tensor
    changed: Tensor | None
    keys: Tensor | slice
    corner: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(B, H or 1, R, K)"""
        if self.corner is None:
            return self.shown
        shape = *self.shown.shape[:2], len(self.corner), -1
        return torch.cat([self.shown.expand(shape), self.corner.expand(shape)], -1)

    def packed(self) -> Drawn:
        """The same in less room: one row for all that see alike before their own, and truth values if it only hides."""
        if self.shown.requires_grad:
            return self
        made, count = self, self.shown.shape[2]
        before, own = self.shown[..., :-count], self.shown[..., -count:]
        if before.shape[-1] and bool((before == before[:, :, :1]).all()):
            causal = corner(count, own.device).to(own)
            if torch.equal(own, causal.expand_as(own)):
                made = replace(self, shown=before[:, :, :1].clone(), corner=causal)
        if bool(((made.shown != 0) & (made.shown > HIDDEN)).any()):
            return made
        return replace(made, shown=made.shown == 0, corner=None if made.corner is None else made.corner == 0)
