"""Whom does an answer follow where text and image disagree? The text preference ratio of "Words or Vision" (2025).

An answer counts where exactly one of two others equals it: the model's answer to the image without text, and to the
text without image. The rule is that of the public code beside the paper (blind-faith-in-text).
"""

from __future__ import annotations

from collections.abc import Sequence

from morgana.eval.metrics.answers import normalise
from morgana.eval.outcome import Outcome
from morgana.spec import part


@part
class TextPreference:
    """1 if the answer is the one given from the text alone, 0 if it is the one from the image alone; else no value.

    Its mean is TPR = N_text / (N_text + N_image). Answers are compared as `ExactMatch` compares
    them: our choice, the public code's takes off less.
    """

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [preferred(o.answer, o.from_image, o.from_text) for o in outcomes]


def preferred(answer: str | None, image: str | None, text: str | None) -> float | None:
    if answer is None or image is None or text is None:
        return None
    said, seen, read = map(normalise, (answer, image, text))
    return None if (said == seen) == (said == read) else float(said == read)
