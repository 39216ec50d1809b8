"""How well the relevant documents were ranked: hit@k, recall@k, MRR and nDCG@k, as trec_eval defines them.

The order of `Outcome.hits` is the ranking; ties were broken by whoever made the list (`eval.trec` exports
runs so that trec_eval sees the same order, and `trec_order` breaks ties as trec_eval does). A document listed
twice counts once, at its first rank. An outcome without a relevant document (grade of at least 1) has no
value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from morgana.eval.outcome import Outcome
from morgana.spec import part
from morgana.types import SpecError


@part
class Hit:
    """1 if a relevant document is among the first k, else 0 (trec_eval: success_k)."""

    k: int

    def __post_init__(self) -> None:
        check_cutoff(self.k, self)

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [float(any(g[: self.k])) if ideal else None for g, ideal in map(grades, outcomes)]


@part
class Recall:
    """The share of all relevant documents that is among the first k (trec_eval: recall_k)."""

    k: int

    def __post_init__(self) -> None:
        check_cutoff(self.k, self)

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [sum(map(bool, g[: self.k])) / len(ideal) if ideal else None for g, ideal in map(grades, outcomes)]


@part
class MRR:
    """One over the rank of the first relevant document, 0 if there is none (trec_eval: recip_rank)."""

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [reciprocal_rank(g) if ideal else None for g, ideal in map(grades, outcomes)]


@part
class NDCG:
    """Discounted gain of the first k over that of the best order; gain is the grade, discount log2(rank + 1).

    trec_eval's ndcg_cut_k: the best order is taken over all relevant documents, retrieved or not.
    """

    k: int

    def __post_init__(self) -> None:
        check_cutoff(self.k, self)

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [gain(g[: self.k]) / gain(ideal[: self.k]) if ideal else None for g, ideal in map(grades, outcomes)]


def grades(outcome: Outcome) -> tuple[list[int], list[int]]:
    """The grades of the listed documents in rank order, and all positive grades, best first."""
    listed = dict.fromkeys(hit.document.id for hit in outcome.hits)
    found = [max(outcome.relevant.get(id, 0), 0) for id in listed]
    return found, sorted((grade for grade in outcome.relevant.values() if grade > 0), reverse=True)


def gain(ranked: Sequence[int]) -> float:
    """Sum of grade / log2(rank + 1), ranks from 1."""
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ranked, 1))


def reciprocal_rank(ranked: Sequence[int]) -> float:
    return next((1 / rank for rank, grade in enumerate(ranked, 1) if grade), 0.0)


def check_cutoff(k: int, metric: object) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise SpecError(f"{metric!r} wants a whole number of ranks of at least 1; write {type(metric).__name__}(5)")
