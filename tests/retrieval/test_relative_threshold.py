import pytest
from hypothesis import given
from hypothesis import strategies as st

from morgana.retrieval.stages.relative_threshold import RelativeThreshold
from morgana.spec import parse
from morgana.types import Document, Hit, Query, SpecError

scores = st.lists(st.floats(-1, 1, allow_subnormal=False), max_size=12)
ratios = st.floats(0, 1, allow_subnormal=False)
ks = st.integers(1, 8)


def hits(values):
    return tuple(Hit(Document(f"d{n}"), value) for n, value in enumerate(values))


def kept(values, ratio, k):
    (found,) = RelativeThreshold(ratio, k)([Query("q")], [hits(values)])
    return found


@given(scores, ratios, ks)
def test_it_keeps_between_one_and_k_best_hits_of_what_came(values, ratio, k):
    found = kept(values, ratio, k)
    assert min(1, len(values)) <= len(found) <= k
    assert sorted(hits(values), key=lambda h: -h.score)[: len(found)] == list(found)  # stable: ties keep their order


@given(scores, ratios, ks)
def test_it_is_idempotent(values, ratio, k):
    found = kept(values, ratio, k)
    assert RelativeThreshold(ratio, k).keep(found) == found


@given(
    st.lists(st.integers(-8, 8), max_size=12),
    st.sampled_from((0.0, 0.25, 0.5, 1.0)),
    ks,
    st.sampled_from((0.5, 2.0, 16.0)),
)
def test_scaling_all_scores_changes_nothing(values, ratio, k, scale):
    ids = [[h.document.id for h in kept([v * s for v in values], ratio, k)] for s in (1.0, scale)]
    assert ids[0] == ids[1]


@given(scores, ks)
def test_ratio_0_is_the_plain_top_k_and_ratio_1_keeps_only_maxima(values, k):
    assert list(kept(values, 0, k)) == sorted(hits(values), key=lambda h: -h.score)[:k]
    assert all(h.score == max(values) for h in kept(values, 1, k))


@given(scores, ratios, ratios, ks)
def test_a_larger_ratio_keeps_no_more(values, one, two, k):
    low, high = sorted((one, two))
    assert all(hit in kept(values, low, k) for hit in kept(values, high, k))


@pytest.mark.parametrize(
    ("values", "ratio", "expected"),
    [
        ([0.9, 0.5, 0.44, 0.1], 0.5, [0.9, 0.5]),
        ([-0.1, -0.15, -0.3], 0.5, [-0.1, -0.15]),  # down to -0.1 / 0.5
        ([0.0, -0.1, 0.0], 0.5, [0.0, 0.0]),
        ([], 0.5, []),
    ],
)
def test_known_selections(values, ratio, expected):
    assert [h.score for h in kept(values, ratio, 5)] == expected


@pytest.mark.parametrize(
    "spec", ["RelativeThreshold(ratio=1.5)", "RelativeThreshold(ratio=-1)", "RelativeThreshold(k=0)"]
)
def test_other_parameters_are_refused(spec):
    with pytest.raises(SpecError, match=r"share of the best score|at least 1 hit"):
        parse(spec)
