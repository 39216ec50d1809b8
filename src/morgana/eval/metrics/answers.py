"""Whether an answer is right: SQuAD's exact match and token F1, and answers that contain a reference.

The best of several references counts. An outcome without an answer or without a reference has no value.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from morgana.eval.outcome import Outcome
from morgana.spec import part
from morgana.types import SpecError

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@part
class ExactMatch:
    """1 if the normalised answer equals a normalised reference, else 0."""

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [best(lambda a, r: float(normalise(a) == normalise(r)), outcome) for outcome in outcomes]


@part
class TokenF1:
    """Harmonic mean of the shares of common words in answer and reference; two empty texts agree."""

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [best(token_f1, outcome) for outcome in outcomes]


@part
class Contains:
    """1 if the normalised words of a reference stand in the answer, in order and side by side, else 0.

    Whole words: "boat" does not stand in "boathouse". A reference of no words is contained in nothing but
    itself.
    """

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [best(contains, outcome) for outcome in outcomes]


@part
class GenerationFailure:
    """1 if the answer has fewer than `shortest` characters or a word `repeats` times in a row, else 0.

    The failure rate (GFR) of BAIR's public code, whose limits are the defaults. They suit answers that are
    sentences: for one-word answers set `shortest=1`.
    """

    shortest: int = 5
    repeats: int = 5

    def __post_init__(self) -> None:
        if self.shortest < 0 or self.repeats < 2:
            raise SpecError(f"{self!r} wants shortest >= 0 and repeats >= 2")

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [None if s.answer is None else float(self.failed(s.answer)) for s in outcomes]

    def failed(self, answer: str) -> bool:
        return len(answer.strip()) < self.shortest or longest_run(answer.lower().split()) >= self.repeats


def normalise(text: str) -> str:
    """Lower case without ASCII punctuation, English articles and surplus space, as in SQuAD's script.

    >>> normalise("The  Harbour, at noon!")
    'harbour at noon'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def token_f1(answer: str, reference: str) -> float:
    got, wanted = normalise(answer).split(), normalise(reference).split()
    if not got or not wanted:
        return float(got == wanted)
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted))


def contains(answer: str, reference: str) -> float:
    got, wanted = normalise(answer), normalise(reference)
    return float(f" {wanted} " in f" {got} ") if wanted else float(got == wanted)


def longest_run(words: Sequence[str]) -> int:
    """Length of the longest run of one word."""
    longest = run = 0
    for i, word in enumerate(words):
        run = run + 1 if i and word == words[i - 1] else 1
        longest = max(longest, run)
    return longest


def best(score: Callable[[str, str], float], outcome: Outcome) -> float | None:
    """The highest score of the answer over the references."""
    if outcome.answer is None or not outcome.references:
        return None
    answer = outcome.answer
    return max(score(answer, reference) for reference in outcome.references)
