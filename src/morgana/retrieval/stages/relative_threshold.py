"""VLMT's selection: a threshold relative to the best hit, then the top k (arXiv 2504.08269)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from morgana.spec import part
from morgana.types import Hits, Query, SpecError


@part
class RelativeThreshold:
    """Keep the hits whose score is at least `ratio` times the best score, at most `k` of them, best first.

    The paper leaves the rule, the ratio and k open. We take s ≥ ratio · max s on cosines, and below zero, where a
    share of the best score would lie above it, its mirror image s ≥ max s / ratio: scaling all scores changes nothing
    in either case. Ties keep the order in which they came; a query that had hits keeps at least one; ratio 0 is the
    plain top k; ratio 1 keeps only maxima.
    """

    ratio: float = 0.5
    k: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise SpecError(f"ratio={self.ratio}; it is a share of the best score, from 0 to 1")
        if self.k < 1:
            raise SpecError(f"k={self.k}; keep at least 1 hit")

    def __call__(self, queries: Sequence[Query], hits: Sequence[Hits]) -> list[Hits]:
        return [self.keep(found) for found in hits]

    def keep(self, hits: Hits) -> Hits:
        best = max((hit.score for hit in hits), default=0.0)
        least = -inf if not self.ratio else best * self.ratio if best > 0 else best / self.ratio
        kept = sorted((hit for hit in hits if hit.score >= least), key=lambda hit: -hit.score)
        return tuple(kept[: self.k])
