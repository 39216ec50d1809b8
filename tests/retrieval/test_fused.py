from dataclasses import dataclass, field

import pytest
import torch
from fakes import ConvEncoder
from hypothesis import given
from hypothesis import strategies as st

from morgana.corpus.images import save
from morgana.index import build
from morgana.retrieval.retrievers.dense import Dense
from morgana.retrieval.retrievers.fused import Fused
from morgana.retrieval.retrievers.sparse import Sparse
from morgana.spec import parse
from morgana.types import Document, Hit, Query, SpecError


@dataclass(frozen=True)
class Fixed:
    """Gives every query the same scores; those with an image others."""

    scores: dict[str, float]
    by_image: dict[str, float] = field(default_factory=dict)

    def __call__(self, queries, k):
        found = []
        for query in queries:
            scores = self.by_image if query.image else self.scores
            ordered = sorted(scores.items(), key=lambda pair: -pair[1])[:k]
            found.append(tuple(Hit(Document(id), score) for id, score in ordered))
        return found


ASK = [Query("q", "words")]


def fused(*scores, **options):
    return Fused(tuple(Fixed(s) for s in scores), **options)


def listed(hits):
    return {h.document.id: h.score for h in hits}


def test_reciprocal_ranks_are_summed():
    (hits,) = fused({"a": 0.9, "b": 0.8}, {"b": 30, "c": 20, "a": 10})(ASK, 9)
    assert listed(hits) == pytest.approx({"a": 1 / 61 + 1 / 63, "b": 1 / 62 + 1 / 61, "c": 1 / 62})
    assert [h.document.id for h in hits] == ["b", "a", "c"]
    (hits,) = fused({"a": 0.9, "b": 0.8}, {"b": 30, "c": 20, "a": 10}, weights=(3, 1), constant=0)(ASK, 1)
    assert listed(hits) == pytest.approx({"a": 3 + 1 / 3})


def test_ties_keep_the_first_retrievers_order():
    (hits,) = fused({"x": 2, "a": 1}, {"a": 2, "x": 1})(ASK, 2)
    assert [h.document.id for h in hits] == ["x", "a"]
    assert hits[0].score == hits[1].score


def test_depth_is_how_far_each_is_read():
    (hits,) = fused({"a": 3, "b": 2, "c": 1}, {"c": 3, "b": 2, "a": 1}, depth=1)(ASK, 1)
    assert [h.document.id for h in hits] == ["a"]
    (hits,) = fused({"a": 3, "b": 2, "c": 1}, {"c": 3, "b": 2, "a": 1}, depth=1)(ASK, 3)  # k asks for more
    assert len(hits) == 3


def test_weighted_scores_are_in_deviations_of_the_sample():
    made = fused({"a": 0.3, "b": 0.1}, {"b": 30, "c": 10}, method="weighted").calibrated(ASK * 5)
    assert sum(made.text_scales, ()) == pytest.approx((0.2, 0.1, 20, 10))
    assert made.image_scales == ()
    (hits,) = made(ASK, 9)
    assert listed(hits) == pytest.approx({"a": 1 - 1, "b": -1 + 1, "c": -1 - 1})
    assert parse(repr(Fused((Dense("x"), Sparse("x")), method="weighted", text_scales=((0.25, 0.5), (9, 3)))))


def test_scales_are_those_of_the_querys_kind(tmp_path):
    image = Query("i", image=tmp_path / "a.png")
    texts = Fixed({"t": 0.8, "u": 0.6}, {"t": 0.25, "u": 0.15})  # an image's cosines with texts are small
    images = Fixed({"p": 0.3, "r": 0.2}, {"p": 0.9, "r": 0.7})
    plain = Fused((texts, images), method="weighted")
    made = plain.calibrated([*ASK, image])
    assert sum(made.text_scales, ()) == pytest.approx((0.7, 0.1, 0.25, 0.05))
    assert sum(made.image_scales, ()) == pytest.approx((0.2, 0.05, 0.8, 0.1))
    by_text, by_image = made([*ASK, image], 9)
    assert listed(by_text) == pytest.approx({"t": 0, "p": 0, "u": -2, "r": -2})
    assert listed(by_image) == pytest.approx({"t": 0, "p": 0, "u": -2, "r": -2})
    with pytest.raises(SpecError, match=r"query 'i' is by image, .*were not made comparable: fused.calibrated"):
        plain.calibrated(ASK)([image], 2)


def test_mistakes_are_said():
    for options, said in (
        ({"method": "max"}, "method='max'; choose one of rrf, weighted"),
        ({"weights": (1,)}, "for 2 retrievers"),
        ({"weights": (1, -1)}, "at least 0"),
        ({"text_scales": ((0, 1),)}, "for 2 retrievers"),
        ({"text_scales": ((0, 1), (0, 0))}, "above 0"),
        ({"depth": 0}, "depth=0"),
    ):
        with pytest.raises(SpecError, match=said):
            fused({}, {}, **options)
    with pytest.raises(SpecError, match="nothing to fuse"):
        Fused(())
    with pytest.raises(SpecError, match="not made comparable"):
        fused({"a": 1}, method="weighted")(ASK, 1)
    with pytest.raises(SpecError, match="no queries to calibrate with"):
        fused({"a": 1}).calibrated([])
    with pytest.raises(SpecError, match="found nothing for the sample"):
        fused({}).calibrated(ASK)


score_lists = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(-50, 50), max_size=6), min_size=1, max_size=3
)


@given(score_lists, st.sampled_from(["rrf", "weighted"]), st.sampled_from("abcdef"))
def test_a_document_that_rises_in_one_list_does_not_fall(scores, method, id):
    scales = tuple((0.0, 1.0) for _ in scores)
    before = listed(fused(*scores, method=method, text_scales=scales)(ASK, 9)[0])
    if id not in scores[0]:
        return
    risen = [scores[0] | {id: 99}, *scores[1:]]
    after = listed(fused(*risen, method=method, text_scales=scales)(ASK, 9)[0])
    assert set(after) == set(before)
    if method == "rrf" or min(scores[0], key=scores[0].get) != id:  # else the last, with which the unfound count, rises
        assert after[id] >= before[id]


@given(score_lists, st.floats(0.5, 8), st.floats(-3, 3))
def test_calibration_undoes_any_scale_of_a_retriever(scores, factor, shift):
    if not all(scores):
        return
    first = fused(*scores, method="weighted").calibrated(ASK)(ASK, 9)[0]
    moved = [{id: s * factor + shift for id, s in scores[0].items()}, *scores[1:]]
    second = fused(*moved, method="weighted").calibrated(ASK)(ASK, 9)[0]
    assert listed(first) == pytest.approx(listed(second), abs=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fused")
    draw = torch.Generator().manual_seed(0)
    for n in range(6):
        save(torch.rand(1, 3, 8, 8, generator=draw), folder / f"{n}.png")
    documents = [Document(f"t{n}", f"fog number {n}", metadata={"n": str(n)}) for n in range(6)]
    documents += [Document(f"i{n}", image=folder / f"{n}.png", metadata={"n": str(n)}) for n in range(6)]
    build(documents, ConvEncoder(16), folder / "index", sparse=True, progress=False)
    return folder


def test_texts_and_images_of_one_index_meet_in_one_list(folder):
    """By plain cosine an image finds images alone; in deviations of each kind of row, texts too."""
    path, encoder = str(folder / "index"), ConvEncoder(16)
    asked = [Query(f"q{n}", image=folder / f"{n}.png") for n in range(6)]
    plain = Dense(path, encoder)(asked, 4)
    assert all(h.document.image for hits in plain for h in hits)
    both = Fused((Dense(path, encoder, source="text"), Dense(path, encoder, source="image")), method="weighted")
    found = both.calibrated(asked[3:])(asked[:3], 12)
    assert all(len(hits) == 12 for hits in found)
    assert all({bool(h.document.image) for h in hits[:6]} == {True, False} for hits in found)


def test_dense_and_sparse_meet_under_one_filter(folder):
    path = str(folder / "index")
    parts = (Dense(path, ConvEncoder(16), where="n < 3"), Sparse(path, where="n < 3"))
    (hits,) = Fused(parts)([Query("q", "fog number 2")], 4)
    assert hits[0].document.id == "t2"
    assert {h.document.metadata["n"] for h in hits} <= {"0", "1", "2"}


def test_sparse_finds_words_and_nothing_else(folder):
    sparse = Sparse(str(folder / "index"), k1=0.9, b=0.4)
    hits, none, unknown = sparse([Query("q", "number 4!"), Query("i", image=folder / "0.png"), Query("z", "zzz")], 3)
    assert [h.document.id for h in hits] == ["t4", "t0", "t1"]
    assert hits[0].score > hits[1].score == hits[2].score > 0
    assert none == unknown == ()
    assert parse(repr(sparse)) == sparse
    with pytest.raises(SpecError, match="cannot read the filter"):
        Sparse("x", where="n <")
    with pytest.raises(SpecError, match="b from 0 to 1"):
        Sparse("x", b=2)
