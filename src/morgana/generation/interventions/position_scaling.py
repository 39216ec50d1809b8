"""Multi-scale position scaling (Ms-PoE; Zhang et al., 2024, arXiv 2403.04797), a baseline of BAIR."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morgana.generation._products import grouped
from morgana.generation.needs import Depth, Layers, Needs, every
from morgana.generation.view import View
from morgana.spec import part
from morgana.types import SpecError


@part
class PositionScaling:
    """Positions divided by a ratio of each head: `low` for the head most aware of positions, up to `high`.

    A head's awareness is the share of tokens that its last prompt row gives more than `peak` times the mean attention;
    ratios rise evenly with the rank. Ratios and the first two layers, left alone, are those of the public code
    (VITA-Group/Ms-PoE), whose peak is 4 and whose awareness is of queries and keys before they are turned. Ours: peak
    3, queries and keys at their places, every prompt for itself, and one ratio for heads that share keys, since cached
    keys are turned. All positions of a token (three in M-RoPE) move in proportion.
    """

    low: float = 1.2
    high: float = 1.8
    peak: float = 3.0
    first: Depth = 2
    stop: Depth | None = None

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.high < math.inf and self.peak >= 0):
            raise SpecError(f"{self!r}: wanted finite 0 < low <= high, and a peak of at least 0")

    @property
    def needs(self) -> Needs:
        return Needs(rows=every, layers=Layers(self.first, self.stop), at="positions")

    def edit(self, positions: Tensor, view: View) -> Tensor:
        if self.low == self.high == 1:
            return positions
        if view.layer not in view.memory:
            view.memory[view.layer] = self.ratios(view)
        ratios: Tensor = view.memory[view.layer]
        return positions / ratios[..., None]

    def ratios(self, view: View) -> Tensor:
        """(B, G) of each head of the keys."""
        assert view.states is not None
        query, key = (x.detach().float() for x in view.states)
        stop = torch.tensor([s.stop for s in view.layout.spans], device=query.device)
        start = torch.tensor([s.start for s in view.layout.spans], device=query.device)
        asked = query.gather(2, (stop - 1)[:, None, None, None].expand(-1, query.shape[1], 1, query.shape[3]))
        scores = grouped(asked * query.shape[-1] ** -0.5, key.transpose(2, 3))[:, :, 0]
        column = torch.arange(key.shape[2], device=query.device)
        seen = ((column >= start[:, None]) & (column < stop[:, None]))[:, None]
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        awareness = (weights > self.peak / (stop - start)[:, None, None]).float().sum(-1) / (stop - start)[:, None]
        groups = key.shape[1]
        awareness = awareness.view(len(query), groups, -1).mean(-1)
        rank = awareness.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        return self.low + (self.high - self.low) * rank / max(1, groups - 1)
