"""Is it there? Yes/no questions as POPE (arXiv 2305.10355) asks and scores them.

An outcome is a presence question when its only reference is "yes" or "no".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from morgana.eval.outcome import Outcome
from morgana.eval.statistics import Estimate, ratio
from morgana.spec import part
from morgana.types import SpecError

WORDS = re.compile(r"[a-z']+")


@part
class PresenceAccuracy:
    """1 if the answer's yes or no is right, else 0; an empty answer is wrong."""

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [None if (t := truth(s)) is None else float(said(s) == t) for s in outcomes]


@part
class SaysYes:
    """1 if the answer says yes, else 0: its mean is POPE's yes-ratio."""

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [None if truth(s) is None else float(said(s) is True) for s in outcomes]


@dataclass(frozen=True)
class Presence:
    """POPE's table; None where a denominator is 0 among the questions (no "yes" said: no precision)."""

    accuracy: Estimate | None
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    yes_ratio: Estimate | None


def presence(
    answers: Sequence[bool | None],
    truths: Sequence[bool],
    clusters: Sequence[str] | None = None,
    seed: int = 0,
) -> Presence:
    """POPE's five figures with intervals, "yes" being the positive class; an unread answer (None) is wrong.

    Each figure is a ratio of sums, so the bootstrap resamples whole clusters (one a tile) of both sums
    together.
    """
    if len(answers) != len(truths):
        raise SpecError(f"{len(answers)} answers for {len(truths)} truths; give one answer a question")
    yes = [float(a is True) for a in answers]
    there = [float(t) for t in truths]
    hits = [y * t for y, t in zip(yes, there, strict=True)]
    right = [float(a is not None and a == t) for a, t in zip(answers, truths, strict=True)]
    ones = [1.0] * len(yes)

    def over(top: Sequence[float], bottom: Sequence[float], name: str) -> Estimate | None:
        return ratio(top, bottom, clusters, seed=seed, name=name)

    return Presence(
        accuracy=over(right, ones, "accuracy"),
        precision=over(hits, yes, "precision"),
        recall=over(hits, there, "recall"),
        f1=over([2 * h for h in hits], [y + t for y, t in zip(yes, there, strict=True)], "f1"),
        yes_ratio=over(yes, ones, "yes ratio"),
    )


def says_yes(text: str) -> bool | None:
    """POPE's reading of free text: no if the first sentence negates, else yes; None if it has no word.

    POPE's script looks for the words No, no and not; case does not matter here, and "isn't" and the like are
    read as "not". Whatever does not negate is a yes ("There is a boat.").
    """
    words = WORDS.findall(text.replace("’", "'").lower().split(".")[0])
    if not words:
        return None
    return not any(word in ("no", "not") or word.endswith("n't") for word in words)


def said(outcome: Outcome) -> bool | None:
    return None if outcome.answer is None else says_yes(outcome.answer)


def truth(outcome: Outcome) -> bool | None:
    """What is true of a presence question; None for any other."""
    (only,) = outcome.references if len(outcome.references) == 1 else ("",)
    return {"yes": True, "no": False}.get(only.strip().lower())
