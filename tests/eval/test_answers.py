from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morgana.eval.metrics.answers import Contains, ExactMatch, GenerationFailure, TokenF1, normalise
from morgana.eval.metrics.shift import SemanticShift
from morgana.eval.outcome import Outcome
from morgana.spec import parse
from morgana.types import SpecError

texts = st.text(alphabet="ab the,.!  ", max_size=15)


def said(answer: str | None, *references: str, clean: str | None = None) -> Outcome:
    return Outcome("q", answer=answer, references=references, clean=clean)


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1", "inside"),
    [
        ("The Sterling Trust.", ("sterling trust",), 1, 1, 1),
        ("It is operated by Sterling Trust.", ("Sterling Trust",), 0, 0.5, 1),
        ("Trust Sterling", ("Sterling Trust",), 0, 1, 0),
        ("a boathouse", ("boat",), 0, 0, 0),
        ("three red boats", ("two red boats", "three boats"), 0, 0.8, 0),
        ("boat boat", ("boat",), 0, 2 / 3, 1),
        ("", ("boat",), 0, 0, 0),
        ("", ("",), 1, 1, 1),
        ("the", ("a",), 1, 1, 1),
        ("boat", ("the",), 0, 0, 0),
    ],
)
def test_known_answers(answer, references, exact, f1, inside):
    row = [said(answer, *references)]
    assert ExactMatch()(row) == [exact]
    assert TokenF1()(row) == [pytest.approx(f1)]
    assert Contains()(row) == [inside]


@pytest.mark.parametrize("metric", [ExactMatch(), TokenF1(), Contains()], ids=repr)
def test_without_an_answer_or_a_reference_there_is_no_value(metric):
    assert metric([said(None, "boat"), said("boat"), said("boat", "boat")]) == [None, None, 1]


def test_normalising_is_squads():
    assert normalise("  An  apple, a day's THE  end. ") == "apple days end"
    assert normalise("theatre Anna") == "theatre anna"


@given(texts, texts)
def test_exact_matches_are_full_f1_and_contained(answer, reference):
    row = [said(answer, reference)]
    ((exact,), (f1,), (inside,)) = ExactMatch()(row), TokenF1()(row), Contains()(row)
    assert 0 <= f1 <= 1
    assert (exact == 1) <= (f1 == 1)
    assert exact <= inside
    assert TokenF1()([said(reference, answer)]) == [f1]
    assert normalise(normalise(answer)) == normalise(answer)


@given(texts, texts, texts)
def test_another_reference_never_hurts(answer, one, two):
    for metric in (ExactMatch(), TokenF1(), Contains()):
        assert metric([said(answer, one, two)])[0] >= metric([said(answer, one)])[0]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("", 1), ("  yes ", 1), ("boats", 0), ("red red red red red", 1), ("Red red RED red red boat", 1),
        ("red red red red boat red", 0),
    ],
)  # fmt: skip
def test_generation_fails_when_short_or_stuck(answer, failed):
    assert GenerationFailure()([said(answer)]) == [failed]


def test_what_is_short_can_be_set():
    assert GenerationFailure(shortest=1)([said("2"), said(""), said(None)]) == [0, 1, None]
    assert GenerationFailure(repeats=2)([said("very very good")]) == [1]
    with pytest.raises(SpecError, match="repeats >= 2"):
        GenerationFailure(repeats=1)


def test_semantic_shift_is_zero_for_the_same_and_large_for_another_answer():
    rows = [
        said("a red boat", clean="a red boat"),
        said("thick fog over everything", clean="a red boat"),
        said("a red boat.", clean="a red boat"),
        said("", clean="a red boat"),
        said("", clean=""),
        said("a red boat"),
        said(None, clean="a red boat"),
    ]
    same, other, near, gone, empty, *missing = SemanticShift()(rows)
    assert same == empty == 0
    assert 0 < near < 0.4 < other <= 2
    assert gone > 0.8
    assert missing == [None, None]
    assert SemanticShift()([said("a")]) == [None]
    assert parse(repr(SemanticShift())) == SemanticShift()


@pytest.mark.parametrize(
    ("name", "rate"),
    [("image", 0.627), ("image+contradicting_text", 0.143), ("image+supporting_text", 0.889),
     ("image+irrelevant_text", 0.628)],
)  # fmt: skip
def test_recorded_answers_of_llava_score_as_published(shared_data, name, rate):
    lines = (shared_data / "blind_faith" / f"llava-1.5-7b_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [said(raw["output"], *raw["answers"]) for raw in map(json.loads, lines)]
    values = ExactMatch()(rows)
    assert len(values) == 1000
    assert sum(values) / 1000 == pytest.approx(rate, abs=1e-9)
