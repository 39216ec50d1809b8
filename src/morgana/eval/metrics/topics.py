"""How far a topic has taken over the retrieved list: Weather@k of CloudWeb (arXiv 2605.07273), for any topic.

The paper does not say whether Weather@5 counts queries or slots; its figures fit both, so both are here. A
document is of a topic when its metadata says `{"topic": "weather"}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from morgana.eval.metrics.ranking import check_cutoff
from morgana.eval.outcome import Outcome
from morgana.spec import part

KEY = "topic"  # of Document.metadata


@part
class Topic:
    """1 if a document of the topic is among the first k, else 0: Weather@k as hit."""

    topic: str
    k: int = 5

    def __post_init__(self) -> None:
        check_cutoff(self.k, self)

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [float(of_topic(outcome, self.topic, self.k) > 0) for outcome in outcomes]


@part
class TopicShare:
    """Documents of the topic among the first k, over k: Weather@k as share. Empty slots count."""

    topic: str
    k: int = 5

    def __post_init__(self) -> None:
        check_cutoff(self.k, self)

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]:
        return [of_topic(outcome, self.topic, self.k) / self.k for outcome in outcomes]


def of_topic(outcome: Outcome, topic: str, k: int) -> int:
    return sum(hit.document.metadata.get(KEY) == topic for hit in outcome.hits[:k])
