from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from morgana.eval.metrics.presence import Presence, PresenceAccuracy, SaysYes, presence, says_yes
from morgana.eval.outcome import Outcome
from morgana.eval.pope import read_pope
from morgana.types import SpecError, StoreError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Yes", True), ("yes, there is a boat", True), ("There is a boat.", True), ("No", False), ("no.", False),
        ("There is no boat in the image.", False), ("It is not there", False), ("It isn't.", False),
        ("There isn’t a boat", False), ("NO!", False), ("Yes. There is no fog.", True), ("Northern lights", True),
        ("Notable boats", True), ("", None), (" ... ", None),
    ],
)  # fmt: skip
def test_free_text_is_read_as_pope_reads_it(text, wanted):
    assert says_yes(text) is wanted


def test_each_question_is_right_or_wrong():
    rows = [
        Outcome("1", answer="Yes.", references=("yes",)),
        Outcome("2", answer="Yes.", references=("No",)),
        Outcome("3", answer="", references=("no",)),
        Outcome("4", answer=None, references=("yes",)),
        Outcome("5", answer="No", references=("no",)),
        Outcome("6", answer="two", references=("two",)),
        Outcome("7", answer="yes", references=()),
        Outcome("8", answer="yes", references=("yes", "no")),
    ]
    assert PresenceAccuracy()(rows) == [1, 0, 0, 0, 1, None, None, None]
    assert SaysYes()(rows) == [1, 1, 0, 0, 0, None, None, None]


def test_the_table_of_a_small_example():
    made = presence([True, True, False, None, True], [True, False, False, True, True])
    assert made.accuracy.value == 3 / 5
    assert made.precision.value == 2 / 3
    assert made.recall.value == 2 / 3
    assert made.f1.value == pytest.approx(2 / 3)
    assert made.yes_ratio.value == 3 / 5
    assert (made.accuracy.n, made.precision.n, made.recall.n) == (5, 3, 3)
    assert all(e.low <= e.value <= e.high for e in vars(made).values())


def test_what_has_no_denominator_is_absent():
    made = presence([False, False], [False, False])
    assert (made.precision, made.recall, made.f1) == (None, None, None)
    assert made.accuracy.value == 1
    assert presence([], []) == Presence(None, None, None, None, None)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=25))
def test_it_agrees_with_scikit_learn(pairs):
    answers, truths = map(list, zip(*pairs, strict=True))
    made = presence(answers, truths)
    if any(answers):
        assert made.precision.value == pytest.approx(precision_score(truths, answers))
    if any(truths):
        assert made.recall.value == pytest.approx(recall_score(truths, answers))
    if any(answers) or any(truths):
        assert made.f1.value == pytest.approx(f1_score(truths, answers))


def test_answers_and_truths_go_question_by_question():
    with pytest.raises(SpecError, match="1 answers for 2 truths"):
        presence([True], [True, False])


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_pope_files_are_read_and_scored(shared_data, split):
    questions = read_pope(shared_data / "pope" / f"coco_pope_{split}.json")
    assert len(questions) == 3000
    assert sum(q.present for q in questions) == 1500
    assert all(q.text and q.image.endswith(".jpg") for q in questions)
    truths, tiles = [q.present for q in questions], [q.image for q in questions]
    assert len(set(tiles)) == 500
    always = presence([True] * 3000, truths, tiles)
    assert [always.accuracy.value, always.precision.value, always.recall.value] == [0.5, 0.5, 1]
    assert always.f1.value == pytest.approx(2 / 3)
    assert always.yes_ratio.value == 1
    assert presence(truths, truths, tiles).f1.value == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"question_id": 1, "image": "a.jpg", "text": "?", "label": "maybe"}',
            ":1 is no POPE question .'maybe' fits not",
        ),
        ('\n{"image": "a.jpg", "text": "?", "label": "no"}', ":2 is no POPE question .'question_id'"),
        ("[1]", "holds a list"),
        ("not json", "is not JSON"),
    ],
)
def test_a_broken_question_is_named(tmp_path, content, message):
    (tmp_path / "pope.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        read_pope(tmp_path / "pope.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"cannot read .*nothing\.json"):
        read_pope(tmp_path / "nothing.json")
