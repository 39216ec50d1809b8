from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint

from morgana.eval.statistics import (
    Estimate,
    clopper_pearson,
    estimate,
    lower_bound,
    mcnemar,
    paired,
    proportion,
    ratio,
    wilson,
)  # fmt: skip
from morgana.types import SpecError

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.95, 0.999])


@given(counts, levels)
def test_wilson_is_that_of_scipy_and_statsmodels(kn, confidence):
    low, high = wilson(*kn, confidence)
    theirs = stats.binomtest(*kn).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (low, high) == pytest.approx(proportion_confint(*kn, 1 - confidence, method="wilson"), abs=1e-12)


@given(counts, levels)
def test_clopper_pearson_is_that_of_scipy_and_statsmodels(kn, confidence):
    low, high = clopper_pearson(*kn, confidence)
    theirs = stats.binomtest(*kn).proportion_ci(confidence, method="exact")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert (low, high) == pytest.approx(proportion_confint(*kn, 1 - confidence, method="beta"), abs=1e-9)
    assert low <= kn[0] / kn[1] <= high


def test_the_one_sided_bound_has_its_known_values():
    assert float(lower_bound(480, 500, 0.001)) == pytest.approx(0.9252857438864598, abs=1e-13)
    assert float(lower_bound(0, 500, 0.001)) == 0
    for n in (1, 100, 100_000):
        assert float(lower_bound(n, n, 0.001)) == pytest.approx(0.001 ** (1 / n), rel=1e-12)
    radius = stats.norm.ppf(lower_bound(100_000, 100_000, 0.001))
    assert float(radius) == pytest.approx(3.811, abs=5e-4)  # in σ: Cohen et al. (2019)


def test_the_bounds_broadcast():
    k, n = np.array([0, 3, 10]), np.array([[10], [20]])
    assert lower_bound(k, n, 0.05).shape == wilson(k, n).low.shape == clopper_pearson(k, n).high.shape == (2, 3)
    for i, j in product(range(2), range(3)):
        assert lower_bound(k, n, 0.05)[i, j] == lower_bound(k[j], n[i, 0], 0.05)
        assert wilson(k, n).high[i, j] == wilson(k[j], n[i, 0]).high


@given(counts)
def test_more_successes_never_lower_the_bound(kn):
    k, n = kn
    assert lower_bound(k, n, 0.01) <= lower_bound(min(k + 1, n), n, 0.01)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0), (float("nan"), 5)])
@pytest.mark.parametrize("bounds", [wilson, clopper_pearson, lambda k, n: lower_bound(k, n, 0.05)])
def test_impossible_counts_are_refused(bounds, k, n):
    with pytest.raises(SpecError, match="wanted 0 <= successes <= trials"):
        bounds(k, n)


@pytest.mark.parametrize("confidence", [0, 1, 95, float("nan")])
def test_impossible_levels_are_refused(confidence):
    with pytest.raises(SpecError, match="between 0 and 1"):
        wilson(1, 2, confidence)


def test_independent_outcomes_get_wilsons_interval():
    made = estimate([1, 0, None, 1, True])
    low, high = wilson(3, 4)
    assert made == Estimate(0.75, float(low), float(high), 4)
    assert made == proportion(3, 4)
    assert estimate([1, 0, None, 1, 1], ["a", "b", "c", "d", "e"]) == made
    assert str(made) == "0.750 [0.301, 0.954] n=4"


def test_nothing_is_none():
    assert estimate([]) is estimate([None, None]) is proportion(0, 0) is paired([None], [1]) is None
    assert ratio([0, 0], [0, 0]) is None


def test_outcomes_all_alike_are_as_certain_as_their_clusters_allow():
    made = estimate([1] * 30, ["a", "b", "c"] * 10)
    assert (made.value, made.n) == (1, 30)
    assert made.low == pytest.approx(float(wilson(3, 3).low))


def test_a_clustered_bootstrap_has_the_exact_distribution_of_few_clusters():
    """Three clusters have 27 resamples; the interval's ends are quantiles of those."""
    values, tiles = [0.0, 0.5, 1.0, 1.0, 0.2, 0.4], ["a", "a", "b", "b", "b", "c"]
    sums, sizes = np.array([0.5, 2.2, 0.4]), np.array([2, 3, 1])
    every = [sums[list(c)].sum() / sizes[list(c)].sum() for c in product(range(3), repeat=3)]
    made = estimate(values, tiles, confidence=0.8)
    assert made.value == pytest.approx(3.1 / 6)
    assert made.low == pytest.approx(np.quantile(every, 0.1, method="inverted_cdf"))
    assert made.high == pytest.approx(np.quantile(every, 0.9, method="inverted_cdf"))


def test_the_bootstrap_of_a_mean_is_scipys():
    values = np.random.default_rng(0).random(60)
    made = estimate(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert (made.low, made.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.006)


def test_samples_of_one_tile_are_not_independent():
    tile = np.random.default_rng(1).random(20)
    values = np.repeat(tile, 10).tolist()
    names = [str(i) for i in np.repeat(np.arange(20), 10)]
    alone, clustered = estimate(values), estimate(values, names)
    assert alone.value == clustered.value
    assert clustered.high - clustered.low > 2.5 * (alone.high - alone.low)  # √10 in the limit


def test_the_bootstrap_covers_the_truth_nineteen_times_in_twenty():
    hits, draw = 0, np.random.default_rng(2)
    for i in range(200):
        tiles = draw.random(40)
        values = (np.repeat(tiles, 3) * 0.5 + draw.random(120) * 0.5).tolist()
        made = estimate(values, [str(t) for t in np.repeat(np.arange(40), 3)], name=str(i))
        hits += made.low <= 0.5 <= made.high
    assert 178 <= hits <= 198


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), min_size=1, max_size=30), st.randoms())
def test_an_estimate_is_reproducible_and_holds_its_value(rows, random):
    values, tiles = [v for v, _ in rows], [t for _, t in rows]
    made = estimate(values, tiles)
    assert made == estimate(values, tiles)
    assert made.low - 1e-9 <= made.value <= made.high + 1e-9 or len(set(tiles)) == 1
    order = list(range(len(rows)))
    random.shuffle(order)
    again = estimate([values[i] for i in order], [tiles[i] for i in order])
    assert (again.low, again.high, again.n) == pytest.approx((made.low, made.high, made.n), abs=1e-9)


def test_streams_of_other_names_and_seeds_differ():
    values = np.random.default_rng(3).random(30).tolist()
    lows = {estimate(values, name=name, seed=seed).low for name, seed in [("", 0), ("a", 0), ("", 1)]}
    assert len(lows) == 3


def test_a_ratio_resamples_both_sums():
    made = ratio([1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0])
    assert made == proportion(2, 3)
    made = ratio([2, 0, 2, 0], [2, 1, 2, 1], ["a", "a", "b", "c"])
    assert made.value == pytest.approx(4 / 6)
    assert (made.low, made.high) == pytest.approx((0, 1))


def test_pairs_are_compared_on_the_samples_that_both_have():
    made = paired([0.5, None, 0.2, 0.9], [0.7, 0.1, 0.4, None])
    assert (made.value, made.n) == (pytest.approx(0.2), 2)
    assert paired([0, 0, 1, 1], [1, 1, 1, 1], ["a", "a", "b", "b"]).value == 0.5
    values = np.random.default_rng(4).random(50)
    shifted = paired(values.tolist(), (values + 0.1).tolist())
    assert (shifted.low, shifted.high) == pytest.approx((0.1, 0.1), abs=0.01)  # pairing removes the spread


def test_a_change_of_all_clusters_is_as_certain_as_their_number_allows():
    tiles = ["a", "a", "b", "c", "d"]
    low = float(wilson(4, 4).low)
    assert paired([0] * 5, [1] * 5, tiles) == Estimate(1, pytest.approx(low), 1, 5)
    assert paired([1] * 5, [0] * 5, tiles) == Estimate(-1, -1, pytest.approx(-low), 5)
    assert paired([0] * 5, [0.2] * 5, tiles) == Estimate(
        pytest.approx(0.2), pytest.approx(0.2 * low), pytest.approx(0.2 * (2 - low)), 5
    )
    assert paired([0] * 5, [-2] * 5, tiles).low == -2  # an effect that is a sum of differences


def test_no_width_means_that_nothing_changed():
    assert paired([0, 1, 1], [0, 1, 1], ["a", "a", "b"]) == Estimate(0, 0, 0, 3)
    cancelled = paired([0, 1, 0, 1], [1, 0, 1, 0], ["a", "a", "b", "b"])
    assert cancelled.value == 0
    assert cancelled.low < 0 < cancelled.high


def test_pairing_is_sharper_than_two_means():
    draw = np.random.default_rng(5)
    before = draw.random(80)
    after = before + 0.05 + 0.02 * draw.standard_normal(80)
    gap = paired(before.tolist(), after.tolist())
    assert gap.low > 0
    assert estimate(before.tolist()).high > estimate(after.tolist()).low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_that_of_statsmodels(pairs):
    table = [[sum(p == (a, b) for p in pairs) for b in (True, False)] for a in (True, False)]
    made = mcnemar([float(a) for a, _ in pairs], [float(b) for _, b in pairs])
    assert (made.lost, made.won) == (table[0][1], table[1][0])
    if made.lost + made.won:
        assert made.p == pytest.approx(their_mcnemar(table, exact=True).pvalue)
    else:
        assert made.p == 1


def test_mcnemar_compares_outcomes_only():
    assert mcnemar([1, None, 1], [0, 1, None]).lost == 1
    with pytest.raises(SpecError, match="use `paired`"):
        mcnemar([0.5], [1])


@pytest.mark.parametrize("make", [lambda: estimate([1, 2], ["a"]), lambda: paired([1], [1, 2])])
def test_columns_go_sample_by_sample(make):
    with pytest.raises(SpecError, match=r"columns of \[1, 2\] samples"):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value):
    with pytest.raises(SpecError, match="gives None"):
        estimate([value, 1])


def test_many_samples_are_resampled_in_little_memory():
    values = np.random.default_rng(6).random(3000).tolist()
    made = estimate(values)
    assert made.high - made.low == pytest.approx(2 * 1.96 * np.std(values) / 3000**0.5, rel=0.1)
