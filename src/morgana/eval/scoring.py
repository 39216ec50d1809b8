"""Scores at three stages: the retrieved list, the refined list, the answer; of the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morgana.eval.experiment import Experiment
from morgana.eval.metrics.answers import Contains, ExactMatch, GenerationFailure, TokenF1
from morgana.eval.metrics.presence import PresenceAccuracy, SaysYes
from morgana.eval.metrics.ranking import MRR, NDCG, Hit, Recall
from morgana.eval.metrics.topics import Topic, TopicShare
from morgana.eval.outcome import Metric, Outcome
from morgana.eval.records import Scores
from morgana.eval.samples import Sample
from morgana.types import Answer, Hits


def ranked(experiment: Experiment) -> tuple[Metric, ...]:
    """Metrics of a list of documents."""
    k, topic = experiment.k, experiment.topic
    return (Hit(1), Hit(k), Recall(k), MRR(), NDCG(k), Topic(topic, k), TopicShare(topic, k))


def answered(experiment: Experiment) -> tuple[Metric, ...]:
    """Metrics of an answer; `Contains` is what counts as right, because answers are sentences."""
    if experiment.generator is None:
        return ()
    return (Contains(), TokenF1(), ExactMatch(), PresenceAccuracy(), SaysYes(), GenerationFailure(shortest=1))


def score(
    experiment: Experiment,
    samples: Sequence[Sample],
    retrieved: Sequence[Hits],
    refined: Sequence[Hits],
    answers: Sequence[Answer] | None,
) -> list[Scores]:
    """Per sample {stage: {metric: value}}; metrics that do not apply are left out."""
    lists = {"retrieved": retrieved, "refined": refined}
    found: list[Scores] = [{} for _ in samples]
    for stage, hits in lists.items():
        outcomes = [Outcome(s.id, h, s.relevant) for s, h in zip(samples, hits, strict=True)]
        enter(found, stage, ranked(experiment), outcomes)
    if answers is not None:
        outcomes = [
            Outcome(s.id, h, s.relevant, a.text, s.references)
            for s, h, a in zip(samples, refined, answers, strict=True)
        ]
        enter(found, "answer", answered(experiment), outcomes)
    return found


def enter(found: list[Scores], stage: str, metrics: Sequence[Metric], outcomes: Sequence[Outcome]) -> None:
    for metric in metrics:
        for row, value in zip(found, metric(outcomes), strict=True):
            if value is not None:
                row.setdefault(stage, {})[repr(metric)] = float(value)


def mean(rounds: Sequence[Scores]) -> Scores:
    """The average over repeated judgings of one sample."""
    return {
        stage: {name: sum(r[stage][name] for r in rounds) / len(rounds) for name in named}
        for stage, named in rounds[0].items()
    }


@dataclass(frozen=True)
class Figure:
    """A headline metric: its name for readers, where it is found, and which way is good for the defender."""

    title: str
    stage: str
    metric: str
    good: bool  # more is better


def headline(experiment: Experiment) -> tuple[Figure, ...]:
    """The few figures that a reader wants first."""
    k, topic = experiment.k, experiment.topic
    stage = "refined" if experiment.stages else "retrieved"
    found = (
        Figure(f"{topic.title()}@{k}", stage, repr(Topic(topic, k)), False),
        Figure(f"Hit@{k}", stage, repr(Hit(k)), True),
    )
    return (*found, Figure("Answer right", "answer", repr(Contains()), True)) if experiment.generator else found
