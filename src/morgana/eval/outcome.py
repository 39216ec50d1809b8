"""What a metric reads: one query, what was retrieved and answered, and what would have been right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from morgana.types import Hits


@dataclass(frozen=True)
class Outcome:
    """One query after one run; metrics that need a field which the run left empty give None."""

    id: str
    hits: Hits = ()  # best first; the order of the list is the ranking, whatever the scores say
    relevant: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # document id -> grade
    answer: str | None = None
    references: tuple[str, ...] = ()  # answers that count as right; ("yes",) or ("no",) for presence questions
    clean: str | None = None  # the same system's answer to the unattacked query
    from_image: str | None = None  # the same system's answer without the retrieved text
    from_text: str | None = None  # the same system's answer without the image


class Metric(Protocol):
    """Outcomes to one value each, None where it does not apply; `eval.statistics` makes the averages."""

    def __call__(self, outcomes: Sequence[Outcome]) -> list[float | None]: ...
