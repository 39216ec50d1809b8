"""Whom an answer follows, on a table made by hand and on recorded answers of LLaVA-1.5-7B."""

from __future__ import annotations

import json

import pytest

from morgana.eval.metrics.text_preference import TextPreference
from morgana.eval.outcome import Outcome
from morgana.eval.statistics import estimate


@pytest.mark.parametrize(
    ("answer", "image", "text", "wanted"),
    [
        ("Red.", "blue", "the red", 1.0),
        ("red", "red", "blue", 0.0),
        ("red", "red", "red", None),  # both
        ("red", "blue", "green", None),  # neither
        ("", "", "red", 0.0),
        (None, "red", "blue", None), ("red", None, "red", None), ("red", "blue", None, None),
    ],
)  # fmt: skip
def test_an_answer_counts_where_it_follows_exactly_one(answer, image, text, wanted):
    assert TextPreference()([Outcome("q", answer=answer, from_image=image, from_text=text)]) == [wanted]


def answers(folder, name):
    lines = (folder / f"llava-1.5-7b_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {raw["question_id"]: raw["output"] for raw in map(json.loads, lines)}


@pytest.mark.parametrize(
    ("name", "followed_text", "followed_image"), [("contradicting_text", 655, 140), ("supporting_text", 280, 43)]
)
def test_llava_follows_the_text_it_is_given(shared_data, name, followed_text, followed_image):
    """Counts of a loop over the files' lower-case answers; exact-match rates of these files are in test_answers."""
    folder = shared_data / "blind_faith"
    if not folder.is_dir():
        pytest.skip(f"there are no recorded answers in {folder}")
    image, text, both = (answers(folder, n) for n in ("image", name, f"image+{name}"))
    assert image.keys() == text.keys() == both.keys()
    rows = [Outcome(str(i), answer=both[i], from_image=image[i], from_text=text[i]) for i in both]
    values = TextPreference()(rows)
    assert (values.count(1.0), values.count(0.0)) == (followed_text, followed_image)
    made = estimate(values, [str(i) for i in both])
    assert made.value == pytest.approx(followed_text / (followed_text + followed_image))
    assert made.n == followed_text + followed_image
