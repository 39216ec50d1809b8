from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.defenses import _vote
from morgana.defenses._vote import two_means, vote
from morgana.retrieval.encoders.hash import HashEncoder

HASH = HashEncoder()
said = st.sampled_from(["", "yes", "Yes", "no", "a red boat", "two red boats", "fog"])
answers = st.lists(said, min_size=1, max_size=12)


def test_identical_answers_are_one_cluster():
    audit = vote(["a boat"] * 11, HASH)
    assert (audit.labels, audit.sizes, audit.agreement, audit.chosen) == ((0,) * 11, (11, 0), 1.0, "a boat")


def test_a_tie_of_two_goes_to_the_first_noisy_copy():
    assert vote(["fog", "a boat"], HASH).chosen == "fog"
    assert vote(["a boat", "fog"], HASH).chosen == "a boat"
    audit = vote(["fog", "a boat", "a boat", "fog"], HASH)
    assert (audit.sizes, audit.agreement, audit.chosen) == ((2, 2), 0.5, "fog")


def test_the_larger_cluster_wins_though_it_comes_later():
    audit = vote(["fog", "a red boat", "a red boat", "one red boat"], HASH)
    assert (audit.labels, audit.sizes, audit.chosen) == ((0, 1, 1, 1), (1, 3), "a red boat")


def test_the_medoid_of_the_larger_cluster_is_chosen():
    near = ["there is a red boat in the north", "there is a red boat in the south", "there is a red boat"]
    audit = vote([*near, "there is a red boat", "thick fog hides everything"], HASH)
    assert audit.labels == (0, 0, 0, 0, 1)
    assert audit.chosen == "there is a red boat"


def test_empty_answers_are_answers():
    assert vote(["", "", "a boat"], HASH).chosen == ""
    assert vote(["a boat", "", "a boat"], HASH).chosen == "a boat"
    assert vote([""], HASH).agreement == 1


def test_answers_that_embed_alike_are_one_cluster():
    audit = vote(["Yes", "yes", "YES"], HASH)  # the hash encoder ignores case
    assert (audit.labels, audit.sizes, audit.chosen) == ((0, 0, 0), (3, 0), "Yes")


@given(answers)
def test_a_vote_is_consistent_with_itself(texts):
    audit = vote(texts, HASH)
    assert audit.chosen in texts
    assert audit.candidates == tuple(texts)
    assert audit.sizes == (audit.labels.count(0), audit.labels.count(1))
    assert audit.labels[0] == 0
    assert audit.agreement == max(audit.sizes) / len(texts) >= 0.5
    assert audit == vote(texts, HASH)
    of_text = dict(zip(texts, audit.labels, strict=True))
    assert all(of_text[text] == label for text, label in zip(texts, audit.labels, strict=True))
    winner = of_text[audit.chosen]
    assert audit.sizes[winner] == max(audit.sizes)


@given(answers, st.randoms())
def test_the_order_of_the_copies_decides_ties_only(texts, random):
    audit, shuffled = vote(texts, HASH), list(texts)
    random.shuffle(shuffled)
    again = vote(shuffled, HASH)
    assert sorted(again.candidates) == sorted(audit.candidates)
    if len({text.lower() for text in texts}) == len(set(texts)) == 2 and audit.sizes[0] != audit.sizes[1]:
        assert again.chosen == audit.chosen


def squares(points, weights, labels):
    total = 0.0
    for which in set(labels.tolist()):
        inside = labels == which
        centre = (weights[inside] @ points[inside]) / weights[inside].sum()
        total += float((points[inside] - centre).square().sum(1) @ weights[inside])
    return total


def planted(seed, size, dimension):
    draw = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(size, dimension, generator=draw).double(), dim=1)
    return points, torch.randint(1, 4, (size,), generator=draw).double()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 12))
def test_two_means_is_the_best_of_all_splits(seed, size, dimension):
    points, weights = planted(seed, size, dimension)
    found = two_means(points, weights)
    best = min(squares(points, weights, torch.tensor((0, *rest))) for rest in product((0, 1), repeat=size - 1))
    assert found[0] == 0
    assert squares(points, weights, found) == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_many_different_answers_are_split_nearly_as_well(seed, monkeypatch):
    points, weights = planted(seed, 11, 6)
    best = squares(points, weights, two_means(points, weights))
    monkeypatch.setattr(_vote, "EXACT", 1)  # Lloyd's iteration, as for more than 12 answers
    assert squares(points, weights, two_means(points, weights)) <= 1.1 * best


def test_two_far_groups_of_many_answers_are_found():
    axes = torch.eye(40, dtype=torch.float64)
    points = torch.cat([axes[0] + 0.01 * axes[1:21], -axes[0] + 0.01 * axes[1:16]])
    assert two_means(points, torch.ones(35).double()).tolist() == [0] * 20 + [1] * 15
