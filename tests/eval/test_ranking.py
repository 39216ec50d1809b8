from __future__ import annotations

import math

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from morgana.eval.metrics.ranking import MRR, NDCG, Hit, Recall
from morgana.eval.metrics.topics import Topic, TopicShare
from morgana.eval.outcome import Outcome
from morgana.eval.trec import falling, trec_order
from morgana.spec import components, parse
from morgana.types import Document, SpecError
from morgana.types import Hit as Found

KS = (1, 3, 5, 10)
OURS = [MRR(), *(make(k) for make in (Hit, Recall, NDCG) for k in KS)]
THEIRS = [RR, *(make @ k for make in (Success, R, nDCG) for k in KS)]


def outcome(*ids: str, relevant: dict[str, int], id: str = "q") -> Outcome:
    return Outcome(id, tuple(Found(Document(i), 1 - n / 100) for n, i in enumerate(ids)), relevant)


RUN = [
    outcome("d1", "d2", "d3", "d4", relevant={"d1": 1}),
    outcome("d9", "d8", "d2", "d1", relevant={"d1": 1, "d2": 3, "d5": 2}),
    outcome("d7", "d8", relevant={"d1": 2}),
]


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        (Hit(1), [1, 0, 0]),
        (Hit(3), [1, 1, 0]),
        (Recall(3), [1, 1 / 3, 0]),
        (Recall(4), [1, 2 / 3, 0]),
        (MRR(), [1, 1 / 3, 0]),
        (NDCG(3), [1, (3 / 2) / (3 + 2 / math.log2(3) + 1 / 2), 0]),
        (NDCG(10), [1, (3 / 2 + 1 / math.log2(5)) / (3 + 2 / math.log2(3) + 1 / 2), 0]),
    ],
    ids=repr,
)
def test_known_values(metric, wanted):
    assert metric(RUN) == pytest.approx(wanted)


def test_nothing_relevant_is_no_value_and_nothing_found_is_zero():
    unknown, misjudged, empty = Outcome("q"), outcome("d1", relevant={"d1": 0, "d2": -1}), outcome(relevant={"d1": 1})
    for metric in OURS:
        assert metric([unknown, misjudged, empty]) == [None, None, 0]


def test_a_document_listed_twice_counts_once():
    twice = outcome("d2", "d2", "d1", relevant={"d1": 1, "d2": 1})
    assert NDCG(10)([twice]) == [1]
    assert Recall(2)([twice]) == [1]


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "5"])
@pytest.mark.parametrize("make", [Hit, Recall, NDCG])
def test_a_cutoff_is_a_whole_number_of_ranks(make, k):
    with pytest.raises(SpecError, match=rf"write {make.__name__}\(5\)"):
        make(k)


@pytest.mark.parametrize("metric", [*OURS, Topic("weather"), TopicShare("weather", 3)], ids=repr)
def test_a_metric_is_named_by_the_call_that_builds_it(metric):
    assert parse(repr(metric)) == metric


def test_every_metric_is_found_by_listing_the_package():
    names = {cls.__name__ for cls in components("metric")}
    assert names >= {
        "Hit", "Recall", "MRR", "NDCG", "Topic", "TopicShare", "ExactMatch", "TokenF1", "Contains",
        "GenerationFailure", "PresenceAccuracy", "SaysYes", "SemanticShift",
    }  # fmt: skip


ids = st.sampled_from([f"d{i}" for i in range(12)] + ["D1", "é", "d01"])
scores = st.sampled_from([0.5, 0.25, 0.1, 0.1 + 1e-9, -0.3, 0.0]) | st.floats(-1, 1, width=32)
runs = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.tuples(st.dictionaries(ids, scores, min_size=1), st.dictionaries(ids, st.integers(0, 3), min_size=1)),
    min_size=1,
)


def theirs(run, qrels):
    """query -> measure -> value of ir_measures (trec_eval's own code)."""
    found = ir_measures.iter_calc(THEIRS, qrels, run)
    values: dict[str, dict[str, float]] = {}
    for metric in found:
        values.setdefault(metric.query_id, {})[str(metric.measure)] = metric.value
    return values


def compare(rankings, qrels, run):
    measured = theirs(run, qrels)
    for query, ranking in rankings.items():
        hits = tuple(Found(Document(id), score) for id, score in ranking)
        one = Outcome(query, hits, qrels[query])
        for ours, name in zip(OURS, map(str, THEIRS), strict=True):
            (value,) = ours([one])
            if value is not None:
                assert value == pytest.approx(measured[query][name], abs=1e-9), (query, name)


@settings(max_examples=60, deadline=None)
@given(runs)
def test_random_runs_measure_as_in_ir_measures_when_ties_are_broken_as_trec_eval_does(made):
    run = {query: found for query, (found, _) in made.items()}
    qrels = {query: grades for query, (_, grades) in made.items()}
    compare({query: trec_order(list(found.items())) for query, found in run.items()}, qrels, run)


@settings(max_examples=60, deadline=None)
@given(runs)
def test_any_order_of_ours_survives_export_to_ir_measures(made):
    """Lists in order of insertion, scores in any order, tied or not: an exported run measures as we did."""
    rankings = {query: list(found.items()) for query, (found, _) in made.items()}
    qrels = {query: grades for query, (_, grades) in made.items()}
    run = {query: {id: float(score) for id, score in falling(ranking)} for query, ranking in rankings.items()}
    compare(rankings, qrels, run)


@given(runs)
def test_values_lie_between_zero_and_one_and_grow_with_k(made):
    for query, (found, grades) in made.items():
        one = outcome(*found, relevant=grades, id=query)
        for make in (Hit, Recall):
            values = [make(k)([one])[0] for k in KS]
            assert values == [None] * len(KS) or values == sorted(values)
        assert all(v is None or 0 <= v <= 1 + 1e-12 for metric in OURS for v in metric([one]))


def test_topics_count_queries_and_slots():
    def page(*topics: str | None) -> Outcome:
        documents = [Document(str(i), metadata={"topic": t} if t else {}) for i, t in enumerate(topics)]
        return Outcome("q", tuple(Found(d, 0.5) for d in documents))

    rows = [page("weather", "site", None, "weather", "site", "weather"), page("site"), page(), page("weather")]
    assert Topic("weather", 5)(rows) == [1, 0, 0, 1]
    assert TopicShare("weather", 5)(rows) == [0.4, 0, 0, 0.2]
    assert TopicShare("weather", 1)(rows) == [1, 0, 0, 1]
    assert Topic("site", 1)(rows) == [0, 1, 0, 0]
