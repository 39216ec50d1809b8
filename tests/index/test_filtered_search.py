"""Top-k under a filter is what looking at every matching document gives."""

import numpy as np
import pytest
import torch
from building import ENCODER, pictures, quietly
from filtering import FIELDS, filters, judged, written
from hypothesis import given, settings
from hypothesis import strategies as st

from morgana.index import Index, Where, add, compact, delete
from morgana.spec import parse
from morgana.types import Document, SpecError

KINDS = ("Flat()", "HNSW(m=8)", "IVF(lists=8, probe=1)", "IVFPQ(lists=4, bytes_=4, probe=1)", "SQ8()")


def many(count, seed=0):
    draw = np.random.default_rng(seed)
    made = []
    for n in range(count):
        row = {name: str(draw.choice(values)) for name, values in FIELDS.items() if draw.random() < 0.8}
        made.append(Document(f"d{n}", f"text number {n} {draw.integers(9)}", metadata=row))
    return made


@pytest.fixture(scope="module", params=(*KINDS, "Factory('PCA8,Flat')", "Factory('PQ4x4np')"))
def index(request, tmp_path_factory):
    """Three segments, one with tombstones."""
    path = tmp_path_factory.mktemp("filtered") / "index"
    documents = many(300)
    quietly(documents[:250], ENCODER, path, kind=parse(request.param))
    add(path, documents[250:], ENCODER)
    add(path, [Document("last", "the last one", metadata={"colour": "violet"})], ENCODER)
    return delete(path, [f"d{n}" for n in range(0, 300, 7)])


def brute(index, vector, k, allowed):
    """Ids and scores of the k best allowed documents, by a full sort."""
    ids, rows = index.embeddings
    scores = (rows.double() @ vector.double()).clamp(-1, 1)
    best = {}
    for i in torch.sort(scores, descending=True, stable=True).indices.tolist():
        if ids[i] in allowed:
            best.setdefault(ids[i], float(scores[i]))
    return list(best.items())[:k]


@settings(max_examples=25)
@given(filters, st.integers(1, 40), st.integers(0, 5))
def test_top_k_under_any_filter(index, tree, k, seed):
    (query,) = torch.nn.functional.normalize(torch.randn(1, 16, generator=torch.Generator().manual_seed(seed)))
    allowed = {d.id for d in index.documents() if judged(tree, d.metadata)}
    (hits,) = index.search(query[None], k, where=written(tree))
    assert len(hits) == min(k, len(allowed))
    assert {h.document.id for h in hits} <= allowed
    wanted = brute(index, query, k, allowed)
    if index.manifest.kind == "Flat()":
        assert [h.document.id for h in hits] == [id for id, _ in wanted]
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_few_matches_are_found_exactly_whatever_the_kind(index):
    (query,) = torch.nn.functional.normalize(torch.ones(1, 16))
    allowed = {d.id for d in index.documents() if d.metadata.get("year") == "1980"}
    (hits,) = index.search(query[None], 10, where=Where('year == "1980"'))
    wanted = brute(index, query, 10, allowed)
    assert [h.score for h in hits] == pytest.approx([score for _, score in wanted], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_matches_are_searched_by_the_kind_itself(kind, tmp_path, monkeypatch):
    """With the limit of few at zero, the selector goes to FAISS's own index of the kind."""
    from morgana.index import segment

    monkeypatch.setattr(segment, "FEW", 0)
    index = quietly(many(300), ENCODER, tmp_path / "index", kind=parse(kind))
    assert index.segments[0].searcher.selects
    for k in (5, 200):
        for asked in ("colour == 'red'", "colour != 'red'"):
            hits = index.search(torch.nn.functional.normalize(torch.randn(4, 16)), k, where=asked)
            matching = sum(Where(asked).matches(d.metadata) for d in index.documents())
            assert [len(found) for found in hits] == [min(k, matching)] * 4
            assert all(Where(asked).matches(h.document.metadata) for found in hits for h in found)


def test_an_unknown_field_is_named_with_the_nearest(index):
    with pytest.raises(
        SpecError, match=r"no document has the field 'color' \(did you mean colour\?\); they have colour"
    ):
        index.search(torch.ones(1, 16), 3, where="color == 'red'")
    with pytest.raises(SpecError, match="cannot read the filter"):
        index.search(torch.ones(1, 16), 3, where="colour ==")


def test_a_filter_that_nothing_matches_finds_nothing(index):
    assert index.search(torch.ones(2, 16), 3, where="year > 2500") == [(), ()]


def test_fields_survive_a_compact_and_stay_in_an_open_snapshot(tmp_path):
    path = tmp_path / "index"
    index = quietly(many(20), ENCODER, path)
    delete(path, [f"d{n}" for n in range(10)])
    compact(path)
    (hits,) = Index.open(path).search(torch.ones(1, 16), 20, where="year == None or year != None")
    assert {h.document.id for h in hits} == {f"d{n}" for n in range(10, 20)}
    assert len(index.search(torch.ones(1, 16), 20, where="year == None or year != None")[0]) == 20


def test_what_is_searched_may_be_the_texts_or_the_images_only(tmp_path):
    (picture,) = pictures(tmp_path, 1)
    documents = [Document("b", "a boat", picture.image), Document("t", "a tree"), picture]
    index = quietly(documents, ENCODER, tmp_path / "index", embed="both")
    vectors = ENCODER.encode_text(["a tree"])
    found = {
        source: {h.document.id for h in index.search(vectors, 9, source=source)[0]} for source in ("text", "image")
    }
    assert found == {"text": {"b", "t"}, "image": {"b", "i0"}}
    (hit,) = (h for h in index.search(vectors, 9, source="text")[0] if h.document.id == "b")
    assert hit.score == pytest.approx(float(index.vectors(["b"])[0] @ vectors[0]), abs=1e-5)
    with pytest.raises(SpecError, match="source='sound'; say which vectors"):
        index.search(vectors, 1, source="sound")


def test_metadata_that_are_no_strings_are_compared_as_what_they_spell(tmp_path):
    rows = ({"n": 5}, {"n": "5"}, {"n": 5.5}, {"n": None}, {"n": True}, {"n": [1]}, {})
    documents = [Document(f"d{i}", f"t{i}", metadata=row) for i, row in enumerate(rows)]
    index = quietly(documents, ENCODER, tmp_path / "index")

    def passing(where):
        return sorted(h.document.id for h in index.search(torch.ones(1, 16), 9, where=where)[0])

    assert passing("n == 5") == ["d0", "d1"]
    assert passing("n >= 5") == ["d0", "d1", "d2"]
    assert passing("n == None") == ["d3", "d6"]
    assert passing("n == True") == ["d4"]
    assert passing('n == "[1]"') == ["d5"]
