from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morgana.eval.metrics.recorruption import recorruption
from morgana.types import SpecError

ALONE = [1.0, 1.0, 0.5, 0.0, 0.0, 1.0]
ARTICLES = [0.0, 1.0, 0.0, 1.0, 0.0, 0.5]
METHOD = [1.0, 0.5, 0.2, 1.0, 0.5, 0.5]


def test_articles_spoil_and_help():
    made = recorruption(ALONE, ARTICLES)
    assert made.recorrupted.value == 3 / 6
    assert made.degradation.value == pytest.approx((1 + 0.5 + 0.5) / 4)  # four had something to lose
    assert made.correction.value == pytest.approx(1 / 3)  # three had something to gain
    assert (made.recorrupted.n, made.degradation.n, made.correction.n) == (6, 4, 3)
    assert made.cured is None


def test_a_method_cures_some():
    made = recorruption(ALONE, ARTICLES, METHOD)
    assert made.cured.value == pytest.approx(1 / 3)  # of samples 0, 2 and 5 only 0 is back where it was
    assert made.cured.n == 3
    assert made.recorrupted.value == 3 / 6  # now samples 1, 2 and 5
    assert made.degradation.value == pytest.approx((0.5 + 0.3 + 0.5) / 4)
    assert made.correction.value == pytest.approx((1 + 0.5) / 3)


def test_what_cannot_happen_is_absent():
    assert recorruption([0, 0], [1, 0]).degradation is None
    assert recorruption([1, 1], [1, 0]).correction is None
    assert recorruption([1, 0], [1, 1], [1, 1]).cured is None
    assert recorruption([None], [1]).recorrupted is None


def test_a_sample_counts_only_with_all_its_scores():
    assert recorruption([1, 1, None], [0, None, 0], clusters=["a", "b", "c"]).recorrupted.n == 1


scores = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=20))
def test_a_perfect_method_cures_all_and_an_idle_one_none(pairs):
    alone, articles = map(list, zip(*pairs, strict=True))
    perfect, idle = recorruption(alone, articles, alone), recorruption(alone, articles, articles)
    assert perfect.recorrupted.value == 0
    if perfect.cured is not None:
        assert perfect.cured.value == 1
        assert idle.cured.value == 0
    plain = recorruption(alone, articles)
    assert (idle.recorrupted, idle.degradation) == (plain.recorrupted, plain.degradation)


def test_scores_and_columns_are_checked():
    with pytest.raises(SpecError, match=r"do not lie in \[0, 1\]"):
        recorruption([1.5], [1])
    with pytest.raises(SpecError, match="the same samples in the same order"):
        recorruption([1], [1, 0])
