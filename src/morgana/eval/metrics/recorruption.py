"""Recorruption: does an article spoil an answer that was right without it, and does a method cure that?

Definitions of BAIR's public evaluation code (arXiv 2605.05594); scores lie in [0, 1], larger is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from morgana.eval.statistics import Estimate, Values, ratio
from morgana.types import SpecError

Triple: TypeAlias = tuple[float, float, float]  # scores alone, with articles, with articles and method


@dataclass(frozen=True)
class Recorruption:
    """How articles change answers; None where nothing could (no sample was right: no degradation)."""

    recorrupted: Estimate | None  # share of samples that score lower with articles than without
    degradation: Estimate | None  # sum of losses over the number of samples that had something to lose
    correction: Estimate | None  # sum of gains over the number of samples that had something to gain
    cured: Estimate | None  # share of the recorrupted that the method brings back to their score without articles


def recorruption(
    alone: Values,
    articles: Values,
    method: Values | None = None,
    clusters: Sequence[str] | None = None,
    seed: int = 0,
) -> Recorruption:
    """Compare scores on the same samples without articles, with articles, and with articles and a method.

    Recorrupted, degradation and correction are those of the last system given; `cured` ("strictly cured")
    needs a method, and counts among the samples that plain articles recorrupted. Samples with a None in any
    score are left out.
    """
    rows, names = aligned(alone, articles, articles if method is None else method, clusters)

    def over(pairs: Sequence[tuple[float, float]], name: str) -> Estimate | None:
        tops, bottoms = [top for top, _ in pairs], [bottom for _, bottom in pairs]
        return ratio(tops, bottoms, names, seed=seed, name=name)

    return Recorruption(
        recorrupted=over([(float(a > m), 1.0) for a, _, m in rows], "recorrupted"),
        degradation=over([(max(a - m, 0.0), float(a > 0)) for a, _, m in rows], "degradation"),
        correction=over([(max(m - a, 0.0), float(a < 1)) for a, _, m in rows], "correction"),
        cured=None if method is None else over([(float(a > r and m >= a), float(a > r)) for a, r, m in rows], "cured"),
    )


def aligned(
    alone: Values, articles: Values, method: Values, clusters: Sequence[str] | None
) -> tuple[list[Triple], list[str]]:
    """The complete rows and their clusters; SpecError for columns that do not match."""
    names = [str(i) for i in range(len(alone))] if clusters is None else [str(c) for c in clusters]
    if len({len(alone), len(articles), len(method), len(names)}) > 1:
        raise SpecError(
            f"{len(alone)} scores alone, {len(articles)} with articles, {len(method)} with the "
            f"method, {len(names)} clusters; score the same samples in the same order"
        )
    rows: list[Triple] = []
    kept: list[str] = []
    for a, r, m, name in zip(alone, articles, method, names, strict=True):
        if a is None or r is None or m is None:
            continue
        if not all(0 <= score <= 1 for score in (a, r, m)):
            raise SpecError(f"the scores {(a, r, m)} do not lie in [0, 1], as recorruption wants them")
        rows.append((float(a), float(r), float(m)))
        kept.append(name)
    return rows, kept
